"""What a deployment may cost."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from deploytk.base.errors import UsageError
from deploytk.hardware.catalogue import MIB

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_REPORT = "deploytk.report/"
_BAND = 1.2  # a stored baseline meets another day: narrower bands raise false alarms (docs/metrics.md)
_VRAM_SLACK_MIB = 64.0


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits; None where there is none."""

    max_vram_mib: float | None = None  # at the peak, loading included
    max_ttft_ms: float | None = None  # median
    max_tpot_ms: float | None = None  # median
    min_tokens_per_s: float | None = None
    vram_tolerance_pct: float | None = None  # how far the VRAM may be from its plan; 2 where that was measured before
    baseline_key: str | None = None  # the limits hold only for measurements with this key; None: for all

    @property
    def limits_times(self) -> bool:
        return any(limit is not None for limit in (self.max_ttft_ms, self.max_tpot_ms, self.min_tokens_per_s))

    def beaten_by(self, other: Budget) -> Budget:
        """This budget, with the limits of `other` where it has some."""
        given = {field.name: getattr(other, field.name) for field in fields(other)}
        return replace(self, **{name: value for name, value in given.items() if value is not None})


_LIMITS = {field.name for field in fields(Budget)} - {"baseline_key"}


def make_budget(values: Mapping[str, object], where: str) -> Budget:
    """A budget of limits by name; raises UsageError for unknown names and impossible numbers."""
    for name, value in values.items():
        if name not in _LIMITS:
            raise UsageError(f"{where}: there is no limit {name!r}", hint=f"limits are {', '.join(sorted(_LIMITS))}")
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not 0 < float(value) < math.inf:  # type: ignore[arg-type]
            raise UsageError(
                f"{where}: {name} is {json.dumps(value, default=str)[:80]}", hint="a limit is a number above 0"
            )
    return Budget(**{name: float(value) for name, value in values.items()})  # type: ignore[arg-type]


def read_budget(path: Path) -> Budget:
    """The limits in a TOML or JSON file, at its top or in a table `budget`; or those that an earlier report sets.

    A report allows 20 % more time, 20 % fewer tokens per second and 64 MiB more memory than it measured, and only
    for measurements of the same thing on the same machine.
    """
    try:
        text = path.read_text(encoding="utf-8")
        loaded = json.loads(text, object_pairs_hook=_once) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{path} cannot be read: {error}", hint="write limits as TOML or JSON, or name a report of smoke -o"
        ) from error
    if not isinstance(loaded, dict):
        raise UsageError(f"{path} holds no limits", hint="write for example: max_ttft_ms = 500")
    if str(loaded.get("schema", "")).startswith(_REPORT):
        return _baseline(loaded, path)
    values = loaded.get("budget", loaded)
    if not isinstance(values, dict):
        raise UsageError(f"{path} holds no limits", hint="write for example: max_ttft_ms = 500")
    twice = sorted(_LIMITS & loaded.keys()) if values is not loaded else []
    if twice:
        raise UsageError(
            f"{path}: limits stand both in [budget] and outside it, {twice[0]} for one", hint="keep one of the two"
        )
    return make_budget(values, str(path))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)} is given twice")
    return found


def _baseline(report: dict[str, Any], path: Path) -> Budget:
    try:
        if report["verdict"]["status"] == "inconclusive":
            raise UsageError(f"{path}: an inconclusive report is no baseline", hint="measure it again")
        latency, throughput, vram = report["latency"], report["throughput"], report["vram"]
        times = {f"max_{name}_ms": latency[f"{name}_ms"]["p50"] for name in ("ttft", "tpot")}
        limits = {name: value * _BAND for name, value in times.items() if value}
        if throughput["output_tps"]:
            limits["min_tokens_per_s"] = throughput["output_tps"] / _BAND
        if vram:
            limits["max_vram_mib"] = (vram["peak_bytes"] - vram["baseline_bytes"]) / MIB + _VRAM_SLACK_MIB
        key = str(report["identity"]["baseline_key"])
    except (KeyError, TypeError) as error:
        raise UsageError(
            f"{path} is no whole report: {error} is missing", hint="write a new one with smoke -o"
        ) from error
    return replace(make_budget(limits, str(path)), baseline_key=key)
