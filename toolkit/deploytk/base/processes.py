"""Child processes that never outlive us, and that say why when they do not come up."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploytk.base.errors import EndpointError
from deploytk.base.pause import pause

_STOP_WITHIN_S = 40.0  # an app drains its requests for 30
_TAIL_LINES = 15
_PR_SET_PDEATHSIG = 1


@contextmanager
def running(
    argv: Sequence[str], *, cwd: Path, environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """The process `argv`, with its output in `log`; at the end of the context it and all its children are gone."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    try:
        yield process
    finally:
        _end(process)


def wait_until(
    is_ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, limit_s: float, what: str
) -> None:
    """Ask until `is_ready`; raises EndpointError with the end of `log` when the process ends or time runs out."""
    deadline = time.monotonic() + limit_s
    while not is_ready():
        if process.poll() is not None:
            raise EndpointError(
                f"{what} ended with code {process.returncode} before it was ready\n{tail(log)}",
                hint=f"the lines above are the end of {log}",
            )
        if time.monotonic() > deadline:
            raise EndpointError(
                f"{what} was not ready within {limit_s:.0f} s\n{tail(log)}",
                hint=f"the lines above are the end of {log}",
            )
        pause(0.05)


def tail(log: Path) -> str:
    """The last lines of a log."""
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return "\n".join(f"  {line[:300]}" for line in lines[-_TAIL_LINES:])
    return "  (no output)"


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError:
            return False
    return True


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody uses at this moment."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.bind((host, 0))
        port: int = listener.getsockname()[1]
        return port


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the process to stop, then kill whatever is left of its group."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_WITHIN_S)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def die_with_parent() -> None:
    """Have the kernel end the child when we die without a chance to; a library that has no prctl is left alone."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
