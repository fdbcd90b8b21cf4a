"""Stage 7: bundle, model or URL -> Endpoint."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import shutil
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import httpx

from deploytk.artifact import read_artifact
from deploytk.base.errors import EndpointError, UsageError
from deploytk.base.import_path import python_environment
from deploytk.base.processes import free_port, is_free, running, wait_until
from deploytk.base.progress import Progress
from deploytk.bundle import START, Bundle, BundleOptions, Golden, golden_in, is_bundle, read_bundle, render_bundle
from deploytk.plan import PlanRequest, plan_serving

SourceKind = Literal["url", "image", "bundle", "model"]
EngineChoice = Literal["auto", "turbomind", "cpu"]
_ASK_WITHIN_S = 5.0
_IMAGE_NAME = re.compile(r"[a-z0-9][a-z0-9._/:-]*(@sha256:[0-9a-f]{64})?|sha256:[0-9a-f]{64}")


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


@dataclass(frozen=True, slots=True)
class ServeOptions:
    engine: EngineChoice = "auto"
    host: str = "127.0.0.1"
    port: int = 0  # 0: a free one
    app: Literal["gradio", "api"] = "api"
    request: PlanRequest = dataclasses.field(default_factory=PlanRequest)
    golden: tuple[Golden, ...] = ()
    template: Path | None = None  # user templates that replace shipped ones by name
    environment: tuple[tuple[str, str], ...] = ()  # for the app and its engine, beside ours
    ready_within_s: float = 1800.0
    attach_within_s: float = 0.0  # how long a server at a URL may take until it completes something


@contextmanager
def open_endpoint(source: str, options: ServeOptions, progress: Progress) -> Iterator[Endpoint]:
    """A server for `source`: attached to when it is a URL, else started for the bundle or model directory.

    What is started is the very app that is published, on this machine. Raises EndpointError, with the end of the
    log, when it is not ready in time; at the end of the context nothing of it is left running.
    """
    kind = source_kind(source)
    if kind == "url":
        yield _attach_when_ready(source.rstrip("/"), options.attach_within_s)
        return
    if kind == "image":
        with _running_container(source, options, progress) as endpoint:
            yield endpoint
        return
    with ExitStack() as stack:
        engine = choose_engine(options.engine)
        if options.app == "gradio" and importlib.util.find_spec("gradio") is None:
            raise UsageError("the chat page needs gradio", hint="pip install 'deploytk[ui]', or serve with --app api")
        progress.note(f"engine: {engine}{_why(engine, options.engine)}")
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deploytk-")))
        bundle = _bundle(_path(source), engine, options, work, progress)
        yield stack.enter_context(_running_app(bundle, engine, options, work, progress))


def source_kind(source: str) -> SourceKind:
    """What `source` is; a model directory when it is nothing else."""
    if source.startswith(("http://", "https://")):
        return "url"
    path = _path(source)
    if not os.path.exists(path) and _is_image(source):  # noqa: PTH110 (Path.exists raises for a name that is too long)
        return "image"
    return "bundle" if is_bundle(path) else "model"


def _path(source: str) -> Path:
    return Path(source.removeprefix("file://"))


def _is_image(source: str) -> bool:
    """Whether the Docker daemon has an image of that name, asked only for what can be one."""
    if not _IMAGE_NAME.fullmatch(source):
        return False
    from deploytk.serve.container import is_image

    return is_image(source)


@contextmanager
def _running_container(image: str, options: ServeOptions, progress: Progress) -> Iterator[Endpoint]:
    from deploytk.serve.container import Place, running_image

    port = _port(options)
    place = Place(options.host, port, options.ready_within_s, dict(options.environment))
    with running_image(image, place, _is_ready, progress) as running_one:
        golden = golden_in(running_one.manifest)
        yield dataclasses.replace(attach(running_one.url), is_running=running_one.is_running, golden=golden)


def wait_while_running(endpoint: Endpoint, watched: Sequence[Path] = ()) -> None:
    """Return when a file below `watched` changes; raises EndpointError when the process of `endpoint` ends.

    Ctrl-C ends it with KeyboardInterrupt.
    """
    before = _marks(watched)
    while _runs(endpoint):
        time.sleep(0.5)
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


def attach(url: str) -> Endpoint:
    """The server that runs at `url`; raises EndpointError when no OpenAI-style API answers there."""
    state = _get(f"{url}/ready")
    models = _get(f"{url}/v1/models")
    try:
        model = str(models["data"][0]["id"])  # type: ignore[index]
        owner = str(models["data"][0].get("owned_by", ""))  # type: ignore[index]
    except (KeyError, IndexError, TypeError) as error:
        raise EndpointError(
            f"{url}/v1/models answers no list of models", hint="name the address of an OpenAI-style server, without /v1"
        ) from error
    engine = state.get("engine") if isinstance(state, dict) else None
    return Endpoint(url, model, engine or ("cpu" if owner == "deploytk-cpu" else None), None, None, None)


def _attach_when_ready(url: str, limit_s: float) -> Endpoint:
    """`attach`, again and again until a real completion comes or time runs out; at once with a limit of 0."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            endpoint = attach(url)
        except EndpointError:
            if time.monotonic() > deadline:
                raise
        else:
            if time.monotonic() > deadline or completes(endpoint):
                return endpoint
        time.sleep(min(1.0, max(0.0, deadline - time.monotonic()) + 0.05))


def completes(endpoint: Endpoint) -> bool:
    """Whether the server gives one token; a list of models alone may come long before."""
    body = {"model": endpoint.model, "messages": [{"role": "user", "content": "1"}], "max_tokens": 1}
    try:
        answer = httpx.post(f"{endpoint.url}/v1/chat/completions", json=body, timeout=60, trust_env=False)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200


def choose_engine(choice: EngineChoice) -> Literal["turbomind", "cpu"]:
    """TurboMind where a GPU and LMDeploy are, else the CPU engine; raises UsageError when the choice cannot run."""
    has_gpu = Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None
    has_lmdeploy = shutil.which("lmdeploy") is not None
    if choice == "turbomind" or (choice == "auto" and has_gpu and has_lmdeploy):
        if not has_lmdeploy:
            raise UsageError(
                "lmdeploy is not installed here", hint="pip install lmdeploy, or preview with --engine cpu"
            )
        return "turbomind"
    missing = [name for name in ("torch", "transformers", "fastapi") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"the CPU engine needs {', '.join(missing)}", hint="pip install 'deploytk[cpu,ui]'")
    return "cpu"


def _why(engine: str, choice: EngineChoice) -> str:
    if choice != "auto":
        return ""
    if engine == "turbomind":
        return ", because a GPU and LMDeploy are here"
    return ", because " + ("no GPU is here" if shutil.which("lmdeploy") else "LMDeploy is not installed here")


def _bundle(path: Path, engine: str, options: ServeOptions, work: Path, progress: Progress) -> Bundle:
    if is_bundle(path):
        return read_bundle(path)
    artifact = read_artifact(path)
    serving_engine: Literal["cpu"] | None = "cpu" if engine == "cpu" else None
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in path.resolve().name).lstrip(".-_") or "model"
    request = dataclasses.replace(options.request, serving_engine=serving_engine, model_name=name)
    bundle_options = BundleOptions(name=name[:96], app=options.app, golden=options.golden, template=options.template)
    place = _near(path, work) / "bundle"
    return render_bundle(artifact, plan_serving(artifact, request), bundle_options, place, progress)


def _near(path: Path, work: Path) -> Path:
    """Where hard links to the model work, if that can be written; else the temporary directory."""
    if path.stat().st_dev == work.stat().st_dev or not os.access(path.resolve().parent, os.W_OK):
        return work
    place = Path(tempfile.mkdtemp(prefix=".deploytk-", dir=path.resolve().parent))
    (work / "near").symlink_to(place)
    return place


@contextmanager
def _running_app(
    bundle: Bundle, engine: str, options: ServeOptions, work: Path, progress: Progress
) -> Iterator[Endpoint]:
    port = _port(options)
    app_log, engine_log = work / "app.log", work / "engine.log"
    environment = python_environment(
        **dict(options.environment),
        HOST=options.host,
        PORT=str(port),
        DEPLOYTK_ENGINE=engine,
        DEPLOYTK_ENGINE_LOG=str(engine_log),
        GRADIO_ANALYTICS_ENABLED="False",
    )
    argv = [sys.executable, str(bundle.path.absolute() / START)]
    reachable = "127.0.0.1" if options.host in ("0.0.0.0", "") else options.host  # noqa: S104
    url = f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
    try:
        with running(argv, cwd=work, environment=environment, log=app_log) as process:
            started = time.monotonic()
            progress.note(f"{url} shows how far the model is")
            wait_until(lambda: _is_ready(url), process, app_log, options.ready_within_s, "the app")
            progress.note(f"ready after {time.monotonic() - started:.1f} s")
            yield dataclasses.replace(
                attach(url), engine=engine, engine_log=engine_log, pid=process.pid, bundle=bundle.path
            )
    finally:
        near = work / "near"
        if near.is_symlink():
            shutil.rmtree(near.resolve(), ignore_errors=True)


def _port(options: ServeOptions) -> int:
    """The port that was asked for, or a free one; raises EndpointError when it is taken."""
    port = options.port or free_port(options.host)
    if not is_free(options.host, port):
        raise EndpointError(f"port {port} of {options.host} is taken", hint="choose another with --port, or 0 for any")
    return port


def _is_ready(url: str) -> bool:
    """Whether the app says that a real token came out; raises EndpointError when it says that it failed."""
    state = _get(f"{url}/ready")
    if isinstance(state, dict) and state.get("state") == "failed":
        raise EndpointError(
            f"the engine failed: {state.get('detail')}", hint="the lines above are the end of its output"
        )
    return isinstance(state, dict) and state.get("state") == "ready"


def _get(url: str) -> object:
    """The JSON that a server answers, None when it answers none."""
    try:
        return httpx.get(url, timeout=_ASK_WITHIN_S, trust_env=False, verify=_trusted()).json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None


@cache
def _trusted() -> ssl.SSLContext:
    """Made once: it takes longer than an answer, and we ask often."""
    return ssl.create_default_context()
