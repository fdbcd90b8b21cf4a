"""Renders the chat template on its input as transformers does, within limits; says by its exit code how that went.

    python render_template.py < template

A process of its own, started by its path: it needs jinja2 and nothing of deploytk's, which would take half a second.
"""

from __future__ import annotations

import json
import resource
import sys

CPU_S = 2
MEMORY_BYTES = 2**30
LARGEST_PROMPT_BYTES = 2**20  # of one letter; a template adds some hundred bytes
TOO_MUCH = 3
CONVERSATION = [{"role": "user", "content": "1"}]


def render(template: str) -> int:
    """The exit code that says how rendering as transformers does went."""
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, **_: json.dumps(value)
    environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda _: "1 January 2026"}
    try:
        size = 0
        for piece in environment.from_string(template).generate(
            messages=CONVERSATION, add_generation_prompt=True, bos_token="", eos_token=""
        ):
            size += len(piece)
            if size > LARGEST_PROMPT_BYTES:
                return TOO_MUCH
    except MemoryError:
        return TOO_MUCH
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError):
        return 0  # the server says that better
    return 0


def _refuse(message: str) -> str:
    raise ValueError(message)


if __name__ == "__main__":
    sys.path.pop(0)  # the place of this file: modules beside it are none of Python's
    sys.exit(render(json.loads(sys.stdin.read())))
