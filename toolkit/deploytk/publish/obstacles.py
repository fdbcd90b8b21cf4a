"""What stands in the way of a release: all of it is found before anything is changed, and told at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deploytk.base.errors import DeployError, ReleaseError, TryAgainError, UsageError

_ERRORS: dict[int, type[DeployError]] = {1: ReleaseError, 2: UsageError, 75: TryAgainError}


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One thing that would stop the run, and what to do about it."""

    message: str
    hint: str
    exit_code: int = 1

    @classmethod
    def of(cls, error: DeployError) -> Obstacle:
        return cls(str(error), error.hint, error.exit_code)


def obstacles_in(step: Callable[[], object]) -> list[Obstacle]:
    """What `step` raises, as an obstacle; TryAgainError passes: it says nothing about the run itself."""
    try:
        step()
    except TryAgainError:
        raise
    except DeployError as error:
        return [Obstacle.of(error)]
    return []


def refuse(obstacles: Sequence[Obstacle], then: str = "") -> None:
    """Raises one error that tells of all of them; its exit code is that of the first."""
    if not obstacles:
        return
    error = _ERRORS.get(obstacles[0].exit_code, ReleaseError)
    if len(obstacles) == 1:
        raise error(obstacles[0].message, hint=then or obstacles[0].hint)
    lines = [f"  {number}. {one.message}: {one.hint}" for number, one in enumerate(obstacles, 1)]
    raise error(
        f"{len(obstacles)} things stand in the way; nothing was changed\n" + "\n".join(lines),
        hint=then or "see to all of them, then run the same command again",
    )
