"""A git server that lies: "verified" is true only of what a clone would get."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundles import given_bundle
from conftest import MODELS
from git_server import GitServer
from lies import LIES
from lying_server import Asked, lying, plain

from deploytk.base.errors import DeployError, ReleaseError, TryAgainError
from deploytk.base.progress import Silent
from deploytk.bundle import Bundle
from deploytk.publish.options import PublishOptions
from deploytk.publish.record import Release
from deploytk.publish.release import publish_bundle
from deploytk.publish.targets.openxlab import OpenXLab, verify
from deploytk.publish.targets.openxlab.git import Git

REPO = "me/tiny"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return given_bundle(MODELS / "hf-awq", tmp_path / "bundle")


def _publish(bundle: Bundle) -> Release:
    return publish_bundle(bundle, OpenXLab(patience_s=1.0), PublishOptions(repo=REPO), Silent())


def _git(git_hub: GitServer, *arguments: str) -> str:
    place = git_hub.root / f"{REPO}.git"
    return subprocess.run(["git", *arguments], cwd=place, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("lie", LIES)
def test_objects_that_are_others_are_found_out_again_and_again(git_hub: GitServer, bundle: Bundle, lie: str) -> None:
    git_hub.shows = LIES[lie]

    for _ in range(2):  # the second time nothing is to be sent
        with pytest.raises(ReleaseError, match="with other bytes than were sent"):
            _publish(bundle)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_an_address_that_has_run_out_before_it_is_read_is_asked_for_anew(
    git_hub: GitServer, bundle: Bundle, status: int
) -> None:
    """Reading back takes longer than some servers' addresses hold: 60 s for giftless's."""

    def run_out(item: dict[str, Any]) -> dict[str, Any]:
        if "GET" not in git_hub.faults:
            git_hub.faults["GET"] = [status]
        return item

    git_hub.lies_of_downloads = run_out

    assert _publish(bundle).verified
    assert git_hub.faults["GET"] == []


def test_an_object_that_is_never_handed_out_is_asked_for_twice_only(git_hub: GitServer, bundle: Bundle) -> None:
    def run_out(item: dict[str, Any]) -> dict[str, Any]:
        git_hub.faults["GET"] = [401] * 8
        return item

    git_hub.lies_of_downloads = run_out

    with pytest.raises(ReleaseError, match=r"says that it has .*, and answers 401 for it"):
        _publish(bundle)


@pytest.mark.parametrize("lie", ["size", "error", "no action"])
def test_an_object_that_is_not_as_it_should_be_is_found_out(git_hub: GitServer, bundle: Bundle, lie: str) -> None:
    def change(item: dict[str, object]) -> dict[str, object]:
        if lie == "size":
            return item | {"size": 5}
        return item | ({"error": {"code": 404}} if lie == "error" else {"actions": {}})

    git_hub.lies_of_downloads = change

    with pytest.raises(ReleaseError, match=r"lost .* LFS objects are not there"):
        _publish(bundle)


@pytest.mark.parametrize(
    "answer", [b"[]", b"{}", b"<html>", b'{"objects": 5}', b'{"objects": [5]}', b'{"objects": [{}]}']
)
def test_a_batch_that_is_none_is_no_traceback(git_hub: GitServer, bundle: Bundle, answer: bytes) -> None:
    git_hub.batch_answers = answer

    with pytest.raises(ReleaseError):
        _publish(bundle)


def test_a_push_that_went_to_another_branch_is_found_out(git_hub: GitServer, bundle: Bundle) -> None:
    """It takes the push, and afterwards only another branch is at our commit."""

    def move() -> None:
        commit = _git(git_hub, "rev-parse", "main")
        _git(git_hub, "update-ref", "refs/heads/other", commit)
        _git(git_hub, "update-ref", "-d", "refs/heads/main")

    git_hub.after["push"] = move

    with pytest.raises(ReleaseError, match="shows main at no commit"):
        _publish(bundle)


def test_a_branch_that_stays_at_the_commit_before_is_found_out(
    git_hub: GitServer, bundle: Bundle, tmp_path: Path
) -> None:
    first = _publish(bundle).revision

    def move() -> None:
        _git(git_hub, "update-ref", "refs/heads/main", first)

    git_hub.after["push"] = move

    with pytest.raises(DeployError, match=f"shows main at {first}"):
        _publish(given_bundle(MODELS / "workspace-0.4.2-awq", tmp_path / "other"))


def test_a_branch_that_hands_out_another_commit_than_it_lists_is_found_out(
    git_hub: GitServer, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = verify.default_branch

    def list_and_move(git: Git) -> tuple[str, str | None]:
        found = listed(git)
        author = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.com")
        commit = _git(git_hub, *author, "commit-tree", "main^{tree}", "-m", "another with the same files")
        _git(git_hub, "update-ref", "refs/heads/main", commit)
        return found

    monkeypatch.setattr(verify, "default_branch", list_and_move)

    with pytest.raises(ReleaseError, match=r"hands out [0-9a-f]{40} as main, not"):
        _publish(bundle)


def test_another_branch_becoming_the_default_is_found_out(git_hub: GitServer, bundle: Bundle) -> None:
    def move() -> None:
        _git(git_hub, "update-ref", "refs/heads/other", _git(git_hub, "rev-parse", "main"))
        _git(git_hub, "symbolic-ref", "HEAD", "refs/heads/other")

    git_hub.after["push"] = move

    with pytest.raises(ReleaseError, match="shows other at"):
        _publish(bundle)


def test_a_commit_without_its_content_is_found_out_again_and_again(git_hub: GitServer, bundle: Bundle) -> None:
    """The reference is there, an object of it is not: a clone would fail."""

    def lose() -> None:
        blob = _git(git_hub, "rev-parse", "main:config.json")
        place = git_hub.root / f"{REPO}.git"
        for pack in place.glob("objects/pack/*.pack"):
            content = pack.read_bytes()
            pack.unlink()
            pack.with_suffix(".idx").unlink()
            subprocess.run(["git", "unpack-objects", "-q"], cwd=place, input=content, check=True)
        (place / "objects" / blob[:2] / blob[2:]).unlink()

    git_hub.after["push"] = lose

    for _ in range(2):
        with pytest.raises((ReleaseError, TryAgainError)):
            _publish(bundle)


def test_what_was_read_back_once_is_not_read_again(git_hub: GitServer, bundle: Bundle) -> None:
    _publish(bundle)
    git_hub.requests.clear()

    _publish(bundle)

    assert [call for call in git_hub.requests if call.startswith("GET") and "/objects/" in call] == []


def test_an_object_that_was_sent_but_the_answer_lost_is_sent_once(git_hub: GitServer, bundle: Bundle) -> None:
    git_hub.faults["PUT"] = ["lose"]

    _publish(bundle)

    assert len(git_hub.stored) == len(set(git_hub.stored))


def test_objects_that_are_handed_out_elsewhere_are_asked_for_without_the_token(
    git_hub: GitServer, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(bundle)
    monkeypatch.setenv("DEPLOYTK_CACHE_DIR", str(tmp_path / "another"))  # what was read back is not remembered
    told: list[bytes] = []

    def listen(asked: Asked, send: Callable[[bytes], None]) -> None:
        told.append(asked.head.lower())
        send(plain(b"x"))

    with lying(listen) as storage:
        git_hub.objects_at, git_hub.echoes_login = storage, False
        with pytest.raises(ReleaseError, match="with other bytes than were sent"):
            _publish(bundle)

    assert any(head.startswith(b"get ") for head in told)
    assert not any(b"authorization" in head or b"cookie" in head for head in told)
