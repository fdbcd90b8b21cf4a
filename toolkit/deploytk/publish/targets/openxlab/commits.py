"""Commits as text for `git fast-import`: some files written, some deleted, all others as they were."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

REF = "refs/deploytk/next"
FIRST_S = 1704067200
"""2024-01-01: a commit says nothing about when or where, so the same files on the same parent give the same commit."""

_AUTHOR = "deploytk <deploytk@localhost>"


@dataclass(frozen=True, slots=True)
class Commit:
    message: str
    parent: str | None
    when_s: int
    files: Mapping[str, bytes]
    deleted: Collection[str]

    def stream(self) -> bytes:
        """What `git fast-import` reads; the commit is at REF then."""
        message = self.message.encode()
        parts = [
            f"commit {REF}\ncommitter {_AUTHOR} {self.when_s} +0000\ndata {len(message)}\n".encode(),
            message,
            b"\n",
        ]
        if self.parent:
            parts.append(f"from {self.parent}\n".encode())
        parts += [b"D " + _quoted(path) + b"\n" for path in sorted(self.deleted)]
        for path, content in self.files.items():
            parts += [b"M 100644 inline " + _quoted(path) + b"\ndata %d\n" % len(content), content, b"\n"]
        return b"".join(parts)


def _quoted(path: str) -> bytes:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'.encode("utf-8", "surrogateescape")
