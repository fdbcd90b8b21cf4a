"""Objectives of service: what a request must keep to count as goodput."""

from __future__ import annotations

import re

from deploytk.base.errors import UsageError
from deploytk.smoke import Budget, make_budget

_LIMITS = {"ttft": "max_ttft_ms", "tpot": "max_tpot_ms"}
_MS = {"ms": 1.0, "s": 1000.0}
_HINT = "write for example ttft=500ms,tpot=50ms: time to first token and per output token, in ms or s"


def parse_slo(text: str) -> Budget:
    """The objectives in "ttft=500ms,tpot=50ms"; raises UsageError for anything else."""
    limits: dict[str, object] = {}
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\w+)\s*=\s*(\d+(?:\.\d+)?)\s*(ms|s)\s*", part)
        name = _LIMITS.get(found[1]) if found else None
        if found is None or name is None:
            raise UsageError(f"{part.strip()!r} is no objective", hint=_HINT)
        if name in limits:
            raise UsageError(f"{found[1]} is given twice", hint=_HINT)
        limits[name] = float(found[2]) * _MS[found[3]]
    return make_budget(limits, "--slo")


def in_words(budget: Budget) -> str:
    """ "TTFT up to 500 ms, TPOT up to 50 ms"; "" without objectives."""
    limits = (("TTFT", budget.max_ttft_ms), ("TPOT", budget.max_tpot_ms))
    return ", ".join(f"{name} up to {limit:g} ms" for name, limit in limits if limit is not None)
