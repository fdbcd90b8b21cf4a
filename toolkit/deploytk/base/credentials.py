"""Where credentials for the hubs are found: never their values."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Credential:
    """Whether a target's credentials are here."""

    target: str
    source: str | None  # "the variable HF_TOKEN", "the file ~/.cache/huggingface/token"; None when there are none
    hint: str  # how to get some


def find_credential(target: str, variables: Sequence[str], hint: str, file: str | None = None) -> Credential:
    """Where a target's credentials would be taken from: all these variables, else this file; nothing is sent."""
    source = None
    if all(os.environ.get(name) for name in variables):
        source = f"the environment, {' and '.join(variables)}"
    elif file and Path(file).expanduser().is_file():
        source = f"the file {file}"
    return Credential(target, source, hint)


def can_ask() -> bool:
    """Whether a person is there to answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask_token(whose: str) -> str:
    """A token that a person at a terminal types, unseen; "" where nobody is."""
    if not can_ask():
        return ""
    return getpass.getpass(f"Access token of {whose} (not shown): ", stream=sys.stderr).strip()
