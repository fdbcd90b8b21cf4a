"""Finds the daemon that DOCKER_HOST names, or the local one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker
from docker.errors import DockerException

from deploytk.base.errors import ImageError
from deploytk.image.docker.daemon import Daemon
from deploytk.image.docker.refusals import reason

_ANSWER_WITHIN_S = 5
_API_VERSION = "1.41"  # of Docker 20.10, the oldest that is supported


@contextmanager
def connected(otherwise: str = "") -> Iterator[Daemon]:
    """The daemon that DOCKER_HOST names, or the local one; raises ImageError when none answers or it refuses us.

    `otherwise` is what can be done without one.
    """
    try:
        _ping()
        # Without a limit of time: loading and building gigabytes takes as long as it takes.
        client = docker.APIClient(**_where(), version=_API_VERSION, timeout=None)  # type: ignore[arg-type]
    except (DockerException, OSError) as error:
        raise _unreachable(error, otherwise) from error
    try:
        yield Daemon(client)
    finally:
        client.close()


def daemon_version() -> str:
    """Version and API version of the Docker daemon; raises ImageError when none answers."""
    try:
        _ping()
        client = docker.from_env(version=_API_VERSION, timeout=_ANSWER_WITHIN_S)
        try:
            version = client.version()
        finally:
            client.close()
    except (DockerException, OSError) as error:
        raise _unreachable(error) from error
    return f"Docker {version.get('Version')}, API {version.get('ApiVersion')}"


def _where() -> dict[str, Any]:
    from docker.utils import kwargs_from_env

    return dict(kwargs_from_env())


def _ping() -> None:
    """Raises OSError when nobody is at the daemon's socket; the SDK would leave a socket of its own open."""
    host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as knocking:
            knocking.settimeout(_ANSWER_WITHIN_S)
            knocking.connect(host.removeprefix("unix://"))


def _unreachable(error: Exception, otherwise: str = "") -> ImageError:
    if isinstance(error, PermissionError):
        hint = "add the user to the group docker, or use a rootless daemon and name its socket in DOCKER_HOST"
        return ImageError("the Docker daemon's socket may not be used by this user", hint=hint)
    hint = "start dockerd, or name its socket in DOCKER_HOST; the user needs the right to use it"
    hint = "; ".join(filter(None, (hint, otherwise)))
    return ImageError(f"no Docker daemon answers: {reason(error)}", hint=hint)
