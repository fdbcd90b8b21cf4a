"""OpenXLab's git way against git's own HTTP backend, lighttpd's accounts and giftless."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import as_shown_on, make_bundle, whole_bundle
from conftest import MODELS
from giftless_server import TOKEN, USER, Giftless, giftless_server, is_here

from deploytk.base.errors import ReleaseError, TryAgainError
from deploytk.base.progress import Silent
from deploytk.bundle import Bundle, BundleOptions, read_bundle, verify_bundle
from deploytk.publish.options import PublishOptions
from deploytk.publish.record import Release
from deploytk.publish.release import publish_bundle
from deploytk.publish.targets.openxlab import OpenXLab

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Giftless]:
    if not is_here():
        if os.environ.get("CI") or os.environ.get("DEPLOYTK_REQUIRE_SERVICES"):
            pytest.fail("git-lfs or lighttpd is not installed")
        pytest.skip("needs git-lfs and lighttpd")
    with giftless_server(tmp_path / "server") as server:
        server.create("tiny")
        monkeypatch.setenv("OPENXLAB_GIT_ENDPOINT", server.url)
        monkeypatch.setenv("OPENXLAB_USERNAME", USER)
        monkeypatch.setenv("OPENXLAB_GIT_TOKEN", TOKEN)
        yield server


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return whole_bundle(MODELS / "workspace-0.4.2-awq", tmp_path / "bundle")


def _publish(bundle: Bundle, patience_s: float = 3.0) -> Release:
    return publish_bundle(bundle, OpenXLab(patience_s=patience_s), PublishOptions(repo="me/tiny"), Silent())


def _git(*arguments: str) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    return subprocess.run(["git", *arguments], env=environment, check=True, capture_output=True, text=True).stdout


def _repository(server: Giftless) -> str:
    return str(server.root / "git" / "me" / "tiny.git")


def test_a_clone_is_the_bundle_again(server: Giftless, bundle: Bundle, tmp_path: Path) -> None:
    release = _publish(bundle)

    address = server.url.replace("//", f"//{USER}:{TOKEN}@")
    filters = (
        "filter.lfs.process=git-lfs filter-process",
        "filter.lfs.required=true",
        "filter.lfs.smudge=git-lfs smudge",
    )
    kept = [word for setting in filters for word in ("--config", setting)]
    _git("clone", "-q", *kept, f"{address}/me/tiny.git", str(tmp_path / "clone"))
    clone = read_bundle(tmp_path / "clone")
    assert clone.digest == as_shown_on(bundle, "openxlab", "me/tiny").digest
    verify_bundle(clone, Silent())
    assert release.verified


def test_publishing_again_and_one_change_send_what_they_must(server: Giftless, bundle: Bundle, tmp_path: Path) -> None:
    _publish(bundle)
    puts = len(server.puts)

    again = _publish(bundle)
    assert (again.uploaded_files, len(server.puts)) == (0, puts)

    other = make_bundle(
        MODELS / "workspace-0.4.2-awq", tmp_path / "other", BundleOptions(name="tiny", license="mit", app="api")
    )
    changed = _publish(other)
    assert changed.uploaded_files == 5  # README.md, README_en.md, requirements.txt, metafile.yml, deploytk.json
    assert len(server.puts) == puts
    assert _git("-C", _repository(server), "rev-list", "--count", "main").strip() == "2"


def test_what_a_crash_of_the_server_cut_off_is_sent_again(server: Giftless, bundle: Bundle) -> None:
    """giftless then answers 422 for the whole list of objects."""
    _publish(bundle)
    whole = {path: path.read_bytes() for path in server.files}
    for path in whole:
        path.write_bytes(path.read_bytes()[:10])

    release = _publish(bundle)

    assert release.verified
    assert len(whole) > 1
    assert {path: path.read_bytes() for path in server.files} == whole


def test_a_wrong_token_is_named(server: Giftless, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENXLAB_GIT_TOKEN", "wrong")

    with pytest.raises(ReleaseError, match="does not take the token of me"):
        _publish(bundle)


def test_a_repository_that_is_not_there_is_explained(server: Giftless, bundle: Bundle) -> None:
    with pytest.raises(ReleaseError, match="has no repository me/other") as caught:
        publish_bundle(bundle, OpenXLab(patience_s=1.0), PublishOptions(repo="me/other"), Silent())

    assert "创建模型" in caught.value.hint


def test_an_lfs_server_that_dies_leaves_the_branch_alone_and_gets_the_rest_later(
    server: Giftless, bundle: Bundle
) -> None:
    def kill() -> None:
        deadline = time.monotonic() + 20
        while not server.stored and time.monotonic() < deadline:
            time.sleep(0.005)
        server.stop_lfs()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(TryAgainError, match=r"does not answer|answers 503"):
        _publish(bundle, patience_s=1.0)
    killer.join()
    assert not _git("-C", _repository(server), "for-each-ref")
    there = set(server.stored)

    server.start_lfs()
    release = _publish(bundle)

    assert there
    assert release.verified
    assert len(server.puts) - len(set(server.puts)) <= 1
