"""Memory of `deploytk build --output registry` for weights of 1 and 60 GB (sparse), to a registry that keeps holes.

    python -m benchmarks.push_memory [GB ...]

Of the command and of the process that sends its large layers: the peak of both together (PSS, so that what they share
counts once), looked at every 0.1 s, and of each alone (VmHWM). Everything is really read, hashed and sent.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

from bases import write_base

from benchmarks import package, timing

DEPLOYTK = str(Path(sys.executable).parent / "deploytk")
LAYER_BYTES = 404_766_720  # of package.py's dimensions, in fp16
SHARD_BYTES = 4_500_000_000


class Sparse(ThreadingHTTPServer):
    """A registry that keeps holes where zeros come: it gives back every byte, and its disk has few of them."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.names: dict[str, Path] = {}  # digest or tag -> the file with its content
        self.received_bytes = 0


class _Handler(BaseHTTPRequestHandler):
    server: Sparse
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        pass

    def _give(self) -> None:
        path, name = self.path, self.path.rpartition("/")[2]
        file = self.server.names.get(name)
        if file is None:
            self._answer(200 if path == "/v2/" else 404, {"Content-Length": "0"})
            return
        size = file.stat().st_size
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "bytes=0-"))
        assert wanted, "deploytk asks for nothing else"
        first, last = wanted.groups()
        start, end = int(first), min(int(last or size - 1), size - 1) + 1
        digest = {"Docker-Content-Digest": f"sha256:{file.name}"} if "/manifests/" in path else {}
        kind = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"} if digest else {}
        whole = (start, end) == (0, size)
        place = {} if whole else {"Content-Range": f"bytes {start}-{end - 1}/{size}"}
        self._answer(200 if whole else 206, {"Content-Length": str(end - start), **digest, **kind, **place})
        if self.command == "GET":
            with file.open("rb") as content:
                content.seek(start)
                self.wfile.write(content.read(end - start))

    def _take(self) -> None:
        path, _, query = self.path.partition("?")
        length, name = int(self.headers.get("Content-Length") or 0), path.rpartition("/")[2]
        if path.endswith("/uploads/"):
            path, name = f"{path}{uuid.uuid4().hex}", uuid.uuid4().hex
        file = self.server.root / name.replace(":", "-")
        with file.open("ab") as content:
            self._receive(content, length)
        digest = unquote(query.partition("digest=")[2])
        if "/manifests/" in path:
            digest = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
        if digest:
            self.server.names |= {digest: file.rename(self.server.root / digest.removeprefix("sha256:"))}
            self.server.names |= {name: self.server.names[digest]} if "/manifests/" in path else {}
        self._answer(201 if digest else 202, {"Location": path, "Content-Length": "0"})

    def _receive(self, content: IO[bytes], length: int) -> None:
        buffer = memoryview(bytearray(2**20))
        while length:
            got = self.rfile.readinto(buffer[: min(length, len(buffer))])
            length -= got
            if "/uploads/" in self.path:
                self.server.received_bytes += got
            if bytes(buffer[:got]).count(0) == got:
                content.truncate(content.seek(got, os.SEEK_END))
            else:
                content.write(buffer[:got])

    def _answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    do_HEAD = do_GET = _give  # noqa: N815
    do_POST = do_PUT = do_PATCH = _take  # noqa: N815


@contextlib.contextmanager
def sparse_registry() -> Iterator[Sparse]:
    with tempfile.TemporaryDirectory() as root, Sparse(Path(root)) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


def write_sparse(path: Path, shapes: dict[str, list[int]]) -> None:
    """What package.write_shard writes, with a hole where its random bytes are."""
    header, at = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + 2 * package.size(shape)]}
        at += 2 * package.size(shape)
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)


def memory_of(process: subprocess.Popen[str]) -> dict[str, float]:
    """MiB at the peak until the process has ended."""
    together, alone = 0.0, dict[int, float]()
    while process.poll() is None:
        pids = [process.pid, *children(process.pid)]
        with contextlib.suppress(OSError):
            together = max(together, sum(figure(pid, "smaps_rollup", "Pss") for pid in pids))
            alone |= {pid: figure(pid, "status", "VmHWM") for pid in pids}
        time.sleep(0.1)
    sender = max((mib for pid, mib in alone.items() if pid != process.pid), default=0.0)
    return {"together_pss": together, "command_rss": alone[process.pid], "sender_rss": sender}


def children(pid: int) -> list[int]:
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


def figure(pid: int, file: str, name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def measure(gb: int) -> dict[str, float]:
    package.LAYERS = max(1, gb * 10**9 // LAYER_BYTES - 2)
    package.SHARDS = max(2, -(-gb * 10**9 // SHARD_BYTES))
    package.write_shard = write_sparse
    with tempfile.TemporaryDirectory() as name, sparse_registry() as server:
        directory = Path(name)
        os.environ["DEPLOYTK_CACHE_DIR"] = str(directory / "cache")
        weights_bytes = package.write(directory / "model")
        bundle, base = str(directory / "bundle"), write_base(directory / "base")
        subprocess.run([DEPLOYTK, "package", str(directory / "model"), "-o", bundle], check=True, capture_output=True)
        tag = f"127.0.0.1:{server.server_address[1]}/me/large:1"
        command = [DEPLOYTK, "build", bundle, "-t", tag, "--output", "registry", "--base", f"oci:{base}", "--json"]
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as building:
            peak_mib = memory_of(building)
            assert building.stdout
            built = json.loads(building.stdout.read())
            sent_bytes = built["sent_bytes"]
        assert sent_bytes >= weights_bytes
        assert server.received_bytes == sent_bytes
        seconds = time.perf_counter() - started
    return {"weights_gb": weights_bytes / 1e9, "seconds": seconds, **peak_mib}


def main() -> None:
    sizes = [0] if timing.IS_SHORT else timing.words() or [1, 60]
    timing.report(claim="at most 100 MiB at any size", results=[measure(int(gb)) for gb in sizes])


if __name__ == "__main__":
    main()
