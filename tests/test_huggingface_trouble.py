"""A publish to Hugging Face when the hub goes away, something else answers, or files change under it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from bundles import Notes, make_bundle
from conftest import MODELS
from hf_hub import WRITER, Fault, Hub, hf_hub, is_large
from huggingface_hub import constants, get_session, lfs
from quiet_server import QuietServer

from deploytk.base.digests import hash_file
from deploytk.base.errors import ReleaseError, TryAgainError
from deploytk.base.progress import Advance, Progress, Silent, Unit
from deploytk.bundle import Bundle, BundleOptions, read_bundle
from deploytk.publish.options import PublishOptions
from deploytk.publish.record import Release
from deploytk.publish.release import publish_bundle
from deploytk.publish.targets.huggingface import HuggingFace
from deploytk.publish.targets.huggingface.client import Client
from deploytk.publish.targets.huggingface.place import find_hub

REPO = "me/tiny"
_AWAY_S = 1.5
_LARGE_BYTES = 24 * 2**20  # more than the buffers of a loopback connection hold


@pytest.fixture(autouse=True)
def _xet_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Of files of its own: they may be changed."""
    return _bundle(tmp_path, 100_000)


@pytest.fixture
def large_bundle(tmp_path: Path) -> Bundle:
    return _bundle(tmp_path, _LARGE_BYTES)


def _bundle(tmp_path: Path, size: int) -> Bundle:
    model = tmp_path / "model"
    shutil.copytree(MODELS / "hf-awq", model)
    (model / "more.txt").write_bytes(b"1" * size)
    return make_bundle(model, tmp_path / "bundle", BundleOptions(name="tiny", license="mit"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hf_hub(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", WRITER)
        yield hub


class HubProcess:
    """The stand-in as a process that can be killed, and comes back at its old address."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        program = [sys.executable, str(Path(__file__).with_name("hf_hub.py")), str(self.root), str(self._port)]
        self._process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        self._port = int(self._process.stdout.readline().rsplit(":", 1)[1])

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=10)

    def restart(self) -> threading.Timer:
        self.kill()
        timer = threading.Timer(_AWAY_S, self.start)
        timer.start()
        return timer


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubProcess]:
    process = HubProcess(tmp_path / "hub")
    monkeypatch.setenv("HF_ENDPOINT", process.url)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    try:
        yield process
    finally:
        process.kill()


class Restarts(Notes):
    """Restarts the hub once: after so many bytes of the upload, or when all of it is sent."""

    def __init__(self, process: HubProcess, after_bytes: int | None) -> None:
        super().__init__()
        self._process, self._after_bytes = process, after_bytes
        self._sent = 0
        self.timer: threading.Timer | None = None
        self._lock = threading.Lock()

    @contextmanager
    def task(self, label: str, total: int, unit: Unit = "bytes") -> Iterator[Advance]:
        def advance(amount: int) -> None:
            with self._lock:
                self._sent += amount
                if self._after_bytes is not None and self._sent > self._after_bytes:
                    self._once()

        yield advance if label == "sending" else lambda _: None
        if label == "sending":
            self._once()

    def _once(self) -> None:
        self.timer = self.timer or self._process.restart()


def _publish(bundle: Bundle, patience_s: float = 3.0, progress: Progress | None = None) -> Release:
    """By the target itself: with the bundle's own files, which something happens to, not with the hub's cards."""
    return HuggingFace(patience_s=patience_s).publish(bundle, PublishOptions(repo=REPO), progress or Silent())


def _published(root: Path) -> dict[str, str]:
    tree = Hub(root).tree(REPO)
    del tree[".gitattributes"]  # the hub's own
    return tree


def _large(bundle: Bundle) -> int:
    """How many files the hub keeps by LFS: more.txt, model.safetensors and the page's own."""
    return sum(is_large(file.path, file.size) for file in bundle.files)


def _expected(bundle: Bundle) -> dict[str, str]:
    manifest = {"deploytk.json": hash_file(bundle.path / "deploytk.json")}
    return {file.path: file.sha256 for file in bundle.files} | manifest


def test_a_client_that_another_thread_closes_is_no_refusal(
    hub: Hub, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """huggingface_hub closes the client of all threads when one loses its connection."""
    send, closed = lfs.http_backoff, []

    def lost(method: str, url: str, **how: Any) -> Any:
        if closed:
            return send(method, url, **how)
        closed.append(type(get_session())())
        closed[0].close()
        return closed[0].request(method, url)

    monkeypatch.setattr(lfs, "http_backoff", lost)

    assert _publish(bundle).verified
    assert len(closed) == 1


@pytest.mark.parametrize("after_bytes", [_LARGE_BYTES // 2, None], ids=["while it is sent", "before the commit"])
def test_a_hub_that_is_killed_and_comes_back_has_the_same_tree_in_the_end(
    process: HubProcess, large_bundle: Bundle, after_bytes: int | None
) -> None:
    restarts = Restarts(process, after_bytes)

    release = _publish(large_bundle, patience_s=30, progress=restarts)

    assert restarts.timer
    restarts.timer.join()
    hub = Hub(process.root)
    assert _published(process.root) == _expected(large_bundle)
    assert [commit["summary"] for commit in hub.commits(REPO)] == ["initial commit", "Publish tiny"]
    assert release.revision == hub.commits(REPO)[-1]["oid"]
    answered = (process.root / "answered").read_text().split()
    assert len(answered) == len(set(answered))  # sent again is only what the hub had no time to answer


def test_a_hub_that_does_not_come_back_leaves_nothing_to_see_and_the_next_run_sends_the_rest(
    process: HubProcess, bundle: Bundle
) -> None:
    class Kills(Restarts):
        def _once(self) -> None:
            self.timer = self.timer or threading.Timer(0, lambda: None)
            process.kill()

    with pytest.raises(TryAgainError, match="does not answer: the connection is refused") as caught:
        _publish(bundle, patience_s=1, progress=Kills(process, None))
    assert caught.value.exit_code == 75
    assert len(Hub(process.root).commits(REPO)) == 1
    process.start()

    release = _publish(bundle)

    assert _published(process.root) == _expected(bundle)
    stored = (process.root / "stored").read_text().split()
    assert len(stored) == len(set(stored)) == _large(bundle)
    assert release.uploaded_files == len(bundle.files) + 1 - _large(bundle)  # the large ones were there


def test_a_commit_that_is_refused_for_a_while_is_made_once(hub: Hub, bundle: Bundle) -> None:
    hub.faults["commit"] = [503, 409, "cut"]

    _publish(bundle, patience_s=0.1)  # no pause is longer than that

    assert len(hub.commits(REPO)) == 2
    assert len(hub.stored) == _large(bundle)


@pytest.mark.parametrize(("step_bytes", "is_done"), [(20 * 2**20, True), (2**20, False)])
def test_the_patience_begins_anew_where_much_was_sent_between_two_absences(
    hub: Hub, step_bytes: int, is_done: bool
) -> None:
    client = Client(find_hub(), Silent(), patience_s=0.6)  # one pause of 0.5 s
    done, tries = 0, 0

    def send() -> str:
        nonlocal done, tries
        done, tries = done + step_bytes, tries + 1
        if tries <= 3:
            raise ConnectionResetError
        return "sent"

    try:
        answer = client.ask(send, REPO, done_bytes=lambda: done)
    except TryAgainError:
        answer = "gave up"

    assert answer == ("sent" if is_done else "gave up")


@pytest.mark.parametrize("kind", ["create", "info", "preupload", "batch", "commit", "tree"])
@pytest.mark.parametrize("fault", [302, 418], ids=["a redirect to nowhere", "an unknown refusal"])
def test_what_no_hub_answers_is_said_in_one_line(hub: Hub, bundle: Bundle, kind: str, fault: Fault) -> None:
    hub.faults[kind] = [fault] * 3
    if kind == "tree":
        hub.create(REPO)

    with pytest.raises(ReleaseError) as caught:
        _publish(bundle)

    assert "\n" not in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("body", [b"<html>log in</html>", b"{}", b"[]", b"null", b'{"name": "me"}'])
@pytest.mark.parametrize("repo", [None, REPO])
def test_a_page_in_the_place_of_the_hub_is_told_from_one(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, body: bytes, repo: str | None
) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    server = QuietServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_TOKEN", WRITER)
    options = PublishOptions(repo=repo)

    with pytest.raises(ReleaseError, match="as a hub does") as planned:
        HuggingFace(patience_s=1).preview(bundle, options)
    with pytest.raises(ReleaseError, match="as a hub does") as published:
        publish_bundle(bundle, HuggingFace(patience_s=1), options, Silent())
    server.shutdown()
    server.server_close()

    assert "HF_ENDPOINT" in planned.value.hint
    assert WRITER not in f"{planned.value} {published.value}"


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"---\nlicense: [\n---\n", "is no YAML"),
        (b"---\nlicense: mit \xff\n---\n", "is no text in UTF-8"),
        (b"# no head\n", "has no head"),
    ],
)
def test_a_card_that_no_hub_takes_is_refused_before_anything_is_asked(
    hub: Hub, tmp_path: Path, head: bytes, message: str
) -> None:
    path = _bundle(tmp_path, 1000).path
    _replace(path, "README.md", head)
    bundle = read_bundle(path)

    with pytest.raises(ReleaseError, match=message):
        HuggingFace().preview(bundle, PublishOptions(repo=REPO))
    with pytest.raises(ReleaseError, match=message) as caught:
        _publish(bundle)

    assert "\n" not in str(caught.value)
    assert hub.requests == []


def _replace(bundle: Path, name: str, content: bytes) -> None:
    """Change a file of a bundle, and what its manifest says of it."""
    (bundle / name).write_bytes(content)
    manifest = json.loads((bundle / "deploytk.json").read_text())
    manifest["files"][name] |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (bundle / "deploytk.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("when", ["tree", "yaml", "preupload", "batch", "PUT"])
@pytest.mark.parametrize("path", ["README.md", "more.txt"])
def test_a_file_that_goes_away_is_named_and_nothing_is_committed(
    hub: Hub, bundle: Bundle, when: str, path: str
) -> None:
    hub.create(REPO)
    hub.on[when] = (bundle.path / path).unlink

    with pytest.raises(ReleaseError, match=f"{path} changed while it was sent; nothing is visible of it"):
        _publish(bundle)

    assert len(hub.commits(REPO)) == 1


def test_a_file_that_changes_while_it_is_committed_is_named(hub: Hub, bundle: Bundle) -> None:
    hub.on["commit"] = lambda: (bundle.path / "README.md").write_text("changed\n")

    with pytest.raises(ReleaseError, match=r"README\.md"):
        _publish(bundle)


def test_a_token_that_expires_while_files_are_sent_is_said_and_the_next_run_goes_on(hub: Hub, bundle: Bundle) -> None:
    hub.faults["commit"] = [401]
    with pytest.raises(ReleaseError, match="does not accept the access token"):
        _publish(bundle)
    stored = list(hub.stored)

    _publish(bundle)

    assert hub.stored == stored
    assert _published(hub.root) == _expected(bundle)
