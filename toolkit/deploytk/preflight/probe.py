"""Starts an app with programs that only write down that they were called, and looks where it listens and answers."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from deploytk.base.errors import TryAgainError
from deploytk.base.files import locked
from deploytk.base.net import ask
from deploytk.base.pause import pause
from deploytk.base.processes import is_free, running, tail
from deploytk.publish.platform import Platform

_ASK_WITHIN_S = 3.0
_POLL_S = 0.1

# What takes minutes on the hub takes for ever here: so an app that waits for it is seen waiting.
_SLOW = ("lmdeploy", "git", "git-lfs", "wget", "curl", "pip", "pip3", "conda", "apt", "apt-get", "huggingface-cli",
         "hf", "openxlab", "modelscope", "nvcc", "gcc", "g++", "ninja", "cmake", "make")  # fmt: skip
_STAND_IN = """#!/bin/sh
echo "${0##*/} $*" >> "$DEPLOYTK_PREFLIGHT_RAN"
exec sleep 3600
"""
_PLAIN = ("sh", "bash", "env", "cat", "cp", "mv", "rm", "mkdir", "ls", "sleep", "echo", "test", "true", "false", "grep",
          "sed", "awk", "head", "tail", "which", "dirname", "basename", "uname", "id", "chmod", "ln", "find", "date",
          "tr", "cut", "sort", "wc", "touch", "pwd", "ps", "kill", "tar", "unzip")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Start:
    """How an app started."""

    first_answer_s: float | None
    status: int | None  # of the first answer at /
    listens_on: tuple[tuple[str, int], ...]
    ran: tuple[str, ...]
    ended_with: int | None  # exit code, when it ended by itself
    output: str  # its last lines


def start_app(app: Path, command: tuple[str, str], platform: Platform, within_s: float) -> Start:
    """Run `command`, a Python and the start file, in `app` as the hub would, until it answers, ends, or time is over.

    Raises TryAgainError when the hub's port is taken here.
    """
    lock = Path(tempfile.gettempdir()) / f"deploytk-{platform.port}.lock"
    with locked(lock, f"port {platform.port}"), tempfile.TemporaryDirectory(prefix="deploytk-") as directory:
        if not is_free(platform.host, platform.port):
            raise TryAgainError(
                f"port {platform.port} is taken here, and the app must be tried on it", hint="stop what listens there"
            )
        work = Path(directory)
        environment = _environment(work, command[0])
        log, ran = work / "output", work / "ran"
        ran.touch()
        with running(command, cwd=app, environment=environment, log=log) as process:
            started = time.monotonic()
            status, answered = None, None
            listens: set[tuple[str, int]] = set()
            while time.monotonic() - started < within_s and process.poll() is None:
                listens |= _listening(process.pid)
                if any(port == platform.port for _, port in listens):
                    status = _ask(platform.port)
                    if status is not None:
                        answered = time.monotonic() - started
                        break
                pause(_POLL_S)
            listens |= _listening(process.pid)
            code = process.poll()
            # An app is told to stop as a hub does; what it started goes with it.
        return Start(answered, status, tuple(sorted(listens)), tuple(ran.read_text().splitlines()), code, tail(log))


def _environment(work: Path, python: str) -> dict[str, str]:
    """A machine without GPU tools, where every slow program is a stand-in, and a home of its own."""
    programs = work / "bin"
    programs.mkdir()
    for name in _PLAIN:
        found = shutil.which(name)
        if found:
            (programs / name).symlink_to(found)
    # Not a link: beside its own directory, Python would not find its virtual environment.
    (programs / "python").write_text(f'#!/bin/sh\nexec "{python}" "$@"\n')
    (programs / "python").chmod(0o755)
    for name in _SLOW:
        (programs / name).write_text(_STAND_IN)
        (programs / name).chmod(0o755)
    home = work / "home"
    home.mkdir()
    return {
        "PATH": str(programs),
        "HOME": str(home),
        "TMPDIR": str(work),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
        "DEPLOYTK_PREFLIGHT_RAN": str(work / "ran"),
        # Nothing is downloaded here: whoever tries is told at once that there is no way out.
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1,localhost",
    }


def _ask(port: int) -> int | None:
    with suppress(ConnectionError):
        return ask(f"http://127.0.0.1:{port}/", _ASK_WITHIN_S, takes_start=True).status
    return None


def _listening(pid: int) -> set[tuple[str, int]]:
    """Host and port of every TCP socket on which the session of `pid` listens (Linux)."""
    inodes = set()
    for process in _session(pid):
        with suppress(OSError):
            for descriptor in Path(f"/proc/{process}/fd").iterdir():
                with suppress(OSError):
                    target = os.readlink(descriptor)  # noqa: PTH115 (a socket is no path)
                    if target.startswith("socket:["):
                        inodes.add(target[8:-1])
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and fields[9] in inodes:
                    host, _, port = fields[1].partition(":")
                    found.add((_host(host), int(port, 16)))
    return found


def _session(pid: int) -> list[int]:
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == pid:
                    members.append(int(entry.name))
    return members


def _host(text: str) -> str:
    """The address of a line in /proc/net/tcp, where each 32-bit word is in the machine's order."""
    if not int(text, 16):
        return "0.0.0.0"  # noqa: S104 (an address that is read, not listened on)
    if len(text) == 8:
        return ".".join(str(int(text[at : at + 2], 16)) for at in (6, 4, 2, 0))
    return "::1" if text == "00000000000000000000000001000000" else f"[{text.lower()}]"
