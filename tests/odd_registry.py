"""A registry in memory whose answers a test can spoil, and which lies when it is told to.

with odd_registry() as odd:
    odd.lies["manifest"] = lambda body: b"{}"       # what is kept instead of what was sent
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from bases import write_base
from bundles import given_bundle
from conftest import MODELS
from quiet_server import QuietServer

from deploytk.base.progress import Silent
from deploytk.image.config import plan_image
from deploytk.image.oci import read_layout
from deploytk.image.value import BuildOptions, ImagePlan


class Odd(QuietServer):
    """A registry in memory whose answers a test can spoil."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.blobs: dict[str, bytes] = {}
        self.uploads: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.methods: list[str] = []
        self.said: list[str] = []  # every request with what it says of bytes, and what was answered
        self.tokens = 0
        self.requests_per_token: int | None = None  # None: nobody is asked for one
        self.left = 0
        self.logins: list[str] = []  # what tokens were asked for with
        self.scope_error = ""
        self.chunk_limits: dict[str, str] = {}
        self.chunks: list[int] = []  # bytes
        self.chunk_answer = 202
        self.chunks_before = 0  # so many are taken before that answer
        self.chunk_logins = 0  # chunks for which a new token is wanted
        self.download_logins = 0  # downloads for which a new token is wanted
        self.busy = 0  # requests to be answered with 503
        self.token_busy = 0
        self.damages = 0  # blobs to be damaged
        self.cuts: list[int] = []  # after so many bytes downloads break off, one after the other
        self.ranges: list[str | None] = []  # that downloads asked for
        self.download_busy = 0
        self.storage = ""  # where downloads are sent
        self.storage_status = 307
        self.lies: dict[str, Callable[[bytes], bytes]] = {}  # "blob", "manifest": what it keeps instead
        self.shows: dict[str, Callable[[bytes], bytes]] = {}  # "tag", "digest", "blob": what it hands out instead
        self.sizes: Callable[[int], int] = lambda size: size  # what it says of a blob, to HEAD
        self.loses_put_answers = 0
        self.forgets_chunks = False
        self.lists_referrers = False  # by the API of OCI 1.1
        self.page_size = 100  # entries of such a list
        self.knows_ranges = True
        self.range_adds = 0  # bytes that it claims to have beyond those that it has
        self.asked_adds = 0  # ... when it is asked how far an upload came
        self.is_shaky = False  # it answers 503 to every second chunk

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Odd
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        asked = [self.command, self.path, *(self.headers.get(name, "") for name in ("Range", "Content-Range"))]
        self.server.said.append(f"{' '.join(filter(None, asked))} -> {status}")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _serve(self) -> None:
        server, path = self.server, self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path == "/token":
            if server.token_busy:
                server.token_busy -= 1
                self._answer(503, Retry_After="0")
                return
            server.logins.append(self.headers.get("Authorization") or body.decode())
            server.tokens += 1
            server.left = server.requests_per_token or 0
            self._answer(200, json.dumps({"token": f"t{server.tokens}", "expires_in": 300}).encode())
            return
        if server.busy:
            server.busy -= 1
            self._answer(503, Retry_After="0")
            return
        if server.requests_per_token is not None:
            is_right = self.headers.get("Authorization") == f"Bearer t{server.tokens}" and server.left > 0
            server.left -= 1
            if not is_right:
                self._want_token()
                return
        server.methods.append(self.command)
        name = path.rpartition("/")[2]
        if path == "/v2/":
            self._answer(200)
        elif "/referrers/" in path and server.lists_referrers:
            self._referrers(name)
        elif "/manifests/" in path:
            self._manifest(name, body)
        elif "/uploads/" in path:
            self._upload(name, body)
        elif self.command == "GET" and name in server.blobs:
            self._download(server.shows.get("blob", bytes)(server.blobs[name]))
        elif name in server.blobs:
            self._answer(200, bytes(server.sizes(len(server.blobs[name]))), Docker_Content_Digest=name)
        else:
            self._answer(404)

    def _want_token(self) -> None:
        challenge = f'Bearer realm="http://{self.server.host}/token",service="odd",scope="repository:a/b:pull,push"'
        self._answer(401, WWW_Authenticate=challenge + self.server.scope_error)

    def _download(self, blob: bytes) -> None:
        if self.server.download_logins:
            self.server.download_logins -= 1
            self._want_token()
            return
        if self.server.download_busy:
            self.server.download_busy -= 1
            self._answer(503)
            return
        if self.server.storage and "Authorization" in self.headers:
            self._answer(self.server.storage_status, Location=f"{self.server.storage}{self.path}")
            return
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        wanted = wanted if self.server.knows_ranges else None
        start, _, last = (wanted or "bytes=0-").removeprefix("bytes=").partition("-")
        rest = blob[int(start) : int(last) + 1 if last else None]
        if self.server.cuts and rest[self.server.cuts[0] :]:
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[: self.server.cuts.pop(0)])
            self.close_connection = True
        else:
            self._answer(206 if wanted else 200, rest)

    def _manifest(self, name: str, body: bytes) -> None:
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if self.command == "PUT":
            kept = self.server.lies.get("manifest", bytes)(body)
            self.server.manifests |= {name: kept, digest: kept}
            subject = json.loads(body).get("subject") if self.server.lists_referrers else None
            self._answer(201, b"", **({"OCI_Subject": subject["digest"]} if subject else {}))
        elif name in self.server.manifests:
            found = self.server.manifests[name]
            digest = f"sha256:{hashlib.sha256(found).hexdigest()}"
            kind = json.loads(found).get("mediaType", "application/json")
            shown = self.server.shows.get("digest" if name.startswith("sha256:") else "tag", bytes)(found)
            self._answer(200, shown, Docker_Content_Digest=digest, Content_Type=kind)
        else:
            self._answer(404)

    def _referrers(self, digest: str) -> None:
        """Those of a manifest, a page at a time."""
        found = []
        for name, content in self.server.manifests.items():
            manifest = json.loads(content)
            if name.startswith("sha256:") and (manifest.get("subject") or {}).get("digest") == digest:
                kinds = {key: manifest[key] for key in ("mediaType", "artifactType", "annotations")}
                found.append({"digest": name, "size": len(content), **kinds})
        start = int(self.path.partition("?at=")[2] or 0)
        page = {"schemaVersion": 2, "manifests": found[start : start + self.server.page_size]}
        end = start + self.server.page_size
        more = {"Link": f'<{self.path.partition("?")[0]}?at={end}>; rel="next"'} if end < len(found) else {}
        self._answer(200, json.dumps(page).encode(), Content_Type="application/vnd.oci.image.index.v1+json", **more)

    def _is_next(self, have: int, body: bytes) -> bool:
        """Where a chunk belongs; cosign streams a whole blob, without a word about where."""
        there = self.headers.get("Content-Range")
        return there == f"{have}-{have + len(body) - 1}" or (there is None and not have)

    def _repository(self) -> str:
        return self.path.partition("/blobs/")[0]

    def _upload(self, name: str, body: bytes) -> None:
        server, have = self.server, len(self.server.uploads.get(name, b""))
        if self.command == "POST":
            name = f"u{len(server.methods)}"
            server.uploads[name] = b""
            self._answer(202, b"", Location=f"{self._repository()}/blobs/uploads/{name}", **server.chunk_limits)
        elif name not in server.uploads:
            self._answer(404)
        elif self.command == "PATCH" and server.is_shaky and server.methods.count("PATCH") % 2:
            self._answer(503, Retry_After="0")
        elif self.command == "PATCH" and server.chunk_logins:
            server.chunk_logins -= 1
            self._want_token()
        elif self.command == "PATCH" and not self._is_next(have, body):
            self._answer(416)  # https://github.com/opencontainers/distribution-spec, "Pushing a blob in chunks"
        elif self.command == "PATCH" and server.chunk_answer != 202 and len(server.chunks) >= server.chunks_before:
            self._answer(server.chunk_answer)
        else:
            server.uploads[name] += b"" if server.forgets_chunks and self.command == "PATCH" else body
            server.chunks += [len(body)] if self.command == "PATCH" else []
            if self.command == "PUT" and server.damages:
                server.damages -= 1
                server.uploads[name] = b""
            if self.command == "PUT":
                digest = re.sub("%3A", ":", self.path.partition("digest=")[2])
                is_right = f"sha256:{hashlib.sha256(server.uploads[name]).hexdigest()}" == digest
                kept = server.lies.get("blob", bytes)(server.uploads[name])
                server.blobs |= {digest: kept} if is_right else {}
                if is_right:
                    server.uploads.pop(name)  # it has ended: nobody can ask for it any more
                if server.loses_put_answers:
                    server.loses_put_answers -= 1
                    self.close_connection = True
                    return
                self._answer(201 if is_right else 400, b"" if is_right else b'{"errors":[{"code":"DIGEST_INVALID"}]}')
            else:
                end = max(len(server.uploads[name]) - 1, 0) + server.range_adds
                end += server.asked_adds if self.command == "GET" else 0
                self._answer(
                    204 if self.command == "GET" else 202,
                    Location=f"{self._repository()}/blobs/uploads/{name}",
                    Range=f"0-{end}",
                )

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815


@contextlib.contextmanager
def odd_registry() -> Iterator[Odd]:
    with Odd() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def plan_with(large_bytes: int, directory: Path) -> ImagePlan:
    """A tiny bundle on a base with a layer of so many bytes, the same ones every time: what tests push there."""
    bundle = given_bundle(MODELS / "hf-awq", directory / "bundle")
    base = write_base(directory / "base", {"model": random.Random(1).randbytes(large_bytes)})
    return plan_image(bundle, read_layout(base), BuildOptions(tag="a/b:1"), Silent())
