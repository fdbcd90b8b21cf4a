"""Durations as people write them."""

from __future__ import annotations

import re

from deploytk.base.errors import UsageError

_SECONDS = {"s": 1, "m": 60, "h": 3600}


def seconds_of(duration: str) -> float:
    """Seconds of "90s", "30m", "1h" or "5"; raises UsageError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)?", duration)
    if not match:
        raise UsageError(f"{duration!r} is not a duration", hint="write 90s, 30m or 1h")
    return float(match[1]) * _SECONDS[match[2] or "s"]
