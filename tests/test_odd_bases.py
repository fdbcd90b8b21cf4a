"""Bases whose descriptions are odd in any place: read, or refused in a sentence."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bases import Special, layer_tar, write_base

from deploytk.base.errors import ImageError
from deploytk.image.base_config import read_config
from deploytk.image.entry import check_platform, entry_of
from deploytk.image.oci import read_layout
from deploytk.image.tree import Tree, read_tree
from deploytk.image.value import Layer

ODD: tuple[Any, ...] = (
    None, True, -1, 1.5, 10**400, "x", "\u202e", "../../etc/passwd", [], [None], [[]], ["x", 1], {}, {"x": None},
    {"": []},
)  # fmt: skip
CONFIG = (
    ("os",), ("architecture",), ("config",), ("rootfs",), ("history",), ("rootfs", "diff_ids"),
    *(("config", key) for key in ("Env", "Cmd", "Entrypoint", "WorkingDir", "Labels", "Volumes")),
)  # fmt: skip
MANIFEST = (
    ("mediaType",), ("config",), ("config", "digest"), ("layers",), ("layers", 0), ("layers", 0, "digest"),
    ("layers", 0, "size"), ("layers", 0, "mediaType"),
)  # fmt: skip
INDEX = (
    ("manifests",), ("manifests", 0), ("manifests", 0, "digest"), ("manifests", 0, "annotations"),
    ("manifests", 0, "mediaType"), ("manifests", 0, "platform"),
)  # fmt: skip
Place = tuple[Any, ...]


def _with(value: Any, place: Place, to: Any) -> Any:
    """`value` with another one at `place`."""
    if not place:
        return to
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = _with(copy.get(place[0], {}) if isinstance(copy, dict) else copy[place[0]], place[1:], to)
    return copy


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base") / "layout")


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / "sha256" / digest.removeprefix("sha256:")


def _kept(layout: Path, value: Any) -> str:
    content = json.dumps(value).encode()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    _blob(layout, digest).write_bytes(content)
    return digest


@contextlib.contextmanager
def _changed(layout: Path, which: str, place: Place, to: Any) -> Iterator[None]:
    """The layout with something else at that place, and digests that are right."""
    whole = (layout / "index.json").read_text()
    index = json.loads(whole)
    manifest = json.loads(_blob(layout, index["manifests"][0]["digest"]).read_text())
    config = json.loads(_blob(layout, manifest["config"]["digest"]).read_text())
    config = _with(config, place, to) if which == "config" else config
    if which == "config":
        manifest["config"]["digest"] = _kept(layout, config)
    manifest = _with(manifest, place, to) if which == "manifest" else manifest
    index["manifests"][0]["digest"] = _kept(layout, manifest)
    index = _with(index, place, to) if which == "index" else index
    (layout / "index.json").write_text(json.dumps(index))
    yield
    (layout / "index.json").write_text(whole)


@pytest.mark.parametrize(
    ("which", "places"),
    [("config", CONFIG), ("manifest", MANIFEST), ("index", INDEX)],
    ids=["config", "manifest", "index"],
)
def test_whatever_a_description_has_in_any_place_is_no_traceback(
    layout: Path, which: str, places: tuple[Place, ...], record_property: Callable[[str, object], None]
) -> None:
    record_property("inputs", len(places) * len(ODD))
    for place in places:
        for value in ODD:
            with _changed(layout, which, place, value), contextlib.suppress(ImageError):
                base = read_layout(layout)
                check_platform(base)
                entry_of(base)
                assert all(isinstance(label, str) for label in (_run(base.config).get("Labels") or {}).values())


def _run(config: bytes) -> dict[str, Any]:
    return json.loads(config).get("config") or {}


@pytest.mark.parametrize("key", ["Env", "Cmd", "Entrypoint", "Labels"])
def test_a_key_of_another_kind_is_named(key: str) -> None:
    config = {"config": {key: 5}, "rootfs": {"diff_ids": []}}

    with pytest.raises(ImageError, match=f"{key} in its configuration is malformed"):
        read_config("runtime:1", json.dumps(config).encode())


def _layer(tar: bytes) -> Layer:
    digest = f"sha256:{hashlib.sha256(tar).hexdigest()}"
    return Layer(
        digest, digest, len(tar), "base", "application/vnd.oci.image.layer.v1.tar", "a layer", lambda _: iter([tar])
    )


def _tree(tar: bytes) -> Tree:
    return read_tree([_layer(tar)])


@pytest.mark.parametrize("target", [".", "usr", "usr/..", "/"])
def test_a_hard_link_to_a_directory_makes_no_directory_without_end(target: str) -> None:
    tree = _tree(layer_tar({"usr/a": b"x", "usr/again": Special(link=target, is_hard=True)}))

    assert not tree.has_file_called("nothing")
    assert tree.find("/usr/again/usr/a") is None


@pytest.mark.parametrize("depth", [200, 5000])
def test_a_path_that_no_system_takes_is_read_or_refused(depth: int) -> None:
    tar = layer_tar({"a/" * depth + "b": b""})

    if depth > 4096 // 2:
        with pytest.raises(ImageError, match="cannot be read"):
            _tree(tar)
    else:
        assert _tree(tar).has_file_called("b")


@pytest.mark.parametrize("notes", [{"GNU.sparse.map": "x,y"}, {"GNU.sparse.map": "9" * 5000}, {"size": "9" * 5000}])
def test_notes_in_a_tar_that_are_no_numbers_are_no_traceback(notes: dict[str, str]) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a")
        info.pax_headers = {**notes, "GNU.sparse.size": "1", "GNU.sparse.name": "a"}
        tar.addfile(info)

    with contextlib.suppress(ImageError):
        _tree(content.getvalue())
