"""What a pre-flight finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Code = Literal[
    "no-start-file", "wrong-host", "wrong-port", "blocking-start", "converts-at-start", "downloads-at-start",
    "installs-at-start", "ends-at-start", "answers-wrong", "cannot-start-here", "windows-only", "builds-at-install",
    "unpinned", "malformed", "unresolvable", "needs-newer-python", "missing-package", "too-little-memory",
    "not-checked",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    level: Literal["error", "warning"]  # an error keeps the app from ever being ready
    code: Code
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Preflight:
    platform: str
    app: str  # the directory that was looked at
    passed: bool  # no errors
    findings: tuple[Finding, ...]
    first_answer_s: float | None  # from start to the first answer at /; None when there was none
    listens_on: tuple[str, ...]  # HOST:PORT of every server that the app opened
    ran: tuple[str, ...]  # the commands it ran before it answered
    python_here: str
    python_there: str
    resolved_by_pip: bool  # whether pip was asked to resolve the requirements for that Python
