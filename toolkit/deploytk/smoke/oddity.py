"""Looks whether an event of a server has the shape of OpenAI's, as far as anything is read from it."""

from __future__ import annotations

from typing import Any

MOST_TOKENS = 2**31
"""In one answer: no server counts more, and figures stay figures."""

_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
_TEXTS = ("content", "text", "reasoning_content")


def oddity(event: dict[str, Any]) -> str:
    """What is wrong with the shape of `event`, "" when nothing is; what is read from a right one is what it seems."""
    choices, usage = event.get("choices"), event.get("usage")
    if choices is not None and not isinstance(choices, list):
        return "the answer's choices are no list"
    for choice in choices or ():
        if not isinstance(choice, dict):
            return "a choice of the answer is no object"
        if found := _in_choice(choice):
            return found
    if usage is not None and not isinstance(usage, dict):
        return "the answer's usage is no object"
    return _in_usage(usage) if usage else ""


def _in_choice(choice: dict[str, Any]) -> str:
    for name in ("delta", "message"):
        if choice.get(name) is not None and not isinstance(choice[name], dict):
            return f"the answer's {name} is no object"
    for part in (choice, choice.get("delta") or {}, choice.get("message") or {}):
        for name in _TEXTS:
            if part.get(name) is not None and not isinstance(part[name], str):
                return f"the answer's {name} is no text"
    return ""


def _in_usage(usage: dict[str, Any]) -> str:
    details = usage.get("prompt_tokens_details")
    if details is not None and not isinstance(details, dict):
        return "the answer's usage.prompt_tokens_details is no object"
    counts = [(name, usage.get(name)) for name in _COUNTS] + [("cached_tokens", (details or {}).get("cached_tokens"))]
    for name, value in counts:
        if value is not None and not (type(value) is int and 0 <= value <= MOST_TOKENS):
            return f"the answer's usage.{name} is no possible number of tokens"
    return ""
