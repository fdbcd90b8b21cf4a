"""Whether the chat template that a model brings comes to an end: tried in a child, before anything renders it.

A template is a program. Servers and quantizers render it inside their own process, where one that loops, or makes a
gigabyte of a letter, takes them with it. What a template does wrong otherwise is for them to say.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from deploytk.artifact import read_templates
from deploytk.base.errors import EndpointError
from deploytk.base.import_path import python_environment
from deploytk.bundle import render_template

_WITHIN_S = 20.0


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
    command = [sys.executable, render_template.__file__]
    try:
        done = subprocess.run(
            command, input=json.dumps(template).encode(), env=python_environment(), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, timeout=_WITHIN_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"does not come to an end within {_WITHIN_S:.0f} s"
    if done.returncode == render_template.TOO_MUCH:
        return "makes more than 1 MiB of text, or takes more than 1 GiB of memory, for one letter"
    # The kernel ends a process that is over its time with a signal.
    return f"does not come to an end within {render_template.CPU_S} s" if done.returncode < 0 else ""
