"""How a prompt looks to the model: its chat template, tried on one message."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from deploytk.artifact import Artifact
from deploytk.base.files import read_bounded
from deploytk.base.json import parse_plain
from deploytk.base.terminal import COMMANDS
from deploytk.bundle.chat_template import UnendingTemplateError, rendered

_LARGEST_BYTES = 2**24
_LONGEST = 4096  # characters that a card shows
_USER = {"role": "user", "content": "{prompt}"}
_SYSTEM = {"role": "system", "content": "{system_prompt}"}


def prompt_format(artifact: Artifact) -> str | None:
    """What is sent to the model for `{prompt}`, system prompt and all; None when nobody can tell."""
    if artifact.layout == "workspace":
        return _legacy(artifact.chat_template)
    template, tokens = _own_template(artifact.root)
    return _shown(template, tuple(tokens.items())) if template else None


def _legacy(name: str | None) -> str | None:
    from deploytk.modernize.templates import legacy_template

    template = legacy_template(name) if name else None
    return _shown(template.jinja(with_bos=False), ()) if template else None


def _own_template(root: Path) -> tuple[str | None, dict[str, str]]:
    config = _json(root / "tokenizer_config.json")
    stated = config.get("chat_template")
    if isinstance(stated, list):  # several by name; the one that is used without one
        stated = next((one.get("template") for one in stated if isinstance(one, dict)), None)
    own = _text(root / "chat_template.jinja") or stated or _json(root / "chat_template.json").get("chat_template")
    tokens = {name: _token(config.get(name)) for name in ("bos_token", "eos_token")}
    return own if isinstance(own, str) else None, tokens


def _token(value: object) -> str:
    found = value.get("content") if isinstance(value, dict) else value
    return found if isinstance(found, str) else ""


def _text(path: Path) -> str:
    try:
        return read_bounded(path, _LARGEST_BYTES).decode()
    except (OSError, ValueError):
        return ""


def _json(path: Path) -> dict[str, Any]:
    try:
        found = parse_plain(read_bounded(path, _LARGEST_BYTES))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@cache
def _shown(template: str, tokens: tuple[tuple[str, str], ...]) -> str | None:
    """With a system prompt where the template takes one."""
    conversations = [[_SYSTEM, _USER], [_USER]]
    try:
        prompts = rendered(template, conversations, dict(tokens))
    except UnendingTemplateError:
        return None
    for messages, text in zip(conversations, prompts, strict=True):
        if text is not None and all(message["content"] in text for message in messages):
            return text.strip("\n") if len(text) <= _LONGEST and not COMMANDS.search(text) else None
    return None
