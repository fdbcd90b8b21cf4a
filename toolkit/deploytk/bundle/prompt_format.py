"""How a prompt looks to the model: its chat template, tried on one message in a child.

    python -m deploytk.bundle.prompt_format < template

A template is a program that came with a model: what loops or makes gigabytes is ended there, and shows nothing.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from deploytk.artifact import Artifact
from deploytk.base.files import read_bounded
from deploytk.base.import_path import python_environment
from deploytk.base.json import parse_plain
from deploytk.base.terminal import COMMANDS

_WITHIN_S = 20.0
_CPU_S = 2
_MEMORY_BYTES = 2**30
_LARGEST_BYTES = 2**24
_LONGEST = 4096  # characters that a card shows
_USER = {"role": "user", "content": "{prompt}"}
_SYSTEM = {"role": "system", "content": "{system_prompt}"}


def prompt_format(artifact: Artifact) -> str | None:
    """What is sent to the model for `{prompt}`, system prompt and all; None when nobody can tell."""
    if artifact.layout == "workspace":
        return _legacy(artifact.chat_template)
    template, tokens = _own_template(artifact.root)
    return _rendered(template, json.dumps(tokens)) if template else None


def _legacy(name: str | None) -> str | None:
    from deploytk.modernize.templates import legacy_template

    template = legacy_template(name) if name else None
    return _rendered(template.jinja(with_bos=False), "{}") if template else None


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
def _rendered(template: str, tokens: str) -> str | None:
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__], input=json.dumps([template, json.loads(tokens)]).encode(),
            env=python_environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_WITHIN_S, check=False,
        )  # fmt: skip
        text = json.loads(done.stdout) if done.returncode == 0 else None
    except (subprocess.TimeoutExpired, ValueError):
        return None
    is_shown = isinstance(text, str) and "{prompt}" in text and len(text) <= _LONGEST and not COMMANDS.search(text)
    return str(text).strip("\n") if is_shown else None


def _render(template: str, tokens: dict[str, str]) -> str | None:
    """The prompt as transformers renders it, with a system prompt where the template takes one."""
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, **_: json.dumps(value)
    environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda _: "1 January 2026"}
    for messages in ([_SYSTEM, _USER], [_USER]):
        try:
            text = environment.from_string(template).render(messages=messages, add_generation_prompt=True, **tokens)
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError):
            continue
        if all(message["content"] in text for message in messages):
            return text
    return None


def _refuse(message: str) -> str:
    raise ValueError(message)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_render(*json.loads(sys.stdin.buffer.read()))))
