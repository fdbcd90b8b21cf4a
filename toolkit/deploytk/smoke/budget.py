"""What a deployment may cost."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from deploytk.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits; None where there is none."""

    max_vram_mib: float | None = None
    max_ttft_ms: float | None = None  # median
    max_tpot_ms: float | None = None  # median
    min_tokens_per_s: float | None = None

    def beaten_by(self, other: Budget) -> Budget:
        """This budget, with the limits of `other` where it has some."""
        given = {field.name: getattr(other, field.name) for field in fields(other)}
        return replace(self, **{name: value for name, value in given.items() if value is not None})


def make_budget(values: Mapping[str, object], where: str) -> Budget:
    """A budget of limits by name; raises UsageError for unknown names and impossible numbers."""
    known = {field.name for field in fields(Budget)}
    for name, value in values.items():
        if name not in known:
            raise UsageError(f"{where}: there is no limit {name!r}", hint=f"limits are {', '.join(sorted(known))}")
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not 0 < float(value) < math.inf:  # type: ignore[arg-type]
            raise UsageError(f"{where}: {name} is {value!r}", hint="a limit is a number above 0")
    return Budget(**{name: float(value) for name, value in values.items()})  # type: ignore[arg-type]


def read_budget(path: Path) -> Budget:
    """The limits in a TOML or JSON file, at its top or in a table `budget`."""
    try:
        text = path.read_text(encoding="utf-8")
        loaded = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}", hint="write limits as TOML or JSON") from error
    values = loaded.get("budget", loaded) if isinstance(loaded, dict) else None
    if not isinstance(values, dict):
        raise UsageError(f"{path} holds no limits", hint="write for example: max_ttft_ms = 500")
    return make_budget(values, str(path))
