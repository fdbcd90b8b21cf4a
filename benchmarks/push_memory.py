"""Memory of `deploytk build --output registry` for weights of 1 and 60 GB (sparse), to a registry that keeps nothing.

    python benchmarks/push_memory.py [GB ...]

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
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import package
import timing

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from bases import write_base

DEPLOYTK = str(Path(sys.executable).parent / "deploytk")
LAYER_BYTES = 404_766_720  # of package.py's dimensions, in fp16
SHARD_BYTES = 4_500_000_000


class Discarding(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.known: set[str] = set()  # digests and tags
        self.manifests: dict[str, str] = {}  # digest by name
        self.received_bytes = 0


class _Handler(BaseHTTPRequestHandler):
    server: Discarding
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        pass

    def _serve(self) -> None:
        server, (path, _, query) = self.server, self.path.partition("?")
        length, name = int(self.headers.get("Content-Length") or 0), path.rpartition("/")[2]
        headers, status = {"Location": f"{path}u" if path.endswith("/") else path}, 202
        if self.command == "HEAD":
            status = 200 if name in server.known else 404
            headers = {"Docker-Content-Digest": server.manifests.get(name, "")}
        elif "/manifests/" in path:
            digest = f"sha256:{hashlib.sha256(self.rfile.read(length)).hexdigest()}"
            server.known |= {name, digest}
            server.manifests |= {name: digest, digest: digest}
            status, length = 201, 0
        elif self.command == "PUT":
            server.known.add(unquote(query.partition("digest=")[2]))
            status = 201
        buffer = memoryview(bytearray(2**20))
        while length and self.command != "HEAD":
            got = self.rfile.readinto(buffer[: min(length, len(buffer))])
            length -= got
            server.received_bytes += got
        self.send_response(status)
        for key, value in (headers | {"Content-Length": "0"}).items():
            self.send_header(key, value)
        self.end_headers()

    do_HEAD = do_POST = do_PUT = do_PATCH = _serve  # noqa: N815


@contextlib.contextmanager
def discarding() -> Iterator[Discarding]:
    with Discarding() as server:
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
    with tempfile.TemporaryDirectory() as name, discarding() as server:
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
            sent_bytes = json.loads(building.stdout.read())["sent_bytes"]
        assert sent_bytes >= weights_bytes
        assert server.received_bytes == sent_bytes
        seconds = time.perf_counter() - started
    return {"weights_gb": weights_bytes / 1e9, "seconds": seconds, **peak_mib}


def main() -> None:
    timing.report(claim="at most 100 MiB at any size", results=[measure(int(gb)) for gb in sys.argv[1:] or (1, 60)])


if __name__ == "__main__":
    main()
