"""The app of a bundle or model, started on this machine as it is published."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from deploytk.artifact import read_artifact
from deploytk.artifact.tree import link_homes
from deploytk.base.errors import UsageError
from deploytk.base.import_path import python_environment
from deploytk.base.processes import running, wait_until
from deploytk.base.progress import Progress
from deploytk.bundle import (
    START,
    BundleOptions,
    is_bundle,
    read_bundle,
    render_bundle,
    require_ending_template,
    require_own_app,
    require_taken_contents,
    require_trusted_code,
)
from deploytk.plan import plan_serving, require_trust_here, require_trusted_plan
from deploytk.serve.asking import own_key
from deploytk.serve.endpoint import (
    Endpoint,
    EngineChoice,
    Served,
    ServeOptions,
    attach,
    chosen_port,
    is_ready,
    note_who_may_come,
    own_url,
)


@contextmanager
def running_locally(path: Path, options: ServeOptions, progress: Progress) -> Iterator[Endpoint]:
    """The app of the bundle `path`, or of a bundle made for the model directory `path` that goes with it."""
    engine = choose_engine(options.engine)
    progress.note(f"engine: {engine}{_why(engine, options.engine)}")
    with tempfile.TemporaryDirectory(prefix="deploytk-") as directory:
        work = Path(directory)
        require_ending_template(path)
        served = _served(path, engine, options, work, progress)
        if engine == "turbomind":
            _require_trust(served, options)
        places = os.pathsep.join(home.rstrip(os.sep) for home in link_homes(path))
        own = dataclasses.replace(options, environment=(*options.environment, ("DEPLOYTK_WEIGHTS", places)))
        with _running_app(served, engine, own, work, progress) as endpoint:
            yield endpoint


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


def _served(path: Path, engine: str, options: ServeOptions, work: Path, progress: Progress) -> Served:
    if is_bundle(path):
        bundle = read_bundle(path)
        if not options.trusts_bundle:
            require_own_app(bundle, options.template)
        if not options.allows_pickles:
            require_taken_contents(bundle)
        return Served(bundle, read_artifact(path, allows_pickles=options.allows_pickles))
    artifact = read_artifact(path, allows_pickles=options.allows_pickles)
    serving_engine: Literal["cpu"] | None = "cpu" if engine == "cpu" else None
    bundle_options = dataclasses.replace(
        BundleOptions.after(path), app=options.app, golden=options.golden, template=options.template, is_passing=True
    )
    request = dataclasses.replace(options.request, serving_engine=serving_engine, model_name=bundle_options.name)
    plan = plan_serving(artifact, request)
    require_trusted_plan(artifact, plan, is_trusted=request.trust_remote_code)
    for note in plan.notes if plan.fits is False else ():
        progress.note(f"the plan does not fit: {note}")
    return Served(render_bundle(artifact, plan, bundle_options, work / "bundle", progress), artifact)


def _require_trust(served: Served, options: ServeOptions) -> None:
    """Raises TrustError when LMDeploy, as planned or as it is here, would run code of the model that nobody trusts."""
    is_trusted = options.request.trust_remote_code
    require_trusted_code(served.bundle, is_trusted=is_trusted)
    require_trust_here(served.artifact.remote_code, str(served.artifact.root), is_trusted=is_trusted)


@contextmanager
def _running_app(
    served: Served, engine: str, options: ServeOptions, work: Path, progress: Progress
) -> Iterator[Endpoint]:
    port = chosen_port(options)
    app_log, engine_log = work / "app.log", work / "engine.log"
    environment = python_environment(
        **dict(options.environment),
        HOST=options.host,
        PORT=str(port),
        DEPLOYTK_ENGINE=engine,
        DEPLOYTK_ENGINE_LOG=str(engine_log),
        GRADIO_ANALYTICS_ENABLED="False",
    )
    argv = [sys.executable, str(served.bundle.path.absolute() / START)]
    url = own_url(options, port)
    key = own_key(url, environment)
    note_who_may_come(options, port, key, progress)
    with running(argv, cwd=work, environment=environment, log=app_log) as process:
        started = time.monotonic()
        progress.note(f"{url} shows how far the model is")
        wait_until(lambda: is_ready(url, key), process, app_log, options.ready_within_s, "the app")
        ready_s = time.monotonic() - started
        progress.note(f"ready after {ready_s:.1f} s")
        found = attach(url, key)
        yield dataclasses.replace(
            found,
            engine=engine,
            engine_log=engine_log,
            pid=process.pid,
            bundle=served.bundle.path,
            served=served,
            ready_s=ready_s,
        )
