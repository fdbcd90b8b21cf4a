"""Reads what a person types, or what comes through a pipe: messages of one line or several."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable

from deploytk.base.credentials import can_ask

BLOCK = '"""'  # begins and ends a message of several lines
PROMPT, MORE = "> ", ". "

ReadLine = Callable[[str], "str | None"]  # given what to show before it; None at the end


def line_reader() -> ReadLine:
    """Lines of a terminal, which can be edited and called back, or of a pipe."""
    if not can_ask():
        return _piped
    with contextlib.suppress(ImportError):  # without it lines can be typed, not edited
        import readline  # noqa: F401
    return _typed


def read_message(read: ReadLine) -> str | None:
    """The next message; None at the end.

    A line that ends with a backslash goes on, and what stands between lines of three quotation marks is one message.
    """
    line = read(PROMPT)
    if line is None:
        return None
    if line.strip().startswith(BLOCK):
        return _block(line.strip().removeprefix(BLOCK), read)
    lines = [line]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        following = read(MORE)
        if following is None:
            break
        lines.append(following)
    return "\n".join(lines)


def _block(first: str, read: ReadLine) -> str:
    lines = [first] if first else []
    while not (lines and lines[-1].endswith(BLOCK)):
        line = read(MORE)
        if line is None:
            return "\n".join(lines)
        lines.append(line)
    lines[-1] = lines[-1].removesuffix(BLOCK)
    return "\n".join(lines if lines[-1] else lines[:-1])


def _typed(prompt: str) -> str | None:
    try:
        if sys.stdout.isatty():
            return _whole(input(prompt))
        # Python would write the prompt to stdout, where --json has its value.
        sys.stderr.write(prompt)
        sys.stderr.flush()
        line = sys.stdin.readline()
        return _whole(line.rstrip("\n")) if line else None
    except EOFError:
        return None


def _whole(text: str) -> str:
    """Bytes that were no UTF-8 come as halves of characters, which no server takes."""
    return os.fsencode(text).decode("utf-8", "replace")


def _piped(_: str) -> str | None:
    line = sys.stdin.buffer.readline() if hasattr(sys.stdin, "buffer") else sys.stdin.readline().encode()
    return line.decode("utf-8-sig", "replace").rstrip("\r\n") if line else None
