"""Starts the serving engine of a bundle on loopback, watches it, and takes it along when the app ends."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL_AT = 3  # where the model's path is in the command line
READY_WITHIN_S = 1800.0
ASK_EVERY_S = 0.1
STOP_WITHIN_S = 20.0
LONGEST_PAUSE_S = 60.0
TAIL_LINES = 15

# LMDeploy only warns when it cannot load TurboMind, and serves with its slower engine.
FALLBACK = "Fallback to pytorch engine"


@dataclass(frozen=True)
class EngineSettings:
    name: str  # turbomind, pytorch or cpu
    argv: tuple[str, ...]
    bundle: Path
    files: dict[str, int]  # path -> bytes of the model's files
    log: Path

    @classmethod
    def of(cls, bundle: Path, manifest: dict[str, Any]) -> EngineSettings:
        plan = manifest["plan"]
        name = os.environ.get("DEPLOYTK_ENGINE") or plan["engine"]
        argv = list(plan["argv"])
        if name == "cpu":
            argv = [sys.executable, "-m", "deploytk.cpu_engine", ".", "--model-name", plan["model_name"]]
            argv += ["--session-len", str(plan["session_len"])]
        elif plan["engine"] == "cpu":
            raise SystemExit(
                f"this bundle is planned for the CPU, not for {name}: package it again without --engine cpu"
            )
        files = {path: file["size"] for path, file in manifest["files"].items() if file["kind"] in ("weights", "model")}
        named = os.environ.get("DEPLOYTK_ENGINE_LOG")
        log = Path(named) if named else Path(tempfile.mkdtemp(prefix="deploytk-")) / "engine.log"
        return cls(name, tuple(argv), bundle, files, log)


class Engine:
    """One engine process at a time; `state` is starting, loading, ready, failed or stopped, `detail` says more."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.state = "starting"
        self.detail = ""
        self.port = 0
        self.model = ""
        self.restarts = 0
        self.ready_after_s: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_running())

    async def stop(self) -> None:
        """End the engine and everything that it started."""
        self.state = "stopped"
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._end_process()

    async def _keep_running(self) -> None:
        pause_s = 1.0
        while True:
            problem = self._find_problem()
            if problem:
                self.state, self.detail = "failed", problem
                return
            started = time.monotonic()
            try:
                await self._run_once()
            except OSError as error:
                self.state, self.detail = "failed", f"{self.settings.argv[0]} cannot be started: {error.strerror}"
                return
            if self.state == "failed":
                await self._end_process()
                return
            if self.ready_after_s is None and self.restarts >= 2:
                self.state = "failed"
                return
            self.restarts += 1
            self.state = "starting"
            pause_s = 1.0 if time.monotonic() - started > LONGEST_PAUSE_S else min(2 * pause_s, LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s)

    def _find_problem(self) -> str:
        """Why the engine cannot run at all, '' when nothing speaks against it."""
        for path, size in self.settings.files.items():
            file = self.settings.bundle / path
            if not file.is_file():
                return f"{path} is missing"
            if file.stat().st_size != size:
                with file.open("rb") as opened:
                    is_pointer = opened.read(23) == b"version https://git-lfs"
                return (
                    f"{path} is a git-lfs pointer" if is_pointer else f"{path} has another size than deploytk.json says"
                )
        program = self.settings.argv[0]
        return "" if shutil.which(program) else f"{program} is not installed here"

    async def _run_once(self) -> None:
        """Start the engine, wait until it answers, then until it ends."""
        self.port = _free_port()
        argv = self.settings.argv
        flags = ("--server_name", "--server_port") if "--server_port" in argv else ("--server-name", "--server-port")
        where = (flags[0], "127.0.0.1", flags[1], str(self.port))
        self.settings.log.parent.mkdir(parents=True, exist_ok=True)
        with self.settings.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *argv, *where, cwd=self.settings.bundle, stdout=log, stderr=log, preexec_fn=_die_with_parent,
                start_new_session=True,
            )  # fmt: skip
        self.state, self.detail = "loading", ""
        watching = asyncio.create_task(self._wait_until_ready())
        code = await self._process.wait()
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        if self.state != "failed":
            self.detail = f"the engine ended with code {code}: {self.log_tail()}"
        await self._end_process()

    async def _wait_until_ready(self) -> None:
        """Ready is when a real token came out: a port or /health may answer long before."""
        started = time.monotonic()
        while time.monotonic() - started < READY_WITHIN_S:
            if self.settings.name == "turbomind" and FALLBACK in self._log_text():
                self.state, self.detail = "failed", "LMDeploy fell back to its PyTorch engine, TurboMind was planned"
                self._signal(signal.SIGTERM)
                return
            with contextlib.suppress(OSError, ValueError, KeyError, IndexError, asyncio.IncompleteReadError):
                models = await self._ask("GET", "/v1/models")
                self.model = models["data"][0]["id"]
                body = {"model": self.model, "prompt": "1", "max_tokens": 1, "temperature": 0}
                answer = await self._ask("POST", "/v1/completions", body)
                if answer["usage"]["completion_tokens"] >= 1:
                    self.ready_after_s = time.monotonic() - started
                    self.state, self.detail = "ready", ""
                    return
            await asyncio.sleep(ASK_EVERY_S)
        self.state = "failed"
        self.detail = f"the engine gave no token within {READY_WITHIN_S:.0f} s: {self.log_tail()}"
        self._signal(signal.SIGTERM)

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        content = json.dumps(body).encode() if body else b""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request_head(method, path, len(content)) + content)
            answer = await asyncio.wait_for(reader.read(), 120)
        except asyncio.TimeoutError as error:
            raise OSError("no answer") from error
        finally:
            writer.close()
        parsed: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
        return parsed

    def _log_text(self) -> str:
        with contextlib.suppress(OSError):
            return self.settings.log.read_text(encoding="utf-8", errors="replace")[-100_000:]
        return ""

    def log_tail(self) -> str:
        """The last lines that the engine printed."""
        return "\n".join(self._log_text().strip().splitlines()[-TAIL_LINES:])

    async def _end_process(self) -> None:
        process = self._process
        if process is None:
            return
        self._signal(signal.SIGTERM)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_WITHIN_S)
        self._signal(signal.SIGKILL)
        self._process = None

    def _signal(self, number: int) -> None:
        """To the engine and all its children: they share a process group."""
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


def request_head(method: str, path: str, body_bytes: int) -> bytes:
    """HTTP/1.0 makes the engine send its answer as it is, without chunks to take apart."""
    return (
        f"{method} {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {body_bytes}\r\n\r\n".encode()
    )


def _die_with_parent() -> None:
    """Have the kernel end the engine when the app dies without a chance to (prctl PR_SET_PDEATHSIG)."""
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
