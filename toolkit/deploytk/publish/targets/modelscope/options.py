"""What one may ask of ModelScope beside what one may ask of every target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from deploytk.base.errors import UsageError
from deploytk.publish.options import WAIT_S, EditedCard, Option, PublishOptions, Wait


@dataclass(frozen=True, slots=True)
class StudioRequest:
    """What is asked of the Studio."""

    wait_s: float  # how long to wait until it runs
    is_private: bool
    is_mirror: bool  # files of others that lie there are deleted
    edited_card: EditedCard  # what becomes of a card that somebody edited there


@dataclass(frozen=True, slots=True)
class ModelScopeOptions:
    app: Annotated[bool, Option("Create or update the Studio OWNER/NAME as well.")] = False
    wait: Wait = None

    def __post_init__(self) -> None:
        if self.wait is not None and not self.app:
            raise UsageError("--wait does nothing without an app to wait for", hint="add --app, or leave --wait out")

    def studio(self, options: PublishOptions) -> StudioRequest | None:
        """None when no Studio is asked for."""
        if not self.app:
            return None
        wait_s = WAIT_S if self.wait is None else self.wait
        return StudioRequest(wait_s, options.is_private, options.is_mirror, options.edited_card)
