"""Whether the chat template that a model brings comes to an end: tried in a child, before anything renders it.

    python -m deploytk.bundle.chat_template < template

A template is a program. Servers and quantizers render it inside their own process, where one that loops, or makes a
gigabyte of a letter, takes them with it. What a template does wrong otherwise is for them to say.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

from deploytk.artifact import read_templates
from deploytk.base.errors import EndpointError
from deploytk.base.import_path import python_environment

_CPU_S = 2
_WITHIN_S = 20.0
_MEMORY_BYTES = 2**30
_LARGEST_PROMPT_BYTES = 2**20  # of one letter; a template adds some hundred bytes
_TOO_MUCH, _TOO_LONG = 3, 4
_CONVERSATION = [{"role": "user", "content": "1"}]


def require_ending_template(root: Path) -> None:
    """Raises EndpointError when a chat template of the model does not end, or makes too much of too little."""
    for template in read_templates(root):
        problem = _try(template)
        if problem:
            raise EndpointError(
                f"the chat template of {root} {problem}", hint="correct the template: every server would hang in it"
            )


def _try(template: str) -> str:
    """What is wrong with rendering `template`, "" when it ends."""
    command = [sys.executable, "-m", __name__]
    try:
        done = subprocess.run(
            command, input=json.dumps(template).encode(), env=python_environment(), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, timeout=_WITHIN_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"does not come to an end within {_WITHIN_S:.0f} s"
    if done.returncode == _TOO_MUCH:
        return "makes more than 1 MiB of text, or takes more than 1 GiB of memory, for one letter"
    # The kernel ends a process that is over its time with a signal.
    return f"does not come to an end within {_CPU_S} s" if done.returncode < 0 else ""


def _render(template: str) -> int:
    """The exit code that says how rendering as transformers does went."""
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, **_: json.dumps(value)
    environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda _: "1 January 2026"}
    try:
        size = 0
        for piece in environment.from_string(template).generate(
            messages=_CONVERSATION, add_generation_prompt=True, bos_token="", eos_token=""
        ):
            size += len(piece)
            if size > _LARGEST_PROMPT_BYTES:
                return _TOO_MUCH
    except MemoryError:
        return _TOO_MUCH
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError):
        return 0  # the server says that better
    return 0


def _refuse(message: str) -> str:
    raise ValueError(message)


if __name__ == "__main__":
    sys.exit(_render(json.loads(sys.stdin.read())))
