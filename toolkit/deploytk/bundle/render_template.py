"""Renders a chat template as transformers does, within limits, for each conversation that is asked for.

    python render_template.py < {"template": TEXT, "tokens": {NAME: TEXT}, "conversations": [[MESSAGE, ...], ...]}

Prints what comes out as a JSON list; null stands where the template refuses. Ends with TOO_MUCH where it makes too
much, and by a signal where it does not end. A process of its own, started by its path: it needs jinja2 and nothing of
deploytk's, which would take half a second.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

CPU_S = 2
MEMORY_BYTES = 2**30
LARGEST_PROMPT_BYTES = 2**20  # of a few words; a template adds some hundred bytes
TOO_MUCH = 3


def render(template: str, tokens: dict[str, str], conversations: list[list[dict[str, str]]]) -> list[str | None]:
    """What the template makes of each. Raises MemoryError when that is more than a prompt may be."""
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, **_: json.dumps(value)
    environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda _: "1 January 2026", **tokens}
    return [_rendered(environment, template, messages) for messages in conversations]


def _rendered(environment: Any, template: str, messages: list[dict[str, str]]) -> str | None:
    from jinja2 import TemplateError

    pieces, size = [], 0
    try:
        for piece in environment.from_string(template).generate(messages=messages, add_generation_prompt=True):
            pieces.append(piece)
            size += len(piece)
            if size > LARGEST_PROMPT_BYTES:
                raise MemoryError
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError):
        return None  # a server says that better
    return "".join(pieces)


def _refuse(message: str) -> str:
    raise ValueError(message)


if __name__ == "__main__":
    sys.path.pop(0)  # the place of this file: modules beside it are none of Python's
    try:
        sys.stdout.write(json.dumps(render(**json.loads(sys.stdin.read()))))
    except MemoryError:
        sys.exit(TOO_MUCH)
