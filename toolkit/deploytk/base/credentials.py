"""Where credentials for the hubs are found: never their values."""

from __future__ import annotations

import getpass
import os
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Credential:
    """Whether a target's credentials are here."""

    target: str
    source: str | None  # "the variable HF_TOKEN", "the file ~/.cache/huggingface/token"; None when there are none
    hint: str  # how to get some


_VARIABLES = {
    "huggingface": ("HF_TOKEN",),
    "openxlab": ("OPENXLAB_USERNAME", "OPENXLAB_GIT_TOKEN"),
    "modelscope": ("MODELSCOPE_API_TOKEN",),
}

_FILES = {
    "huggingface": "~/.cache/huggingface/token",
    "modelscope": "~/.modelscope/credentials/cookies",
}

_HINTS = {
    "huggingface": "set HF_TOKEN, or run: hf auth login",
    "openxlab": "set OPENXLAB_USERNAME and OPENXLAB_GIT_TOKEN (account, key management, a Git token that may write)",
    "modelscope": "set MODELSCOPE_API_TOKEN (ModelScope, account, access token)",
}


def find_credentials() -> tuple[Credential, ...]:
    """For every hub, where credentials would be taken from; nothing is sent anywhere."""
    return tuple(Credential(target, _source(target), _HINTS[target]) for target in _VARIABLES)


def _source(target: str) -> str | None:
    variables = _VARIABLES[target]
    if all(os.environ.get(name) for name in variables):
        return f"the environment, {' and '.join(variables)}"
    place = _FILES.get(target)
    return f"the file {place}" if place and Path(place).expanduser().is_file() else None


def openxlab_account() -> tuple[str, str]:
    """User name and Git access token of OpenXLab, each "" when it is not set."""
    return os.environ.get("OPENXLAB_USERNAME", ""), os.environ.get("OPENXLAB_GIT_TOKEN", "")


def ask_token(whose: str) -> str:
    """A token that a person at a terminal types, unseen; "" where nobody is."""
    if not sys.stdin.isatty() or not sys.stderr.isatty():
        return ""
    return getpass.getpass(f"Access token of {whose} (not shown): ", stream=sys.stderr).strip()
