"""Words for what is wrong: few even where much is wrong, and safe to print whatever the files are called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from deploytk.artifact.value import Problem

_SHOWN = 3  # problems of one kind that are spelled out
_LONGEST = 600  # characters


def few(
    messages: Sequence[str], what: str, hint: str, level: Literal["error", "warning", "info"] = "error"
) -> Iterator[Problem]:
    """The first of `messages` as problems of their own, then how many of `what` there are in all."""
    for message in messages[:_SHOWN]:
        yield Problem(level, message, hint)
    if len(messages) > _SHOWN:
        yield Problem(level, f"{len(messages)} {what} in all", hint)


def printable(text: str) -> str:
    """`text` on one line and not too long; what a terminal would act upon is written as an escape."""
    shown = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST // 2]} ... {shown[-_LONGEST // 2 :]}"
