"""Runs an image as it would run in production: no root, nothing writable but /tmp, no capabilities."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from deploytk.base.errors import DeployError, EndpointError, ImageError
from deploytk.base.pause import pause
from deploytk.base.progress import Progress
from deploytk.bundle import MANIFEST, carried_manifest
from deploytk.hardware.nvml import read_gpus
from deploytk.image.config import LABELS
from deploytk.image.docker import RunOptions, connected
from deploytk.serve.asking import own_key
from deploytk.serve.endpoint import (
    Endpoint,
    ServeOptions,
    attach,
    chosen_port,
    is_ready,
    note_who_may_come,
    own_url,
)

_TAIL_LINES = 15
_SETTINGS = (
    *("DEPLOYTK_API_KEYS", "DEPLOYTK_ALLOWED_HOSTS", "DEPLOYTK_MAX_RUNNING", "DEPLOYTK_MAX_WAITING"),
    *("DEPLOYTK_MAX_BODY_BYTES", "DEPLOYTK_MAX_CONNECTIONS", "DEPLOYTK_REQUEST_S", "DEPLOYTK_BODY_S"),
    *("DEPLOYTK_WATCHDOG", "DEPLOYTK_DRAIN_S", "DEPLOYTK_READY_S"),
)


def is_image(reference: str) -> bool:
    """Whether the Docker daemon has an image of that name; False where there is no daemon."""
    try:
        with connected() as daemon:
            return daemon.image(reference) is not None
    except ImageError:
        return False


def is_same_image(reference: str, digests: Collection[str]) -> bool:
    """Whether what the daemon has under that name is one of these, by its ID or as it was pulled."""
    with connected() as daemon:
        found = daemon.config(reference)
        pulled = {str(one).rpartition("@")[2] for one in found.get("RepoDigests") or ()}
        return bool({str(found.get("Id")), *pulled} & {*digests})


@contextmanager
def running_image(reference: str, options: ServeOptions, progress: Progress) -> Iterator[Endpoint]:
    """A container of `reference`, once it is ready; removed at the end, however that comes.

    Its output goes to `progress`. Raises EndpointError with the end of it when the container ends or time runs out.
    """
    port = chosen_port(options)
    with connected() as daemon:
        config = daemon.config(reference)
        if ((config.get("Config") or {}).get("Labels") or {}).get(f"{LABELS}weights") == "mount":
            hint = "WEIGHTS=BUNDLE docker compose -f BUNDLE.compose.yaml up, or build it with its weights"
            raise EndpointError(f"{reference} has no weights: they are to be mounted", hint=hint)
        container_port = _port(config)
        gpus = chosen_gpus(os.environ)
        has_gpu = daemon.has_gpus() and gpus != ()
        # On the host's network the container listens where it was asked to, and nowhere else.
        shares = daemon.shares_network()
        listens = {"HOST": options.host, "PORT": str(port)} if shares else {"PORT": str(container_port)}
        environment = {**app_settings(os.environ), **dict(options.environment), **listens}
        started = time.monotonic()
        run = RunOptions(options.host, port, container_port, environment, has_gpu=has_gpu, gpus=gpus or ())
        container = daemon.run(reference, run)
        try:
            progress.note(f"container {container[:12]} of {reference}{', with the GPUs' if has_gpu else ''}")
            lines: list[str] = []
            threading.Thread(target=_follow, args=(container, lines, progress), daemon=True).start()
            here = daemon.published_port(container, container_port, port)
            url = own_url(options, here)
            note_who_may_come(options, here, own_key(url, environment), progress)
            deadline = time.monotonic() + options.ready_within_s
            while not is_ready(url):
                is_alive, exit_code, _ = daemon.state(container)
                if not is_alive:
                    pause(0.2)  # for the last lines
                    raise _failed(f"the container ended with code {exit_code} before it was ready", lines)
                if time.monotonic() > deadline:
                    raise _failed(f"the container was not ready within {options.ready_within_s:.0f} s", lines)
                pause(0.1)
            ready_s = time.monotonic() - started
            manifest = carried_manifest(daemon.file(container, f"/bundle/{MANIFEST}"))
            yield dataclasses.replace(
                attach(url, own_key(url, environment)),
                is_running=lambda: daemon.state(container)[0],
                golden=manifest.golden if manifest else (),
                quantized_by=manifest.model.quantized_by if manifest else None,
                ready_s=ready_s,
            )
        finally:
            daemon.remove(container)


def chosen_gpus(environment: Mapping[str, str]) -> tuple[str, ...] | None:
    """UUIDs of the GPUs that CUDA_VISIBLE_DEVICES names; None where it is not set, and a container gets all."""
    if "CUDA_VISIBLE_DEVICES" not in environment:
        return None
    return tuple(memory.uuid for memory in read_gpus(environment))


def app_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """What the app in the container is told of our environment: keys and limits, as an app outside one would be."""
    return {name: environment[name] for name in _SETTINGS if environment.get(name)}


def _port(config: Mapping[str, object]) -> int:
    """The port that the image exposes; 7860 where it names none."""
    settings = config.get("Config")
    exposed = settings.get("ExposedPorts") if isinstance(settings, dict) else None
    return next((int(str(port).partition("/")[0]) for port in exposed or ()), 7860)


def _follow(container: str, lines: list[str], progress: Progress) -> None:
    """Pass on what the container prints, on a connection of its own."""
    rest = b""
    try:
        with connected() as daemon:
            for chunk in daemon.logs(container, follow=True):
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    text = line.decode("utf-8", "replace").rstrip()
                    lines.append(text)
                    progress.note(f"  {text[:300]}")
    except DeployError:  # it was removed
        return


def _failed(what: str, lines: list[str]) -> EndpointError:
    end = "\n".join(f"  {line[:300]}" for line in lines[-_TAIL_LINES:]) or "  (no output)"
    return EndpointError(f"{what}\n{end}", hint="the lines above are the end of what it printed")
