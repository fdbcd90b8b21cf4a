"""The app of a bundle as a child of a replica: it ends with the replica, and the replica with it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import httpx

from deploytk.base.digests import hash_file
from deploytk.base.errors import BundleError, EndpointError
from deploytk.base.processes import free_port
from deploytk.bundle import START, Bundle, read_bundle

_ASK_EVERY_S = 0.2
_ANSWERS_WITHIN_S = 4.0
_FAILED = "failed"  # what /ready says of an engine that will never come


def checked_bundle(place: Path, digest: str) -> Bundle:
    """The bundle of this node; BundleError where it is another one, or its app is not what its manifest says."""
    bundle = read_bundle(place)
    if bundle.digest != digest:
        raise BundleError(f"{place} is another bundle than {digest[:19]}", hint="bring every node the same bundle")
    for file in bundle.files:
        if file.kind == "app" and hash_file(place / file.path) != file.sha256:
            raise BundleError(f"{place / file.path} is not what the manifest says", hint="bring the bundle again")
    return bundle


class AppProcess:
    """The app on a port of its own, on loopback; with an engine that ends, it ends too."""

    def __init__(self, place: Path, environment: Mapping[str, str]) -> None:
        self.port = free_port()
        self._is_ending = False
        self._process: subprocess.Popen[bytes] | None = None
        self._has_started = threading.Event()
        # The kernel ends a child with the thread that started it: this one lives as long as the child.
        self._thread = threading.Thread(target=self._run, args=(place, dict(environment)), daemon=True)
        self._thread.start()
        self._has_started.wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _run(self, place: Path, environment: dict[str, str]) -> None:
        own = {"HOST": "127.0.0.1", "PORT": str(self.port), "DEPLOYTK_ENDS_WITH_ENGINE": "1"}
        argv = [sys.executable, "-I", "-u", "-B", str(place / START)]
        try:
            self._process = subprocess.Popen(
                argv,
                env={**os.environ, **environment, **own},
                stdin=subprocess.DEVNULL,
                preexec_fn=_die_with_parent,
            )
        finally:
            self._has_started.set()
        self._process.wait()
        # A replica without its app answers fastest, with errors, and would be sent ever more requests.
        if not self._is_ending:
            os._exit(1)

    async def wait_until_ready(self, within_s: float) -> None:
        """Returns once the model has answered; raises EndpointError, with what the app says, when it will not."""
        deadline = asyncio.get_running_loop().time() + within_s
        said = ""
        async with httpx.AsyncClient(trust_env=False, timeout=_ANSWERS_WITHIN_S) as client:
            while asyncio.get_running_loop().time() < deadline:
                with contextlib.suppress(httpx.TransportError, ValueError):
                    answer = await client.get(f"{self.url}/ready")
                    if answer.status_code == 200:
                        return
                    said = str(answer.json())
                    if answer.json().get("state") == _FAILED:
                        break
                await asyncio.sleep(_ASK_EVERY_S)
        self.end()
        raise EndpointError(f"the model is not ready: {said[:300]}", hint="see the log of this replica")

    def end(self) -> None:
        """Let the app drain and end; it takes its engine along."""
        self._is_ending = True
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self, within_s: float) -> None:
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(within_s)


def _die_with_parent() -> None:
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
