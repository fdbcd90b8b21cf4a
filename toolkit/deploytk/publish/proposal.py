"""Where a release would go when nobody has said it, and all that is missing for it: told at once, before any work."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from deploytk.publish.obstacles import Obstacle

UNKNOWN = "OWNER"
"""Stands for the owner in a proposal when nothing says who that is."""


@dataclass(frozen=True, slots=True)
class Proposal:
    repo: str  # what was asked for, or what is proposed: OWNER/NAME
    missing: tuple[Obstacle, ...] = ()  # accounts, tokens, programs, forms to fill in

    @property
    def is_whole(self) -> bool:
        return not self.repo.startswith(f"{UNKNOWN}/")


@runtime_checkable
class Proposing(Protocol):
    """A target whose repositories have owners and names."""

    def propose(self, name: str, repo: str | None) -> Proposal:
        """OWNER/NAME for `name`, or `repo` completed, and what is missing for a release there; nothing is changed."""
        ...


def repository(repo: str | None, owner: str | None, name: str) -> str:
    """`repo` with an owner before it, or one of that name."""
    if repo and "/" in repo:
        return repo
    return f"{owner or UNKNOWN}/{repo or usual_name(name)}"


def usual_name(text: str) -> str:
    """A name that every hub takes: ASCII letters, digits, dots and dashes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:96] or "model"


def missing_programs(programs: Sequence[str]) -> list[Obstacle]:
    return [
        Obstacle(f"{name} is not installed here", f"install it, for example: apt-get install {name}")
        for name in programs
        if not shutil.which(name)
    ]
