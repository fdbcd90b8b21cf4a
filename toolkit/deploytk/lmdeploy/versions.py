"""LMDeploy's releases in their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LmdeployEngine = Literal["turbomind", "pytorch"]

VERSIONS = tuple(
    """
    0.0.10 0.0.11 0.0.12 0.0.13 0.0.14 0.1.0 0.2.0 0.2.1 0.2.2 0.2.3 0.2.4 0.2.5 0.2.6 0.3.0 0.4.0 0.4.1 0.4.2
    0.5.0 0.5.1 0.5.2 0.5.2.post1 0.5.3 0.6.0 0.6.1 0.6.2 0.6.2.post1 0.6.3 0.6.4 0.6.5
    0.7.0 0.7.0.post1 0.7.0.post2 0.7.0.post3 0.7.1 0.7.2 0.7.2.post1 0.7.3 0.8.0 0.9.0 0.9.1 0.9.2 0.9.2.post1
    0.10.0 0.10.1 0.10.2 0.11.0 0.11.1 0.12.0 0.12.1 0.12.2 0.12.3 0.13.0 0.14.0 0.15.0 0.16.0 0.17.0 0.18.0
    """.split()
)
NEWEST = VERSIONS[-1]
AFTER_WORKSPACES = "0.8.0"
"""The first version that no longer reads the weights of a workspace."""


def age(version: str) -> int:
    """The place of a version in the order of releases; compare these, never the strings."""
    return VERSIONS.index(version)


@dataclass(frozen=True, slots=True)
class VersionRange:
    """The LMDeploy versions that can serve a model; all None when none can."""

    min: str | None
    max: str | None  # the newest known one when there is no upper border
    pin: str | None  # the one to install
    engine: LmdeployEngine | None  # TurboMind where it can, else the PyTorch engine
    reason: str  # why the borders are where they are, one sentence
