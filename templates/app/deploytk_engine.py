"""Starts the serving engine of a bundle on loopback, watches it, and takes it along when the app ends."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import ctypes
import json
import os
import shlex
import shutil
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploytk_relay import RefusedError, parse_head, request_head

MODEL_AT = 3  # where the model's path is in the command line
ASK_EVERY_S = 0.1
ASK_WITHIN_S = 120.0  # a first token may need kernels to be compiled
LOOK_AGAIN_S = 2.0
STOP_WITHIN_S = 20.0
LONGEST_PAUSE_S = 60.0
TAIL_LINES = 15
LONGEST_LINE_BYTES = 2**20

# LMDeploy only warns when it cannot load TurboMind, and serves with its slower engine.
FALLBACK = "Fallback to pytorch engine"


@dataclass(frozen=True)
class EngineSettings:
    name: str  # turbomind, pytorch or cpu
    argv: tuple[str, ...]
    bundle: Path
    files: dict[str, int]  # path -> bytes of the model's files
    log: Path | None  # None: stderr
    ready_within_s: float = 1800.0
    fetch: tuple[str, ...] = ()  # the command that brings files which are not here

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
                f"error: this bundle is planned for the CPU, not for {name}: package it again without --engine cpu"
            )
        else:
            # The plan may be for the PyTorch engine, which a wish for TurboMind does not change.
            name = plan["engine"]
        files = {path: file["size"] for path, file in manifest["files"].items() if file["kind"] in ("weights", "model")}
        log = os.environ.get("DEPLOYTK_ENGINE_LOG")
        ready_s = float(os.environ.get("DEPLOYTK_READY_S") or cls.ready_within_s)
        own = shlex.join([sys.executable, "fetch_model.py"]) if (bundle / "fetch_model.py").is_file() else ""
        fetch = tuple(shlex.split(os.environ.get("DEPLOYTK_FETCH") or own))
        return cls(name, tuple(argv), bundle, files, Path(log).resolve() if log else None, ready_s, fetch)


class Engine:
    """One engine process at a time.

    `state` is starting, fetching, verifying, loading, ready, failed, draining or stopped; `detail` says more.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.state = "starting"
        self.detail = ""
        self.port = 0
        self.model = ""
        self.restarts = 0
        self.ready_after_s: float | None = None  # None until the first token ever
        self._task: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._keep_running())

    def drain(self) -> None:
        """Take no new requests; those that run go on."""
        self.state = "draining"

    async def stop(self) -> None:
        """End the engine and everything that it started."""
        self.state = "stopped"
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._end_process()

    async def metrics(self) -> bytes:
        """The engine's own metrics in the text format of Prometheus; nothing when it has none."""
        if self.state == "ready":
            with contextlib.suppress(OSError, RefusedError, asyncio.IncompleteReadError, asyncio.TimeoutError):
                status, kind, body = await asyncio.wait_for(self._ask("GET", "/metrics"), 2)
                if status == 200 and kind.startswith(b"text/plain"):
                    return body
        return b""

    @property
    def _is_ending(self) -> bool:
        return self.state in ("draining", "stopped")

    async def _keep_running(self) -> None:
        pause_s = 0.5
        while not self._is_ending:
            self.state = "verifying"
            problem = await asyncio.get_event_loop().run_in_executor(None, self._find_problem)
            if problem and self.settings.fetch:
                await self._fetch()
                problem = await asyncio.get_event_loop().run_in_executor(None, self._find_problem)
            if problem:
                self.state, self.detail = "failed", problem
                await asyncio.sleep(LOOK_AGAIN_S)
                continue
            started = time.monotonic()
            await self._run_once()
            await self._end_process()
            if self.state == "failed" or self._is_ending:
                return
            if self.ready_after_s is None and self.restarts >= 2:
                self.state = "failed"
                return
            self.restarts += 1
            self.state = "starting"
            pause_s = 0.5 if time.monotonic() - started > LONGEST_PAUSE_S else min(2 * pause_s, LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s)

    async def _fetch(self) -> None:
        """Run the command that brings the files; whether it did is seen afterwards."""
        self.state, self.detail = "fetching", ""
        try:
            self._process = await self._spawn(self.settings.fetch)
        except OSError as error:
            self._tail.append(f"{self.settings.fetch[0]} cannot be started: {error.strerror}")
            return
        await self._read_log(self._process)
        await self._process.wait()
        self._process = None

    async def _spawn(self, argv: tuple[str, ...]) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *argv, cwd=str(self.settings.bundle), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, preexec_fn=_die_with_parent, start_new_session=True,
        )  # fmt: skip

    def _find_problem(self) -> str:
        """Why the engine cannot run at all, '' when nothing speaks against it."""
        for path, size in self.settings.files.items():
            try:
                found = os.stat(self.settings.bundle / path).st_size  # noqa: PTH116
            except OSError:
                return f"{path} is missing"
            if found != size:
                with (self.settings.bundle / path).open("rb") as opened:
                    is_pointer = opened.read(23) == b"version https://git-lfs"
                if is_pointer:
                    return f"{path} is a git-lfs pointer, not the file: run `git lfs pull`"
                return f"{path} has {found} bytes, deploytk.json says {size}"
        program = self.settings.argv[0]
        return "" if shutil.which(program) else f"{program} is not installed here"

    async def _run_once(self) -> None:
        """Start the engine, wait until it answers, then until it ends."""
        self.port = _free_port()
        argv = self.settings.argv
        # LMDeploy up to 0.1.0 spells its flags with underscores.
        flags = ("--server_name", "--server_port") if "--server_port" in argv else ("--server-name", "--server-port")
        try:
            self._process = await self._spawn((*argv, flags[0], "127.0.0.1", flags[1], str(self.port)))
        except OSError as error:
            self.state, self.detail = "failed", f"{argv[0]} cannot be started: {error.strerror}"
            return
        self.state, self.detail = "loading", ""
        reading = asyncio.ensure_future(self._read_log(self._process))
        watching = asyncio.ensure_future(self._wait_until_ready())
        code = await self._process.wait()
        # What has the pipe open still, a child of the engine, is ended with the group later.
        await asyncio.wait({reading}, timeout=0.5)
        for task in (reading, watching):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self.state != "failed" and not self._is_ending:
            self.detail = f"the engine {_ending(code)}: {self.log_tail()}"

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        """Keep the last lines of the engine's output, and hand all of it on."""
        assert process.stdout is not None  # noqa: S101 (it is a pipe)
        rest = b""
        with contextlib.ExitStack() as stack:
            out = stack.enter_context(self.settings.log.open("ab", 0)) if self.settings.log else sys.stderr.buffer
            while True:
                data = await process.stdout.read(65536)
                if not data:
                    return
                with contextlib.suppress(OSError):
                    out.write(data)
                    out.flush()
                *lines, rest = (rest + data).split(b"\n")
                rest = rest[-LONGEST_LINE_BYTES:]
                for line in lines:
                    self._note_line(line.decode("utf-8", "replace").rstrip()[:500])

    def _note_line(self, line: str) -> None:
        if line:
            self._tail.append(line)
        if FALLBACK in line and self.settings.name == "turbomind":
            self.state, self.detail = (
                "failed",
                f"LMDeploy fell back to its PyTorch engine, TurboMind was planned: {line}",
            )
            self._signal(signal.SIGTERM)

    async def _wait_until_ready(self) -> None:
        """Ready is when a real token came out: a port or /health may answer long before."""
        started = time.monotonic()
        while time.monotonic() - started < self.settings.ready_within_s:
            # A child that was started by an engine which forks its server may end later than it: ask until told.
            with contextlib.suppress(
                OSError, ValueError, KeyError, IndexError, TypeError, RefusedError, asyncio.IncompleteReadError
            ):
                self.model = (await self._ask_json("GET", "/v1/models"))["data"][0]["id"]
                body = {"model": self.model, "prompt": "1", "max_tokens": 1, "temperature": 0}
                answer = await self._ask_json("POST", "/v1/completions", body)
                if answer["usage"]["completion_tokens"] >= 1 and self.state == "loading":
                    self.ready_after_s = time.monotonic() - started
                    self.state, self.detail = "ready", ""
                    return
            await asyncio.sleep(ASK_EVERY_S)
        self.state = "failed"
        self.detail = f"the engine gave no token within {self.settings.ready_within_s:.0f} s: {self.log_tail()}"
        self._signal(signal.SIGTERM)

    async def _ask_json(self, method: str, path: str, fields: dict[str, Any] | None = None) -> Any:
        body = json.dumps(fields).encode() if fields else b""
        try:
            _, _, answer = await asyncio.wait_for(self._ask(method, path, body), ASK_WITHIN_S)
        except asyncio.TimeoutError as error:
            raise OSError("no answer") from error
        return json.loads(answer)

    async def _ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request_head(method, path, len(body)) + body)
            status, kind, _ = parse_head(await reader.readuntil(b"\r\n\r\n"))
            return status, kind, await reader.read()
        finally:
            writer.close()

    def log_tail(self) -> str:
        """The last lines that the engine printed."""
        return "\n".join(self._tail)

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


def _ending(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"


def _die_with_parent() -> None:
    """Have the kernel end the engine when the app dies without a chance to (prctl PR_SET_PDEATHSIG)."""
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
