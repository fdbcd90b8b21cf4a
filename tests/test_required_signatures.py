"""What is to be served or built can be required to be signed, and what a hub hands out can be held against it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from urllib.parse import unquote

import pytest
from bases import write_base
from bundles import whole_bundle
from commands import run
from conftest import MODELS
from hf_hub import WRITER, hf_hub
from quiet_server import QuietServer
from test_signing import official, write_key

pytestmark = pytest.mark.skipif(not all(map(find_spec, ("model_signing", "OpenSSL"))), reason="needs deploytk[sign]")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return write_key(tmp_path / "key.pem")


@pytest.fixture
def signed(tmp_path: Path, key: Path) -> Path:
    bundle = whole_bundle(MODELS / "hf-awq", tmp_path / "bundle").path
    done = run("publish", str(bundle), "--target", "local", "--repo", str(tmp_path / "hub"), "--sign", str(key))
    assert done.code == 0, done.stderr
    return bundle


COMMANDS = {
    "scale": ["scale", "SOURCE", "--on", "ray", "-o", "OUT"],
    "serve": ["serve", "SOURCE", "--engine", "cpu", "--port", "0"],
    "build": ["build", "SOURCE", "-t", "a:1", "--output", "oci:OUT", "--base", "oci:BASE"],
    "download": ["build", "SOURCE", "-t", "a:1", "--output", "oci:OUT", "--base", "oci:BASE", "--weights", "download"],
}


def _run(name: str, source: Path, key: Path, tmp_path: Path) -> tuple[int, str]:
    base = tmp_path / "base"
    if not base.exists():
        write_base(base)
    places = {
        "SOURCE": str(source),
        "OUT": str(tmp_path / "out"),
        "oci:OUT": f"oci:{tmp_path / 'out'}",
        "oci:BASE": f"oci:{base}",
    }
    words = [places.get(word, word) for word in COMMANDS[name]]
    done = run(*words, "--require-signature", str(key.with_suffix(".pub")))
    return done.code, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_what_nobody_signed_goes_nowhere(tmp_path: Path, key: Path, name: str) -> None:
    bundle = whole_bundle(MODELS / "hf-awq", tmp_path / "bundle").path

    code, stderr = _run(name, bundle, key, tmp_path)

    assert (code, "has no signature" in stderr) == (1, True), stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_what_another_signed_or_somebody_changed_goes_nowhere(
    signed: Path, tmp_path: Path, key: Path, name: str
) -> None:
    code, stderr = _run(name, signed, write_key(tmp_path / "other.pem"), tmp_path)
    assert (code, "is not signed by the key" in stderr) == (1, True), stderr

    (signed / "extra.json").write_text("{}")
    code, stderr = _run(name, signed, key, tmp_path)
    assert (code, "is not what was signed: extra.json differs" in stderr) == (1, True), stderr
    assert not (tmp_path / "out").exists()


def test_what_is_signed_is_built(signed: Path, tmp_path: Path, key: Path) -> None:
    code, stderr = _run("build", signed, key, tmp_path)

    assert code == 0, stderr
    assert "is what the key sha256:" in stderr


def test_a_model_that_its_author_signed_is_built(model_copy: Callable[[str], Path], tmp_path: Path, key: Path) -> None:
    model = model_copy("hf-awq")
    done = official("sign", "key", str(model), "--private_key", str(key), "--signature", str(model / "model.sig"))
    assert done.returncode == 0, done.stderr

    code, stderr = _run("build", model, key, tmp_path)

    assert code == 0, stderr


class _Hub(QuietServer):
    """A repository as Hugging Face and ModelScope list and hand it out."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.fetched: list[str] = []

    def files(self) -> dict[str, bytes]:
        places = [place for place in self.root.rglob("*") if place.is_file()]
        return {place.relative_to(self.root).as_posix(): place.read_bytes() for place in places}


class _Handler(BaseHTTPRequestHandler):
    server: _Hub

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        if path == "/api/models/me/tiny/tree/main":
            body = json.dumps([self._hf(name, content) for name, content in self.server.files().items()]).encode()
        elif path == "/api/v1/models/me/tiny/repo/files":
            rows = [
                {"Path": name, "Size": len(content), "Type": "blob", "Sha256": hashlib.sha256(content).hexdigest()}
                for name, content in self.server.files().items()
            ]
            body = json.dumps({"Data": {"Files": rows}}).encode()
        else:
            name = path.partition("/resolve/")[2].partition("/")[2]
            self.server.fetched.append(name)
            body = self.server.files().get(name, b"")
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @staticmethod
    def _hf(name: str, content: bytes) -> dict[str, object]:
        row: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
        large = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}
        return row | ({"lfs": large} if name.endswith((".safetensors", ".model")) else {})


@pytest.fixture
def hub(signed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Hub]:
    with _Hub(signed) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", address)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server
        server.shutdown()


@pytest.mark.parametrize("name", ["hf:me/tiny", "ms:me/tiny"])
def test_a_repository_on_a_hub_is_verified_without_its_weights(hub: _Hub, key: Path, name: str) -> None:
    (hub.root / ".gitattributes").write_text("* filter=lfs")

    done = run("verify", name, "--key", str(key.with_suffix(".pub")), "--json")

    found = json.loads(done.stdout)
    assert (done.code, found["verified"], found["kind"]) == (0, True, "hub"), done.stderr
    assert "model.safetensors" not in hub.fetched


@pytest.mark.parametrize("name", ["hf:me/tiny", "ms:me/tiny"])
def test_what_a_hub_changed_lost_or_added_is_named(hub: _Hub, key: Path, name: str) -> None:
    for path in ("model.safetensors", "config.json"):
        content = (hub.root / path).read_bytes()
        (hub.root / path).unlink()
        (hub.root / path).write_bytes(content[:-1] + b" ")
    (hub.root / "tokenizer.json").unlink()
    (hub.root / "evil.py").write_text("1")

    done = run("verify", name, "--key", str(key.with_suffix(".pub")), "--json")

    found = json.loads(done.stdout)
    assert (done.code, found["changed"]) == (1, ["config.json", "model.safetensors"])
    assert (found["missing"], found["extra"]) == (["tokenizer.json"], ["evil.py"])


def test_a_repository_that_nobody_signed_is_none(hub: _Hub, key: Path) -> None:
    (hub.root / "model.sig").unlink()

    done = run("verify", "hf:me/tiny", "--key", str(key.with_suffix(".pub")))

    assert done.code == 1
    assert "hf:me/tiny@main has no signature" in done.stderr


def test_what_is_published_and_signed_on_a_hub_verifies_there(
    tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    bundle = whole_bundle(MODELS / "hf-awq", tmp_path / "bundle").path
    with hf_hub(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", WRITER)
        words = ["publish", str(bundle), "--target", "huggingface", "--repo", "me/tiny", "--sign", str(key)]
        done = run(*words)
        assert done.code == 0, done.stderr

        done = run("verify", "hf:me/tiny", "--key", str(key.with_suffix(".pub")), "--json")

        assert done.code == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["verified"] is True
