"""LMDeploy's releases in their order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from deploytk.lmdeploy.table import versions

LmdeployEngine = Literal["turbomind", "pytorch"]

VERSIONS = versions()
NEWEST = VERSIONS[-1]


def release_index(version: str) -> int:
    """The place of a version in the order of releases, oldest first; compare these, never the strings."""
    return VERSIONS.index(version)


@dataclass(frozen=True, slots=True)
class VersionRange:
    """The LMDeploy versions that can serve a model; all None when none can."""

    min: str | None
    max: str | None  # the newest known one when there is no upper border
    pin: str | None  # the one to install
    engine: LmdeployEngine | None  # TurboMind where it can, else the PyTorch engine
    reason: str  # why the borders are where they are
    needs: tuple[str, ...] = ()  # what must be mended in the model's files first, one sentence each


def newest_run(found: Iterable[str]) -> tuple[str, str] | None:
    """Oldest and newest of the newest versions that follow each other in `found`; None when it is empty."""
    places = sorted(map(release_index, found))
    if not places:
        return None
    first = places[-1]
    while first - 1 in places:
        first -= 1
    return VERSIONS[first], VERSIONS[places[-1]]


def span(first: str, last: str) -> str:
    """Two borders for a sentence."""
    if last == NEWEST:
        return f"from {first}"
    return first if first == last else f"from {first} to {last}"
