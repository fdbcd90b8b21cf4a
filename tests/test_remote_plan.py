"""A model that is not here is planned from its configuration and the headers of its weights."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import MappingProxyType
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from commands import run
from conftest import MODELS
from quiet_server import QuietServer

from deploytk.artifact import read_artifact
from deploytk.artifact.remote import RemoteModel, outline_of
from deploytk.base.errors import ArtifactError
from deploytk.plan import PlanRequest, plan_serving

MODEL = MODELS / "hf-awq"


class Hub(QuietServer):
    """Both hubs with one model, owner/tiny; `answers` are other answers for some paths."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str | None]] = []  # path, Authorization
        self.sent_bytes = 0
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.page = 1000  # files in one page of the list
        self.next_page: str | None = None  # another address than that of the next page

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append((path, self.headers.get("Authorization")))
        files = sorted(file for file in MODEL.iterdir() if file.is_file())
        if path in self.server.answers:
            return self._send(*self.server.answers[path])
        if path == "/api/models/owner/tiny/tree/main":
            return self._list([{"type": "file", "path": file.name, "size": file.stat().st_size} for file in files])
        if path == "/api/v1/models/owner/tiny/repo/files":
            rows = [{"Type": "blob", "Path": file.name, "Size": file.stat().st_size} for file in files]
            return self._json({"Data": {"Files": rows}})
        for prefix in ("/owner/tiny/resolve/main/", "/models/owner/tiny/resolve/master/"):
            if path.startswith(prefix) and (MODEL / path.removeprefix(prefix)).is_file():
                return self._file(MODEL / path.removeprefix(prefix))
        return self._send(404, b"{}")

    def _file(self, file: Path) -> None:
        content, asked = file.read_bytes(), self.headers.get("Range")
        if asked is None:
            return self._send(200, content)
        first, last = map(int, asked.removeprefix("bytes=").split("-"))
        return self._send(206, content[first : last + 1])

    def _list(self, rows: list[dict[str, object]]) -> None:
        """A page, and where the next one is, as huggingface.co does it."""
        start = int(dict(parse_qsl(urlsplit(self.path).query)).get("cursor", 0))
        end = start + self.server.page
        here = f"{self.server.url}{TREE}?recursive=true&cursor={end}"
        link = {"Link": f'<{self.server.next_page or here}>; rel="next"'} if end < len(rows) else {}
        self._send(200, json.dumps(rows[start:end]).encode(), link)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode())

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self.server.sent_bytes += len(body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("place", ["hf:owner/tiny", "ms:owner/tiny", "hf:owner/tiny@main"])
def test_a_model_on_a_hub_is_planned_as_it_is_here(hub: Hub, place: str) -> None:
    here = plan_serving(read_artifact(MODEL), PlanRequest(gpu="A10"))

    done = run("plan", place, "--gpu", "A10", "--json")

    found = json.loads(done.stdout)
    assert done.code == 0
    assert found["vram"]["weights_bytes"] == here.vram.weights_bytes
    assert found["kv_bytes_per_token"] == here.kv_bytes_per_token
    assert found["argv"][3] == "owner/tiny"


def test_a_mirror_in_deploytk_toml_is_asked_and_sees_no_token(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deploytk.toml").write_text(f'[mirrors]\nhuggingface = "{hub.url}"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_ENDPOINT")

    done = run("plan", "hf:owner/tiny", "--gpu", "A10", "--json")

    assert done.code == 0, done.stderr
    assert {key for _, key in hub.asked} == {None}


def test_hf_endpoint_beats_the_mirror_in_deploytk_toml(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deploytk.toml").write_text('[mirrors]\nhuggingface = "https://mirror.example"\n')
    monkeypatch.chdir(tmp_path)

    assert run("plan", "hf:owner/tiny", "--gpu", "A10", "--json").code == 0
    assert {key for _, key in hub.asked} == {"Bearer hf_secret"}


def test_a_list_of_files_is_read_to_its_last_page(hub: Hub) -> None:
    hub.page = 2

    done = run("plan", "hf:owner/tiny", "--json")

    files = sum(1 for file in MODEL.iterdir() if file.is_file())
    lists = [path for path, _ in hub.asked if path == TREE]
    assert done.code == 0
    assert len(lists) == -(-files // 2) > 1
    assert {token for _, token in hub.asked} == {"Bearer hf_secret"}


@pytest.mark.parametrize("place", ["http://127.0.0.1:9/next", "again"])
def test_a_list_that_leads_elsewhere_or_never_ends_is_refused(hub: Hub, place: str) -> None:
    hub.page, hub.next_page = 1, place if place != "again" else f"{hub.url}{TREE}"

    done = run("plan", "hf:owner/tiny")

    assert done.code == 1
    assert "goes on without end, or elsewhere" in done.stderr
    assert len(hub.asked) <= 20


def test_weights_are_not_fetched_but_for_their_header(hub: Hub) -> None:
    model = RemoteModel.of("hf:owner/tiny")
    assert model

    with outline_of(model) as place:
        sizes = {file.name: file.stat().st_size for file in place.iterdir()}

    weights = MODEL / "model.safetensors"
    assert sizes["model.safetensors"] == weights.stat().st_size
    texts = sum(file.stat().st_size for file in MODEL.iterdir() if file.suffix in (".json", ".jinja"))
    assert hub.sent_bytes < texts + 2**18 + 2**16  # one first piece of the weights, and the list


def test_the_token_goes_to_its_hub_alone(hub: Hub) -> None:
    run("plan", "hf:owner/tiny")
    assert {token for _, token in hub.asked} == {"Bearer hf_secret"}
    hub.asked.clear()

    run("plan", "ms:owner/tiny")
    assert {token for _, token in hub.asked} == {None}


TREE = "/api/models/owner/tiny/tree/main"
WEIGHTS = "/owner/tiny/resolve/main/model.safetensors"


@pytest.mark.parametrize(
    ("path", "status", "body", "words"),
    [
        (TREE, 404, b"{}", "it answers 404"),
        (TREE, 401, b"{}", "it answers 401"),
        (TREE, 200, b"<html>", "list of files"),
        (TREE, 200, b'{"error": 1}', "list of files"),
        (TREE, 200, b'[{"type": "file", "path": "../../etc/x", "size": 1}]', "list of files"),
        (TREE, 200, b'[{"type": "file", "path": "/etc/x", "size": 1}]', "list of files"),
        (TREE, 200, b'[{"type": "file", "path": "config.json", "size": -1}]', "list of files"),
        (TREE, 200, b'[{"type": "file", "path": "config.json", "size": "9"}]', "list of files"),
        (TREE, 200, b"[7]", "list of files"),
        (WEIGHTS, 200, b"\xff" * 2**18, "announces a header"),
        (WEIGHTS, 200, b"", "ends before"),
    ],
)
def test_a_hub_that_answers_something_else_is_two_lines(
    hub: Hub, path: str, status: int, body: bytes, words: str
) -> None:
    hub.answers[path] = (status, body)

    done = run("plan", "hf:owner/tiny")

    what, hint = done.stderr.splitlines()
    assert done.code == 1
    assert words in what
    assert "hf_secret" not in what + hint


def test_what_names_no_model_of_a_hub_is_a_directory() -> None:
    for text in ("owner/tiny", "hf:tiny", "hf:a/b/c", "hf:../x", "s3:owner/tiny", "hf:owner/tiny@"):
        assert RemoteModel.of(text) is None
    with pytest.raises(ArtifactError):
        read_artifact(Path("hf:owner/missing"))
