"""dockerd on a socket and a directory of its own, without a bridge, and a Debian to build on."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from bases import Special
from registries import need

BASE = "deploytk-test-debian:1"


@dataclass(frozen=True)
class Dockerd:
    root: Path

    @property
    def host(self) -> str:
        return f"unix://{self.root / 'docker.sock'}"

    def docker(self, *arguments: str, stdin: bytes | None = None) -> str:
        """What Docker's own client says: an opinion other than ours."""
        command = ["docker", "--host", self.host, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()


@contextmanager
def running_dockerd(
    *, disk: Path | None = None, is_buildkit: bool = False, system: Path | None = None
) -> Iterator[Dockerd]:
    """A daemon with its images at `disk`, and nothing left of it at the end: no process, no mount, no file.

    `system` is the root of a newer Debian, whose dockerd then keeps images in containerd's store.
    """
    for program in ("dockerd", "docker", "containerd"):
        need(program)
    if os.geteuid():
        assert not os.environ.get("DEPLOYTK_REQUIRE_SERVICES"), "dockerd needs root"
        pytest.skip("dockerd needs root")
    root = Path(tempfile.mkdtemp(prefix="dockerd-"))  # short: a socket's path has 107 characters at most
    data = disk or root / "data"
    features = {"buildkit": is_buildkit} | ({"containerd-snapshotter": True} if system else {})
    (root / "daemon.json").write_text(json.dumps({"features": features}))
    command = ["dockerd", "--config-file", str(root / "daemon.json"), "--host", f"unix://{root / 'docker.sock'}"]
    command += ["--data-root", str(data), "--exec-root", str(root / "exec"), "--pidfile", str(root / "pid")]
    command += ["--bridge=none", "--iptables=false", "--ip6tables=false"]
    if system:
        command = _inside(system, root, command)
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        daemon = Dockerd(root)
        _wait(daemon, process)
        yield daemon
        _remove_containers(daemon)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            where = line.split()[1]
            if where.startswith((f"{root}/", f"{data}/")):
                subprocess.run(["umount", "--lazy", where], check=False)
        shutil.rmtree(root, ignore_errors=True)


def _inside(system: Path, shared: Path, command: list[str]) -> list[str]:
    """`command` with `system` as its root, in which `shared` is where it is here; its mounts go when it ends."""
    mounts = [f"mount -t tmpfs tmpfs {system}/{place}" for place in ("run", "tmp")]
    mounts += [
        f"mount -t proc proc {system}/proc",
        f"mount --rbind /sys {system}/sys",
        f"mount --rbind /dev {system}/dev",
    ]
    mounts += [f"mkdir -p {system}{shared}", f"mount --bind {shared} {system}{shared}"]
    start = f"exec chroot {system} {shlex.join(command)}"
    return ["unshare", "--mount", "sh", "-c", " && ".join([*mounts, start])]


def newer_debian(work: Path) -> Path:
    """The root of Debian 13, with Docker 26; DEPLOYTK_TEST_NEWER names one that is there already."""
    system = Path(os.environ.get("DEPLOYTK_TEST_NEWER") or work / "newer")
    if not system.is_dir():
        _debootstrap("docker.io,ca-certificates", "trixie", system)
    return system


def _debootstrap(packages: str, suite: str, place: Path) -> None:
    need("debootstrap")
    command = ["debootstrap", "--variant=minbase", f"--include={packages}", suite, str(place)]
    subprocess.run(command, check=True, capture_output=True, timeout=400)


def _wait(daemon: Dockerd, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    command = ["docker", "--host", daemon.host, "version"]
    while subprocess.run(command, capture_output=True, timeout=30).returncode:
        assert process.poll() is None, (daemon.root / "log").read_text()[-3000:]
        assert time.monotonic() < deadline, (daemon.root / "log").read_text()[-3000:]
        time.sleep(0.1)


def _remove_containers(daemon: Dockerd) -> None:
    if left := daemon.docker("ps", "--all", "--quiet").split():
        daemon.docker("rm", "--force", *left)


def shell_files() -> dict[str, bytes | Special]:
    """A shell of this machine with what it needs."""
    names = ("/bin/sh", "/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6")
    return {name.lstrip("/"): Path(name).resolve().read_bytes() for name in names}


def import_debian(daemon: Dockerd, work: Path) -> None:
    """Debian with Python as the image BASE; DEPLOYTK_TEST_ROOTFS names one that is there already."""
    rootfs = Path(os.environ.get("DEPLOYTK_TEST_ROOTFS") or work / "rootfs")
    if not rootfs.is_dir():
        _debootstrap("python3,python3-venv,ca-certificates", "bookworm", rootfs)
    link = work / "link/usr/bin/python"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to("python3")
    pack = ["tar", "--create", "--one-file-system", "--exclude=./var/cache/apt/*", "--directory", str(rootfs), "."]
    pack += ["--directory", str(work / "link"), "./usr/bin/python"]
    with subprocess.Popen(pack, stdout=subprocess.PIPE) as tar:
        load = ["docker", "--host", daemon.host, "import", "-", BASE]
        subprocess.run(load, stdin=tar.stdout, check=True, capture_output=True, timeout=200)
    shutil.rmtree(work / "rootfs", ignore_errors=True)
