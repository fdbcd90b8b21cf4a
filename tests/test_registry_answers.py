"""What registries answer that Debian's never does: tokens that run out, refused chunks, requests to come back later."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from bases import write_base
from bundles import make_bundle
from conftest import MODELS

from deploytk.errors import ImageError
from deploytk.image.config import plan_image
from deploytk.image.oci import read_layout
from deploytk.image.registry import Patience, push_image
from deploytk.image.registry.upload import takes_chunks
from deploytk.image.value import BuildOptions, ImagePlan
from deploytk.progress import Silent

QUICK = Patience(attempts=3, first_s=0.01)


class Odd(ThreadingHTTPServer):
    """A registry in memory whose answers a test can spoil."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.blobs: dict[str, bytes] = {}
        self.uploads: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.methods: list[str] = []
        self.tokens = 0
        self.requests_per_token: int | None = None  # None: nobody is asked for one
        self.left = 0
        self.refuses_chunks = False
        self.busy = 0  # requests to be answered with 503

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Odd
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
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
                challenge = f'Bearer realm="http://{server.host}/token",service="odd",scope="repository:a/b:pull,push"'
                self._answer(401, WWW_Authenticate=challenge)
                return
        server.methods.append(self.command)
        name = path.rpartition("/")[2]
        if "/manifests/" in path:
            self._manifest(name, body)
        elif "/uploads/" in path:
            self._upload(name, body)
        else:
            self._answer(200 if name in server.blobs else 404)

    def _manifest(self, name: str, body: bytes) -> None:
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if self.command == "PUT":
            self.server.manifests |= {name: body, digest: body}
            self._answer(201)
        elif name in self.server.manifests:
            found = f"sha256:{hashlib.sha256(self.server.manifests[name]).hexdigest()}"
            self._answer(200, Docker_Content_Digest=found)
        else:
            self._answer(404)

    def _upload(self, name: str, body: bytes) -> None:
        server = self.server
        if self.command == "POST":
            name = f"u{len(server.methods)}"
            server.uploads[name] = b""
            self._answer(202, Location=f"/v2/a/b/blobs/uploads/{name}")
        elif self.command == "PATCH" and server.refuses_chunks:
            self._answer(405)
        else:
            server.uploads[name] += body
            if self.command == "PUT":
                digest = re.sub("%3A", ":", self.path.partition("digest=")[2])
                is_right = f"sha256:{hashlib.sha256(server.uploads[name]).hexdigest()}" == digest
                server.blobs |= {digest: server.uploads[name]} if is_right else {}
                self._answer(201 if is_right else 400, b"" if is_right else b'{"errors":[{"code":"DIGEST_INVALID"}]}')
            else:
                end = max(len(server.uploads[name]) - 1, 0)
                self._answer(
                    204 if self.command == "GET" else 202, Location=f"/v2/a/b/blobs/uploads/{name}", Range=f"0-{end}"
                )

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Odd]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with Odd() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def plan(tmp_path: Path) -> ImagePlan:
    bundle = make_bundle(MODELS / "hf-awq", tmp_path / "bundle")
    return plan_image(bundle, read_layout(write_base(tmp_path / "base")), BuildOptions(tag="a/b:1"), Silent())


def _push(plan: ImagePlan, odd: Odd) -> int:
    return push_image(plan, f"{odd.host}/a/b:1", Silent(), QUICK)[1]


def test_a_token_that_runs_out_is_fetched_anew(plan: ImagePlan, odd: Odd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploytk.image.registry.push._AT_ONCE", 1)
    odd.requests_per_token = 5

    _push(plan, odd)

    assert set(odd.blobs) == {layer.digest for layer in plan.layers} | {plan.image_id}
    assert odd.tokens > 2


def test_a_registry_that_refuses_chunks_gets_whole_blobs(plan: ImagePlan, odd: Odd) -> None:
    odd.refuses_chunks = True

    _push(plan, odd)

    assert set(odd.blobs) == {layer.digest for layer in plan.layers} | {plan.image_id}


def test_a_busy_registry_is_asked_again(plan: ImagePlan, odd: Odd) -> None:
    odd.busy = 2

    assert _push(plan, odd) > 0


def test_a_registry_that_stays_busy_is_given_up(plan: ImagePlan, odd: Odd) -> None:
    odd.busy = 1000

    with pytest.raises(ImageError, match="it answers 503, 3 times"):
        _push(plan, odd)


@pytest.mark.parametrize(
    ("host", "takes"),
    [
        ("ghcr.io", False),
        ("europe-docker.pkg.dev", False),
        ("eu.gcr.io", False),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", False),
        ("registry.example.com", True),
        ("notghcr.io", True),
    ],
)
def test_hosts_that_refuse_chunks_are_known(host: str, takes: bool) -> None:
    assert takes_chunks(host) == takes
