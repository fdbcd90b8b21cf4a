"""The chat template that a model brings, rendered in a child: whether it comes to an end, and what it makes.

A template is a program. Servers and quantizers render it inside their own process, where one that loops, or makes a
gigabyte of a letter, takes them with it. What a template does wrong otherwise is for them to say.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploytk.artifact import read_templates
from deploytk.base.errors import EndpointError
from deploytk.base.import_path import python_environment
from deploytk.bundle import render_template

_WITHIN_S = 20.0
_ONE_LETTER = [{"role": "user", "content": "1"}]


class UnendingTemplateError(Exception):
    """What a template does instead of coming to an end, behind "the chat template"."""


def require_ending_template(root: Path) -> None:
    """Raises EndpointError when a chat template of the model does not end, or makes too much of too little."""
    try:
        for template in read_templates(root):
            rendered(template, [_ONE_LETTER], {"bos_token": "", "eos_token": ""})
    except UnendingTemplateError as error:
        hint = "correct the template: every server would hang in it"
        raise EndpointError(f"the chat template of {root} {error}", hint=hint) from None


def rendered(
    template: str, conversations: Sequence[Sequence[Mapping[str, str]]], tokens: Mapping[str, str]
) -> list[str | None]:
    """The prompt for each conversation as transformers makes it; None where the template refuses, or cannot be used.

    Raises UnendingTemplateError for one that loops or makes too much.
    """
    wanted = {"template": template, "tokens": dict(tokens), "conversations": conversations}
    try:
        done = subprocess.run(
            [sys.executable, render_template.__file__], input=json.dumps(wanted).encode(), env=python_environment(),
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_WITHIN_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise UnendingTemplateError(f"does not come to an end within {_WITHIN_S:.0f} s") from None
    if done.returncode == render_template.TOO_MUCH:
        raise UnendingTemplateError("makes more than 1 MiB of text, or takes more than 1 GiB of memory, for one letter")
    if done.returncode < 0:  # the kernel ends a process that is over its time with a signal
        raise UnendingTemplateError(f"does not come to an end within {render_template.CPU_S} s")
    try:
        found = json.loads(done.stdout)
    except ValueError:  # it ended before it could say anything
        found = []
    return [*found, *[None] * (len(conversations) - len(found))]
