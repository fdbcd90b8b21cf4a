"""A running server: what is known of it, whether it answers, and how long it goes on."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploytk.artifact import Artifact, QuantizedBy
from deploytk.base.errors import EndpointError
from deploytk.base.net import Key
from deploytk.base.origin import is_loopback
from deploytk.base.pause import pause
from deploytk.base.processes import free_port, is_free
from deploytk.base.progress import Progress
from deploytk.bundle import Bundle, Golden
from deploytk.plan import PlanRequest
from deploytk.serve import asking

EngineChoice = Literal["auto", "turbomind", "cpu"]
_LEAST_S = 5.0  # for one token


@dataclass(frozen=True, slots=True)
class Served:
    """What a server that we started serves."""

    bundle: Bundle
    artifact: Artifact


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running OpenAI-style server."""

    url: str  # without /v1 and without a slash at the end
    model: str  # the name to send in requests, from /v1/models
    engine: str | None  # which serving engine really runs: "turbomind", "pytorch", "cpu"; None when it does not say
    engine_log: Path | None  # the engine's own output, when we started it
    pid: int | None  # of the process that we started; its children belong to it
    bundle: Path | None  # what is served, when we started it
    is_running: Callable[[], bool] | None = None  # of a container that we started, which has no process of ours
    golden: tuple[Golden, ...] = ()  # that an image carries
    quantized_by: QuantizedBy | None = None  # what an image carries, as its model's record says
    served: Served | None = None  # when we started it from a directory
    ready_s: float | None = None  # from the start of the process that we started to its first token
    key: Key | None = dataclasses.field(default=None, repr=False)  # that it wants


@dataclass(frozen=True, slots=True)
class ServeOptions:
    engine: EngineChoice = "auto"
    host: str = "127.0.0.1"
    port: int = 0  # 0: a free one
    app: Literal["gradio", "api"] = "api"
    request: PlanRequest = dataclasses.field(default_factory=PlanRequest)
    golden: tuple[Golden, ...] = ()
    template: Path | None = None  # user templates that replace shipped ones by name
    trusts_bundle: bool = False  # whatever app a bundle brings is run
    allows_pickles: bool = False  # files that are refused by their content are served
    environment: tuple[tuple[str, str], ...] = ()  # for the app and its engine, beside ours
    ready_within_s: float = 1800.0
    api_key: str | None = dataclasses.field(default=None, repr=False)  # that a server at a URL wants
    attach_within_s: float = 0.0  # how long a server at a URL may take until it completes something


def attach(url: str, key: Key | None = None) -> Endpoint:
    """The server that runs at `url`; raises EndpointError when no OpenAI-style API answers there, or wants a key."""
    model, owner = asking.model_of(url, key)
    state = asking.state_of(url, key)
    engine = state.engine if state else None
    return Endpoint(url, model, engine or ("cpu" if owner == "deploytk-cpu" else None), None, None, None, key=key)


def attach_when_ready(url: str, key: Key | None, limit_s: float) -> Endpoint:
    """`attach`, again and again until a real completion comes or time runs out; at once with a limit of 0."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            endpoint = attach(url, key)
        except EndpointError:
            if time.monotonic() > deadline or asking.wants_key(url, key):
                raise
        else:
            left_s = deadline - time.monotonic()
            if left_s < 0 or asking.completes(url, endpoint.model, key, max(_LEAST_S, left_s)):
                return endpoint
        pause(min(1.0, max(0.0, deadline - time.monotonic()) + 0.05))


def completes(endpoint: Endpoint) -> bool:
    """Whether the server gives one token; a list of models alone may come long before."""
    return asking.completes(endpoint.url, endpoint.model, endpoint.key)


def is_ready(url: str, key: Key | None = None) -> bool:
    """Whether the app says that a real token came out; raises EndpointError when it says that it failed."""
    state = asking.state_of(url, key)
    if state and state.name == "failed":
        raise EndpointError(f"the engine failed: {state.detail}", hint="the lines above are the end of its output")
    return state is not None and state.name == "ready"


def wait_while_running(endpoint: Endpoint, watched: Sequence[Path] = ()) -> None:
    """Return when a file below `watched` changes; raises EndpointError when the process of `endpoint` ends.

    Ctrl-C ends it with KeyboardInterrupt.
    """
    before = _marks(watched)
    while _runs(endpoint):
        pause(0.5)
        if watched and _marks(watched) != before:
            return
    raise EndpointError("the app has ended by itself", hint="start it again; see what it printed before")


def _runs(endpoint: Endpoint) -> bool:
    if endpoint.is_running is not None:
        return endpoint.is_running()
    return endpoint.pid is None or os.waitpid(endpoint.pid, os.WNOHANG)[0] == 0


def _marks(roots: Sequence[Path]) -> dict[Path, tuple[int, int]]:
    """Path -> size and time of every file below `roots`."""
    found = {}
    for path in (path for root in roots for path in root.rglob("*")):
        with suppress(OSError):
            status = path.stat()
            found[path] = (status.st_size, status.st_mtime_ns)
    return found


def chosen_port(options: ServeOptions) -> int:
    """The port that was asked for, or a free one; raises EndpointError when it is taken."""
    port = options.port or free_port(options.host)
    if not is_free(options.host, port):
        raise EndpointError(f"port {port} of {options.host} is taken", hint="choose another with --port, or 0 for any")
    return port


def own_url(options: ServeOptions, port: int) -> str:
    """Where what we start answers on this machine itself."""
    host = "127.0.0.1" if options.host in ("0.0.0.0", "") else options.host  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def note_who_may_come(options: ServeOptions, port: int, key: Key | None, progress: Progress) -> None:
    """Say so when what we start listens to others and wants no key of them."""
    if key is None and not is_loopback(options.host):
        progress.note(
            f"whoever reaches port {port} of this machine may use the app: "
            f"{asking.OWN_KEYS} gives it keys, --host 127.0.0.1 keeps it here"
        )
