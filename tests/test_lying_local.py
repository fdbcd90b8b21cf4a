"""A hub in a directory on a disk that lies: "verified" is true only of what is really there."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundles import given_bundle
from conftest import MODELS

from deploytk.base.digests import hash_file
from deploytk.base.errors import ReleaseError
from deploytk.base.progress import Advance, Silent
from deploytk.bundle import Bundle, read_bundle, verify_bundle
from deploytk.publish.options import PublishOptions
from deploytk.publish.record import Release
from deploytk.publish.release import publish_bundle
from deploytk.publish.targets import local
from deploytk.publish.targets.local import Local

WEIGHTS = "model.safetensors"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return given_bundle(MODELS / "hf-awq", tmp_path / "bundle")


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    return tmp_path / "hub"


def _publish(bundle: Bundle, hub: Path) -> Release:
    return publish_bundle(bundle, Local(), PublishOptions(repo=str(hub)), Silent())


def _current(hub: Path) -> Path:
    return hub / "repos" / "tiny" / "current"


def _object(hub: Path, bundle: Bundle, path: str) -> Path:
    sha256 = next(file.sha256 for file in bundle.files if file.path == path)
    return hub / "objects" / sha256[:2] / sha256[2:]


_DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "zeros": lambda content: bytes(len(content)),
    "the end": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "the start": lambda content: bytes([content[0] ^ 1]) + content[1:],
    "cut off": lambda content: content[:-1],
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("damage", _DAMAGE)
@pytest.mark.parametrize("path", [WEIGHTS, "config.json"])
def test_objects_that_rotted_and_look_unchanged_are_replaced(bundle: Bundle, hub: Path, path: str, damage: str) -> None:
    _publish(bundle, hub)
    place = _object(hub, bundle, path)
    status = place.stat()
    place.chmod(0o644)
    place.write_bytes(_DAMAGE[damage](place.read_bytes()))
    os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))

    release = _publish(bundle, hub)

    assert release.uploaded_files == 1
    verify_bundle(read_bundle(_current(hub)), Silent())
    assert hash_file(_current(hub) / path) == hash_file(bundle.path / path)


@pytest.mark.parametrize("lie", ["zeros", "the end", "cut off", "empty"])
def test_a_disk_that_writes_other_bytes_is_found_out(
    bundle: Bundle, hub: Path, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    def copy(source: Path, destination: Path, advance: Advance = lambda _: None) -> int:
        destination.write_bytes(_DAMAGE[lie](source.read_bytes()))
        return 1

    monkeypatch.setattr(local, "clone_or_copy", copy)

    with pytest.raises(ReleaseError):
        _publish(bundle, hub)

    assert not _current(hub).exists()


@pytest.mark.parametrize("lie", ["zeros", "the end", "cut off", "empty"])
def test_copies_where_there_are_no_hard_links_are_read_back(
    bundle: Bundle, hub: Path, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    def copy(source: Path, destination: Path) -> int:
        destination.parent.mkdir(parents=True, exist_ok=True)
        content = source.read_bytes()
        destination.write_bytes(_DAMAGE[lie](content) if len(content) > 10**6 else content)
        return len(content)

    monkeypatch.setattr(local, "link_or_copy", copy)

    with pytest.raises(ReleaseError, match=r"model\.safetensors is not what was sent"):
        _publish(bundle, hub)


def test_copies_that_are_right_are_verified(bundle: Bundle, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMLINK, "Too many links")

    monkeypatch.setattr(os, "link", refuse)

    assert _publish(bundle, hub).verified
    verify_bundle(read_bundle(_current(hub)), Silent())


@pytest.mark.parametrize("lie", ["a file too many", "a file missing", "a link to elsewhere", "another revision"])
def test_a_tree_that_is_not_what_was_laid_out_is_found_out(
    bundle: Bundle, hub: Path, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    show = local._show

    def spoil(repository: local._Repository, *arguments: Any, **options: Any) -> None:
        show(repository, *arguments, **options)
        if lie == "another revision":
            (repository.root / "revisions" / "other").mkdir()
            repository.current.unlink()
            repository.current.symlink_to("revisions/other")
        elif lie == "a file too many":
            (repository.current / "more.txt").write_text("more")
        else:
            (repository.current / "config.json").unlink()
            if lie == "a link to elsewhere":
                (repository.current / "config.json").symlink_to(bundle.path / "config.json")

    monkeypatch.setattr(local, "_show", spoil)

    with pytest.raises(ReleaseError, match=r"is not what was sent|does not show"):
        _publish(bundle, hub)


def test_a_tree_that_lost_all_is_laid_out_again(bundle: Bundle, hub: Path) -> None:
    _publish(bundle, hub)
    tree = _current(hub).resolve()
    shutil.rmtree(tree)
    tree.mkdir()

    assert _publish(bundle, hub).verified
    verify_bundle(read_bundle(_current(hub)), Silent())
