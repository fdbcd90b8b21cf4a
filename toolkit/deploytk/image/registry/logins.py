"""Finds the login for a registry: the environment, then Docker's own settings; never shows it."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploytk.base.errors import ImageError

USER_VARIABLE, PASSWORD_VARIABLE = "DEPLOYTK_REGISTRY_USER", "DEPLOYTK_REGISTRY_PASSWORD"

_HELPER_WITHIN_S = 30.0
_TOKEN_USER = "<token>"  # noqa: S105 (how helpers mark a secret that is an identity token)
_DOCKER_HUB = "https://index.docker.io/v1/"


@dataclass(frozen=True, slots=True, repr=False)
class Login:
    user: str
    secret: str
    is_identity_token: bool = False


def find_login(host: str, *, is_destination: bool) -> Login | None:
    """The login for `host`, None when there is none.

    The environment counts only for the registry that is pushed to: it names no host, and no other one shall see it.
    Raises ImageError when Docker's settings name a helper that does not work.
    """
    user, password = os.environ.get(USER_VARIABLE), os.environ.get(PASSWORD_VARIABLE)
    if is_destination and user and password:
        return Login(user, password)
    settings = _docker_settings()
    key = _DOCKER_HUB if host == "docker.io" else host  # as `docker login` files it
    helper = _entry(settings.get("credHelpers"), key) or settings.get("credsStore")
    if isinstance(helper, str) and (login := _from_helper(helper, key)):
        return login
    entry = _entry(settings.get("auths"), key)
    return _from_entry(entry) if isinstance(entry, dict) else None


def _docker_settings() -> dict[str, Any]:
    try:
        directory = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
        settings = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):  # the last one: this user has no home
        return {}
    return settings if isinstance(settings, dict) else {}


def _entry(entries: object, key: str) -> object:
    """What is said about a registry; older clients wrote its name as an address."""
    if not isinstance(entries, dict):
        return None
    return next((entry for name, entry in entries.items() if _host(name) == _host(key)), None)


def _host(name: str) -> str:
    return re.sub("^https?://", "", name).partition("/")[0]


def _from_entry(entry: dict[str, Any]) -> Login | None:
    if token := entry.get("identitytoken"):
        return Login(_TOKEN_USER, str(token), is_identity_token=True)
    try:
        user, colon, password = base64.b64decode(entry.get("auth") or "", validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, TypeError):
        return None
    if colon and user:
        return Login(user, password.rstrip("\0"))
    if entry.get("username") and entry.get("password"):
        return Login(str(entry["username"]), str(entry["password"]))
    return None


def _from_helper(helper: str, key: str) -> Login | None:
    if not re.fullmatch(r"[A-Za-z0-9._-]+", helper):
        raise ImageError(f"Docker's settings name the credential helper {helper[:80]!r}", hint="correct config.json")
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, "get"], input=key.encode(), capture_output=True, timeout=_HELPER_WITHIN_S, check=False
        )
        found = json.loads(done.stdout) if done.returncode == 0 else {}
    except FileNotFoundError as error:
        hint = "install it, or take it out of Docker's config.json"
        raise ImageError(f"{program}, which Docker's settings name, is not installed", hint=hint) from error
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        # Not the error itself: it may hold the helper's output.
        raise ImageError(
            f"{program} does not work: {type(error).__name__}", hint=f"see what it says when it is run: {program} get"
        ) from None
    if not isinstance(found, dict) or not found.get("Secret"):
        return None  # it has no login for this host
    user = str(found.get("Username") or _TOKEN_USER)
    return Login(user, str(found["Secret"]), is_identity_token=user == _TOKEN_USER)
