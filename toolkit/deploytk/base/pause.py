"""Waits, and lets a signal end that."""

from __future__ import annotations

import time

_AT_MOST_S = 0.5


def pause(seconds: float) -> None:
    """Sleep for so long.

    Python looks for signals between two steps of a program. One that comes after the last look, just before the system
    sleeps, is handled when it wakes up: of one long sleep it would be a minute late, and Ctrl-C seem to do nothing.
    """
    until_s = time.monotonic() + seconds
    left_s = seconds
    while left_s > 0:
        time.sleep(min(left_s, _AT_MOST_S))  # noqa: TID251 (here it is)
        left_s = until_s - time.monotonic()
