"""Debian's docker-registry, started for a test on a port of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import plain_http
import pytest
from ports import free_port


@dataclass
class Registry:
    root: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        program = shutil.which("docker-registry")
        assert program
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen([program, "serve", str(self.root / "config.json")], stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                plain_http.get(f"http://{self.host}/v2/")
                return
            time.sleep(0.05)
        raise AssertionError((self.root / "log").read_text())

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process:
            self.process.send_signal(how)
            self.process.wait(20)
            self.process = None

    def requests(self, method: str) -> list[str]:
        """The log's lines about answered requests of a method."""
        return [line for line in (self.root / "log").read_text().splitlines() if f'"{method} /v2/' in line]

    def forget_requests(self) -> None:
        os.truncate(self.root / "log", 0)

    def upload_bytes(self) -> int:
        """What is there of uploads that have not ended."""
        found = 0
        for directory, _, names in os.walk(self.root / "data"):
            if "data" in names and "_uploads" in directory:
                with contextlib.suppress(FileNotFoundError):  # it has just ended
                    found += (Path(directory) / "data").stat().st_size
        return found


def need(program: str) -> None:
    """Skip the test when a service is not installed; in CI that is a failure."""
    if not shutil.which(program):
        assert not os.environ.get("DEPLOYTK_REQUIRE_SERVICES"), f"{program} is needed"
        pytest.skip(f"{program} is needed")


@contextlib.contextmanager
def running_registry(
    root: Path, *, password: str | None = None, tokens: dict[str, str] | None = None
) -> Iterator[Registry]:
    """A registry that asks nobody, asks `me` for a password, or sends everybody to a token server."""
    need("docker-registry")
    root.mkdir(parents=True)
    registry = Registry(root, free_port())
    config: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "info"},
        "storage": {"filesystem": {"rootdirectory": str(root / "data")}, "delete": {"enabled": True}},
        # A fixed secret, as operators set it: uploads outlive a restart.
        "http": {"addr": registry.host, "secret": "of this test"},
    }
    if password:
        need("htpasswd")
        lines = subprocess.run(["htpasswd", "-nbB", "me", password], capture_output=True, check=True).stdout
        (root / "htpasswd").write_bytes(lines)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(root / "htpasswd")}}
    if tokens:
        config["auth"] = {"token": tokens}
    (root / "config.json").write_text(json.dumps(config))
    registry.start()
    try:
        yield registry
    finally:
        registry.stop(signal.SIGKILL)
