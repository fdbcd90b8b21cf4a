"""Texts and chats -> full windows of tokens: joined one after the other, and what is left at the end is left out."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

_BETWEEN = "\n\n"


class NoWindowError(Exception):
    """The texts together are shorter than one window."""


def make_windows(records: Sequence[dict[str, Any]], tokenizer: Any, seqlen: int, most: int) -> list[list[int]]:
    """At most `most` windows of `seqlen` tokens; raises NoWindowError when there is not one.

    A quantizer drops a text that is shorter than its window without a word, so none of them gets a text.
    """
    ids: list[int] = []
    for record in records:
        ids += tokenizer(_text(record, tokenizer) + _BETWEEN, add_special_tokens=False)["input_ids"]
        if len(ids) >= seqlen * most:
            break
    windows = [ids[start : start + seqlen] for start in range(0, len(ids) - seqlen + 1, seqlen)][:most]
    if not windows:
        raise NoWindowError(f"the texts are {len(ids)} tokens together, a window has {seqlen}")
    return windows


def _text(record: dict[str, Any], tokenizer: Any) -> str:
    """A chat as the model's own template writes it; a template that refuses one gets its turns as plain text."""
    if "text" in record:
        return str(record["text"])
    messages = record["messages"]
    if getattr(tokenizer, "chat_template", None):
        # A template raises what its author liked: no system role, turns in pairs.
        with contextlib.suppress(Exception):
            return str(tokenizer.apply_chat_template(messages, tokenize=False))
    return "\n".join(str(message["content"]) for message in messages)
