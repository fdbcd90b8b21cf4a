"""What goes wrong while a bundle is published by the real command, and what users read then.

One line says what, one what to do; the exit code fits; nothing half-written is seen; the token is nowhere.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bundles import as_shown_on, make_bundle
from conftest import require
from giftless_server import TOKEN, USER, Giftless, giftless_server
from modelscope_server import READER, WRITER, ModelScopeServer

from deploytk.bundle import Bundle
from deploytk.publish.record import record_path

pytestmark = [pytest.mark.services, pytest.mark.timeout(500)]

REPO = "me/tiny"
WRONG = "t0ken-that-nobody-knows"
AWAY_S = float(os.environ.get("DEPLOYTK_TEST_AWAY_S", "4"))  # by hand: 30


@pytest.fixture
def bundle(tmp_path: Path, model_copy: Callable[[str], Path]) -> Bundle:
    return make_bundle(model_copy("workspace-0.4.2-awq"), tmp_path / "bundle")  # of a copy: it will be changed


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Giftless]:
    require("git-lfs", "lighttpd")
    with giftless_server(tmp_path / "server") as server:
        server.create("tiny")
        monkeypatch.setenv("OPENXLAB_GIT_ENDPOINT", server.url)
        monkeypatch.setenv("OPENXLAB_USERNAME", USER)
        monkeypatch.setenv("OPENXLAB_GIT_TOKEN", TOKEN)
        yield server


def _command(bundle: Bundle, target: str, repo: str = REPO) -> list[str]:
    return [sys.executable, "-m", "deploytk", "publish", str(bundle.path), "--target", target, "--repo", repo]


def _run(bundle: Bundle, target: str, repo: str = REPO) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(bundle, target, repo), capture_output=True, text=True, timeout=400)


def _told(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The two lines at the end, after what is wrong with all of it was refused."""
    assert done.returncode == code, done.stderr
    error, hint = done.stderr.rstrip().splitlines()[-2:]
    assert error.startswith("error: ")
    assert hint.startswith(" hint: ")
    assert not done.stdout
    for secret in (WRONG, TOKEN, WRITER, READER):
        assert secret not in done.stderr
    return f"{error}\n{hint}"


def _refs(server: Giftless) -> str:
    command = ["git", "-C", str(server.root / "git" / "me" / "tiny.git"), "for-each-ref"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def _when(is_time: Callable[[], bool], act: Callable[[], object]) -> Iterator[None]:
    """Calls `act` as soon as it is time."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.002):
            if is_time():
                act()
                return

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


def test_tokens_that_do_not_do_by_git(git: Giftless, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENXLAB_GIT_TOKEN", WRONG)
    wrong = _told(_run(bundle, "openxlab"), 1)
    monkeypatch.setenv("OPENXLAB_GIT_TOKEN", TOKEN)
    # A token that may only read: git's own backend then refuses the push, but giftless would take every object.
    repository = git.root / "git" / "me" / "tiny.git"
    subprocess.run(["git", "-C", str(repository), "config", "http.receivepack", "false"], check=True)
    reading = _told(_run(bundle, "openxlab"), 1)
    other = _told(_run(bundle, "openxlab", "somebody/tiny"), 1)

    assert "does not take the token of me" in wrong
    assert "may not write to me/tiny" in reading
    assert "has no repository somebody/tiny, or me may not see it" in other
    assert not git.stored
    assert not _refs(git)


def test_a_token_that_expires_in_the_middle_of_an_upload(git: Giftless, bundle: Bundle) -> None:
    users = git.root / "users"

    with _when(lambda: bool(git.stored), lambda: users.write_text(f"{USER}:another\n")):
        done = _run(bundle, "openxlab")

    if done.returncode:  # all may have been sent before the server looked into its file again
        assert "does not take the token of me" in _told(done, 1)
        assert not _refs(git)


def test_a_git_server_that_is_killed_in_the_middle_and_comes_back(git: Giftless, bundle: Bundle) -> None:
    def away() -> None:
        git.stop()
        time.sleep(AWAY_S)
        git.start()

    with _when(lambda: bool(git.stored), away):
        done = _run(bundle, "openxlab")

    assert done.returncode == 0, done.stderr
    assert re.search(r"does not answer(, trying again|: .* again in .* at most)", done.stderr)  # git-lfs, or we
    assert len(git.puts) - len(set(git.puts)) <= 8  # as many are on their way at once
    again = _run(bundle, "openxlab")
    assert "0 files" in again.stdout


def test_a_modelscope_that_goes_away_in_the_middle_and_comes_back(
    modelscope_hub: ModelScopeServer, bundle: Bundle
) -> None:
    back: list[ModelScopeServer] = []

    def away() -> None:
        modelscope_hub.go_away()
        time.sleep(AWAY_S)
        back.append(modelscope_hub.come_back())

    with _when(lambda: len(modelscope_hub.blobs) > 2, away):
        done = _run(bundle, "modelscope")
    back[0].shutdown()
    back[0].server_close()

    assert done.returncode == 0, done.stderr
    shown = as_shown_on(bundle, "modelscope", REPO)
    for file in shown.files:
        assert modelscope_hub.repositories[REPO].files[file.path] == (shown.path / file.path).read_bytes()
    assert modelscope_hub.puts <= len(modelscope_hub.blobs) + 8


def _files(place: Path) -> list[Path]:
    """Those that are there, while others come and go."""
    return [Path(folder, name) for folder, _, names in os.walk(place) for name in names]


@pytest.mark.parametrize("target", ["openxlab", "modelscope"])
def test_the_token_is_nowhere_while_it_is_used(
    request: pytest.FixtureRequest, bundle: Bundle, tmp_path: Path, target: str
) -> None:
    request.getfixturevalue("git" if target == "openxlab" else "modelscope_hub")
    token = (TOKEN if target == "openxlab" else WRITER).encode()
    publishing = subprocess.Popen(_command(bundle, target), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    looks = 0
    places = [tmp_path / "home", bundle.path, Path(os.environ["DEPLOYTK_CACHE_DIR"])]

    while publishing.poll() is None:
        looks += 1
        files = [*Path("/proc").glob("[0-9]*/cmdline"), *(path for place in places for path in _files(place))]
        for path in files:
            with contextlib.suppress(OSError):
                assert path.stat().st_size > 10**5 or token not in path.read_bytes(), path

    assert publishing.stdout
    said = publishing.stdout.read()
    publishing.stdout.close()
    assert publishing.returncode == 0, said
    assert token not in said
    assert token not in record_path(bundle).read_bytes()
    assert looks > 3


@pytest.mark.parametrize("target", ["local", "openxlab", "modelscope"])
def test_a_bundle_that_is_not_what_it_says_is_refused_before_anything(
    request: pytest.FixtureRequest, bundle: Bundle, tmp_path: Path, target: str
) -> None:
    hub = request.getfixturevalue({"openxlab": "git", "modelscope": "modelscope_hub"}.get(target, "tmp_path"))
    repo = str(tmp_path / "hub") if target == "local" else REPO
    packages = bundle.path / "requirements.txt"
    text = packages.read_text()

    packages.write_text(text[:-2] + "!\n")
    changed = _told(_run(bundle, target, repo), 1)
    packages.write_text(text)
    notes = bundle.path / "triton_models" / "weights" / "config.ini"
    secret = "hf_" + "a" * 34
    with notes.open("a") as file:
        file.write(f"# {secret}\n")
    told = _told(_run(make_bundle(bundle.path, tmp_path / "again"), target, repo), 1)

    assert "requirements.txt" in changed
    assert "package the model again" in changed
    assert "config.ini, line" in told
    assert secret not in told
    assert not (tmp_path / "hub").exists()
    if isinstance(hub, Giftless):
        assert not hub.stored
    if isinstance(hub, ModelScopeServer):
        assert hub.requests == []


@pytest.mark.parametrize("target", ["openxlab", "modelscope"])
def test_a_full_disk_is_named_and_a_free_one_is_enough(
    request: pytest.FixtureRequest,
    bundle: Bundle,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
) -> None:
    hub = request.getfixturevalue("git" if target == "openxlab" else "modelscope_hub")
    monkeypatch.setenv("DEPLOYTK_CACHE_DIR", str(small_disk / "cache"))
    monkeypatch.setenv("TMPDIR", str(small_disk))
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)  # room for the page's scripts, too
    (small_disk / "ballast").write_bytes(bytes(4072 * 2**10))

    told = _told(_run(bundle, target), 1)

    assert "is full" in told
    assert "free some space" in told
    if isinstance(hub, Giftless):
        assert not _refs(hub)
    (small_disk / "ballast").unlink()
    assert _run(bundle, target).returncode == 0
    # What it remembers, so as not to hash or read back again, may stay.
    left = [path for path in _files(small_disk) if path.suffix != ".sqlite" and path.parent.name != "read-back"]
    assert not left
