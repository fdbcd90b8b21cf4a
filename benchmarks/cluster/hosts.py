"""Three hosts on this machine: network namespaces on one bridge, each with processes of its own, and a client's.

Needs root. A host is switched off by ending its first process, and a cable is pulled by taking a link down.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HEAD, FIRST, SECOND, CLIENT = "dtk-h", "dtk-1", "dtk-2", "dtk-c"
ADDRESSES = {HEAD: "10.77.0.1", FIRST: "10.77.0.2", SECOND: "10.77.0.3", CLIENT: "10.77.0.4"}
_BRIDGE = "dtk-b"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@contextlib.contextmanager
def network() -> Iterator[None]:
    """The namespaces and their cables; all of it is gone at the end."""
    _remove()
    ip("netns", "add", _BRIDGE)
    ip("-n", _BRIDGE, "link", "add", "bridge", "type", "bridge")
    ip("-n", _BRIDGE, "link", "set", "bridge", "up")
    for host, address in ADDRESSES.items():
        ip("netns", "add", host)
        ip("-n", _BRIDGE, "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", host)
        ip("-n", _BRIDGE, "link", "set", host, "master", "bridge", "up")
        ip("-n", host, "link", "set", "lo", "up")
        ip("-n", host, "addr", "add", f"{address}/24", "dev", "eth0")
        ip("-n", host, "link", "set", "eth0", "up")
    try:
        yield
    finally:
        _remove()


def _remove() -> None:
    for name in (*ADDRESSES, _BRIDGE):
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def plug(host: str, *, is_in: bool) -> None:
    """Plug the host's cable in, or pull it."""
    ip("-n", _BRIDGE, "link", "set", host, "up" if is_in else "down")


@dataclass
class Host:
    """A machine: what runs on it ends when it is switched off."""

    name: str
    work: Path
    environment: Mapping[str, str]
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return ADDRESSES[self.name]

    def start(self, argv: Sequence[str]) -> None:
        """Start a process, and a process namespace with it."""
        self.work.mkdir(parents=True, exist_ok=True)
        inside = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *argv]
        environment = {**os.environ, **self.environment, "NODE_IP": self.address, "HEAD_IP": ADDRESSES[HEAD]}
        with (self.work / "log").open("ab") as log:
            command = ["ip", "netns", "exec", self.name, *inside]
            self._processes.append(
                subprocess.Popen(command, env=environment, stdout=log, stderr=log, preexec_fn=_end_with_parent)
            )

    def run(self, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a program on it to its end."""
        environment = {**os.environ, **self.environment}
        command = ["ip", "netns", "exec", self.name, *argv]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def has_ray(self) -> bool:
        """Whether `ray start` has said on this host that its node is one of the cluster."""
        return b"Ray runtime started" in (self.work / "log").read_bytes()

    def switch_off(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()

    def pids(self, words: str) -> list[int]:
        """The processes of this host with these words in their command line, as this machine numbers them."""
        home = os.stat(f"/run/netns/{self.name}").st_ino  # noqa: PTH116
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _is(pid, words, home)]  # noqa: PTH208

    def kill(self, words: str) -> int:
        """Kill -9 the processes with these words; returns how many."""
        found = self.pids(words)
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(found)


def _end_with_parent() -> None:
    """A benchmark that is killed leaves no host behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _is(pid: int, words: str, home: int) -> bool:
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        return words in line and os.stat(f"/proc/{pid}/ns/net").st_ino == home  # noqa: PTH116
    except OSError:
        return False


def inside_client(argv: Sequence[str]) -> int:
    """This very program again, on the client's machine."""
    command = ["ip", "netns", "exec", CLIENT, sys.executable, *argv]
    return subprocess.run(command, check=False).returncode


def wait_for(what: str, is_true: object, within_s: float) -> float:
    """Seconds until `is_true()`; ends the program when it does not come."""
    assert callable(is_true)
    started = time.monotonic()
    while not is_true():
        if time.monotonic() - started > within_s:
            raise SystemExit(f"{what}: not within {within_s:.0f} s")
        time.sleep(0.5)
    return time.monotonic() - started
