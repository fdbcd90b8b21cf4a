"""Starts the app of a bundle against the engine stub, as a process of its own, and talks to it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import plain_http
from bundles import make_bundle
from ports import free_port

from deploytk.bundle import BundleOptions, Golden
from deploytk.bundle.value import AppKind

MODELS = Path(__file__).parent / "models"
STUB = Path(__file__).parent / "engine_stub.py"


@dataclass(frozen=True)
class App:
    url: str
    process: subprocess.Popen[bytes]
    bundle: Path
    log: Path

    def get(self, path: str, **more: Any) -> httpx.Response:
        return plain_http.get(self.url + path, timeout=20, **more)

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return plain_http.post(self.url + path, json=body, timeout=60, **more)

    def chat(self, **more: Any) -> httpx.Response:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], **more}
        return self.post("/v1/chat/completions", body)

    @property
    def state(self) -> dict[str, Any]:
        with contextlib.suppress(httpx.TransportError):
            return dict(self.get("/ready").json())
        return {"state": "away", "detail": ""}

    def wait(self, *states: str, within_s: float = 60) -> dict[str, Any]:
        """The state of the app once it is one of `states`."""
        found: dict[str, Any] = {}
        wait_for(
            lambda: found.update(self.state) or found["state"] in states, within_s, lambda: f"{found} {self.output}"
        )
        return found

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def engine(self) -> tuple[int, int]:
        """Process id and port of the stub that was started last."""
        pid, port = re.findall(r"stub pid (\d+) port (\d+)", self.output)[-1]
        return int(pid), int(port)

    def stub(self) -> dict[str, int]:
        return dict(plain_http.get(f"http://127.0.0.1:{self.engine[1]}/stub").json())


def wait_for(is_true: Callable[[], Any], within_s: float, what: Callable[[], str] = lambda: "") -> None:
    deadline = time.monotonic() + within_s
    while not is_true():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what()}"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def make_app(out: Path, kind: AppKind = "api", model: str = "hf-awq") -> Path:
    """A bundle, and beside it an `lmdeploy` that is the stub."""
    dialogs = json.loads((MODELS / "dialogs.json").read_text(encoding="utf-8"))
    golden = tuple(Golden(dialog["prompt"], dialog["answer"]) for dialog in dialogs)
    options = BundleOptions(name="tiny", app=kind, golden=golden)
    bundle = make_bundle(MODELS / model, out / "bundle", options)
    program = out / "bin" / "lmdeploy"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{STUB}" "$@"\n')
    program.chmod(0o755)
    return bundle.path


@contextlib.contextmanager
def running_app(
    bundle: Path, log: Path, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[App]:
    """The app as hubs start it: by its name, in its directory; with `cwd` from somewhere else."""
    port = free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DEPLOYTK_", "STUB_"))}
    ours = {"PATH": f"{bundle.parent / 'bin'}:{os.environ['PATH']}", "HOST": "127.0.0.1", "PORT": str(port)}
    quiet = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "app.py" if cwd in (None, bundle) else str(bundle / "app.py")],
            cwd=cwd or bundle, env={**kept, **ours, **quiet, **(environment or {})}, stdout=output, stderr=output,
        )  # fmt: skip
    app = App(f"http://127.0.0.1:{port}", process, bundle, log)
    try:
        wait_for(lambda: app.state["state"] != "away" or process.poll() is not None, 30, lambda: app.output)
        yield app
    finally:
        process.kill()
        process.wait()
