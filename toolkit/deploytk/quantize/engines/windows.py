"""Texts and chats -> full windows of tokens: joined one after the other, and what is left at the end is left out."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence
from typing import Any

_BETWEEN = "\n\n"
_RENDERED_WITHIN_S = 20.0


class EndlessTemplateError(BaseException):
    """The chat template of the model does not come to an end. No Exception: nobody on the way takes it for one."""


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
            return rendered(tokenizer, messages)
    return "\n".join(str(message["content"]) for message in messages)


def rendered(tokenizer: Any, messages: list[dict[str, Any]], **more: Any) -> str:
    """A chat as the model's own template writes it; raises EndlessTemplateError, and what the template raises."""
    with _ending():
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **more))


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    """A template is a program of the model's author: tried before with one letter, it may loop at another text."""
    before = signal.signal(signal.SIGALRM, _end)
    signal.setitimer(signal.ITIMER_REAL, _RENDERED_WITHIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _end(*_: object) -> None:
    raise EndlessTemplateError(f"the chat template does not come to an end within {_RENDERED_WITHIN_S:.0f} s")
