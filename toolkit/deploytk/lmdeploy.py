"""What each LMDeploy version can serve and which flags it takes: one table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VersionRange:
    """The LMDeploy versions that can serve a model; all None when none can."""

    min: str | None
    max: str | None  # the newest known one when there is no upper border
    pin: str | None  # the one to install
    reason: str  # why the borders are where they are, one sentence
