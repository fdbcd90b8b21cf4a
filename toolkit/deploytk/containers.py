"""Owner of the Docker SDK."""

from __future__ import annotations

import os
import socket

import docker
from docker.errors import DockerException

from deploytk.errors import ImageError

_ANSWER_WITHIN_S = 5
_API_VERSION = "1.41"  # of Docker 20.10, the oldest that is supported


def daemon_version() -> str:
    """Version and API version of the Docker daemon; raises ImageError when none answers."""
    try:
        _knock()
        client = docker.from_env(version=_API_VERSION, timeout=_ANSWER_WITHIN_S)
        try:
            version = client.version()
        finally:
            client.close()
    except (DockerException, OSError) as error:
        hint = "start dockerd, or name its socket in DOCKER_HOST; the user needs the right to use it"
        raise ImageError(f"no Docker daemon answers: {_reason(error)}", hint=hint) from error
    return f"Docker {version.get('Version')}, API {version.get('ApiVersion')}"


def _knock() -> None:
    """Raises OSError when nobody is at the daemon's socket; the SDK would leave a socket of its own open."""
    host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as knocking:
            knocking.settimeout(_ANSWER_WITHIN_S)
            knocking.connect(host.removeprefix("unix://"))


def _reason(error: Exception) -> str:
    """The innermost cause, which the SDK wraps several times."""
    cause: BaseException = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__ or cause
    return str(cause).strip("()'\"")[:200]
