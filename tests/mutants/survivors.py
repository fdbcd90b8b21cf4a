"""The mutants that may survive, each with its reason: survivors.toml."""

from __future__ import annotations

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def reasons() -> dict[str, str]:
    """By the name of the mutant."""
    rooms = tomllib.loads(Path(__file__).with_name("survivors.toml").read_text(encoding="utf-8"))
    return {row["mutant"]: row["reason"] for rows in rooms.values() for row in rows}
