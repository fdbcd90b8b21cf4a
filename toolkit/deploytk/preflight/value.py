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


Status = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Finding:
    level: Literal["error", "unknown", "warning"]  # error: the app will never be ready; unknown: was not tried here
    code: Code
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Preflight:
    platform: str
    app: str  # the directory that was looked at
    status: Status  # pass: the app was started, answered, and has no errors; inconclusive: it could not be tried
    findings: tuple[Finding, ...]
    first_answer_s: float | None  # from start to the first answer at /; None when there was none
    listens_on: tuple[str, ...]  # HOST:PORT of every server that the app opened
    ran: tuple[str, ...]  # the commands it ran before it answered
    python_here: str
    python_there: str
    resolved_by_pip: bool  # whether pip was asked to resolve the requirements for that Python
