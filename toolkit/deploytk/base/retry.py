"""Tries again while a server is away or busy: one policy, bounded in all, that says how long and until when."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timezone

from deploytk.base.errors import TryAgainError
from deploytk.base.pause import pause

BUSY = (408, 425, 429, 500, 502, 503, 504)
"""The statuses of a server that is busy or restarts: the same request may be answered a moment later."""

_HINT = "check its name and the network, then run again: what has arrived is not sent again"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with jitter, bounded by a number of attempts and by a time for all of them."""

    attempts: int = 30
    total_s: float = 120.0  # from the first failure on
    first_s: float = 0.5
    longest_s: float = 8.0

    def backoff_s(self, failures: int) -> float:
        """How long to wait after so many failures in a row."""
        longest_s = min(self.first_s * 2.0 ** min(failures - 1, 30), self.longest_s)
        return random.uniform(0.5, 1.0) * longest_s  # noqa: S311


class Waits:
    """Where waits are said that nobody gave a place for: whoever runs a command hears of every one."""

    say: Callable[[str], None] = staticmethod(lambda _: None)


class Retry:
    """One request and its failures; not for several threads."""

    def __init__(self, policy: RetryPolicy, host: str, note: Callable[[str], None] | None = None) -> None:
        self._policy = policy
        self._host = host
        self._note = note or Waits.say
        self.failures = 0
        self._since = 0.0
        self._said = ""

    def progressed(self) -> None:
        """Something got done since the last failure: patience begins anew."""
        self.failures = 0

    def wait(self, problem: str, asked_s: float | None = None) -> None:
        """Say the problem ("answers 503") and wait, as long as the server asks for; raises TryAgainError at the end.

        It raises at once when the server asks for more time than is left.
        """
        now = time.monotonic()
        self._since = self._since if self.failures else now
        self.failures += 1
        pause_s = max(asked_s or 0.0, self._policy.backoff_s(self.failures))
        left_s = self._since + self._policy.total_s - now
        if self.failures >= self._policy.attempts or pause_s > left_s:
            raise self._over(problem, asked_s, now - self._since)
        if problem != self._said or (asked_s or 0.0) > 1.0:  # many equal lines say no more than one
            self._note(f"{self._host} {problem}: again {_when(pause_s)}, until {_clock(left_s)} at most")
            self._said = problem
        pause(pause_s)

    def over(self, problem: str, asked_s: float | None) -> TryAgainError:
        """What to raise where waiting as long as the server asks is out of the question."""
        return self._over(problem, asked_s, 0.0)

    def _over(self, problem: str, asked_s: float | None, waited_s: float) -> TryAgainError:
        if asked_s and asked_s > 1.0:
            hint = f"run again after {_clock(asked_s)}: what has arrived is not sent again"
            return TryAgainError(f"{self._host} {problem} and asks to wait {asked_s:.0f} s", hint=hint)
        times = f", {self.failures} times in {waited_s:.0f} s" if self.failures > 1 else ""
        return TryAgainError(f"{self._host} {problem}{times}", hint=_HINT)


def retry_after_s(value: str | None) -> float | None:
    """The seconds that a Retry-After header asks for, as a number or a date (RFC 9110); None when it does not say."""
    from email.utils import parsedate_to_datetime

    if not value:
        return None
    with contextlib.suppress(ValueError):
        seconds = float(value)
        return seconds if 0.0 <= seconds < 1e9 else None
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        then = parsedate_to_datetime(value)
        then = then if then.tzinfo else then.replace(tzinfo=timezone.utc)
        return max(0.0, then.timestamp() - time.time())
    return None


def _when(seconds: float) -> str:
    return "at once" if seconds < 0.1 else f"in {seconds:.1f} s" if seconds < 10 else f"at {_clock(seconds)}"


def _clock(from_now_s: float) -> str:
    """A time of the day, as the clock of this machine shows it."""
    moment = time.localtime(time.time() + min(from_now_s, 1e9))
    return time.strftime("%H:%M:%S" if from_now_s < 20 * 3600 else "%Y-%m-%d %H:%M", moment)
