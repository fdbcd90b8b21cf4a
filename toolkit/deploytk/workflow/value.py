"""The summary of a workflow: what each command did, what is wrong, what later steps want to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "notice"]
Status = Literal["done", "failed", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the workflow."""

    command: str  # "publish"
    status: Status
    rows: tuple[tuple[str, str], ...] = ()  # name and value, for people
    findings: tuple[Finding, ...] = ()
    detail: str = ""  # Markdown of its own, instead of the rows


@dataclass(frozen=True, slots=True)
class Summary:
    status: Status
    steps: tuple[Step, ...]  # in the order of the data
    outputs: Mapping[str, str]  # url, revision, digest, image, verdict: those that are known
