"""OCI layouts: written without a copy too many, continued after a kill, read as bases."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from bases import digest_of, write_base
from bundles import whole_bundle
from conftest import MODELS

from deploytk.base.errors import ImageError, TryAgainError
from deploytk.base.files import locked
from deploytk.base.progress import Silent
from deploytk.bundle import Bundle
from deploytk.image.config import plan_image
from deploytk.image.oci import read_layout, write_layout
from deploytk.image.value import BuildOptions, ImagePlan, Layer


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return whole_bundle(MODELS / "hf-awq", tmp_path / "bundle")


@pytest.fixture
def plan(bundle: Bundle, tmp_path: Path) -> ImagePlan:
    return plan_image(bundle, read_layout(write_base(tmp_path / "base")), BuildOptions(tag="tiny:1"), Silent())


def _blobs(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / "blobs/sha256").iterdir()}


def test_what_was_written_is_an_image_again(plan: ImagePlan, tmp_path: Path) -> None:
    layers, written = write_layout(plan, tmp_path / "out", "tiny:1", Silent())

    read = read_layout(tmp_path / "out", "tiny:1")
    assert read.image_id == plan.image_id
    assert [layer.digest for layer in read.layers] == [layer.digest for layer in plan.layers]
    assert written == sum(layer.size for layer in plan.layers)
    assert not any(layer.reused for layer in layers)
    for name, content in _blobs(tmp_path / "out").items():
        assert hashlib.sha256(content).hexdigest() == name
    for layer in read.layers:
        assert digest_of(b"".join(layer.read(0))) == layer.digest


def test_writing_again_writes_nothing(plan: ImagePlan, tmp_path: Path) -> None:
    write_layout(plan, tmp_path / "out", "tiny:1", Silent())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/blobs/sha256").iterdir()}

    layers, written = write_layout(plan, tmp_path / "out", "tiny:1", Silent())

    assert written == 0
    assert all(layer.reused for layer in layers)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out/blobs/sha256").iterdir()} == before


def test_two_tags_live_in_one_layout(plan: ImagePlan, tmp_path: Path) -> None:
    write_layout(plan, tmp_path / "out", "tiny:1", Silent())
    write_layout(plan, tmp_path / "out", "tiny:2", Silent())
    write_layout(plan, tmp_path / "out", "tiny:2", Silent())

    assert read_layout(tmp_path / "out", "tiny:1").image_id == read_layout(tmp_path / "out", "tiny:2").image_id
    with pytest.raises(ImageError, match="has 2 images") as raised:
        read_layout(tmp_path / "out")
    assert "tiny:1, tiny:2" in raised.value.hint


def _killed_while_writing(plan: ImagePlan, out: Path, after_chunks: int) -> None:
    """Write in a child that kills itself in the middle of the weights."""

    def dying(layer: Layer) -> Layer:
        def read(offset: int) -> Iterator[bytes]:
            for number, chunk in enumerate(layer.read(offset)):
                if number == after_chunks:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield chunk

        return dataclasses.replace(layer, read=read) if layer.kind == "weights" else layer

    child = os.fork()
    if not child:
        write_layout(dataclasses.replace(plan, layers=tuple(map(dying, plan.layers))), out, "tiny:1", Silent())
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_a_layer_is_continued_where_a_kill_cut_it_off(plan: ImagePlan, tmp_path: Path) -> None:
    _killed_while_writing(plan, tmp_path / "out", 6)
    assert not (tmp_path / "out/index.json").exists()

    _, written = write_layout(plan, tmp_path / "out", "tiny:1", Silent())

    # The first of six chunks is the header, the others have 256 KiB; the base's two small layers were there.
    base_bytes = sum(layer.size for layer in plan.layers[:2])
    rest = sum(layer.size for layer in plan.layers) - base_bytes - written
    assert 3 * 2**18 <= rest <= 5 * 2**18
    assert read_layout(tmp_path / "out").image_id == plan.image_id
    assert not [name for name in _blobs(tmp_path / "out") if name.startswith(".")]


def test_a_damaged_rest_is_found_and_written_anew(plan: ImagePlan, tmp_path: Path) -> None:
    _killed_while_writing(plan, tmp_path / "out", 6)
    (rest,) = (tmp_path / "out/blobs/sha256").glob(".*.partial")
    rest.write_bytes(b"x" * rest.stat().st_size)

    with pytest.raises(ImageError, match="was not what was planned"):
        write_layout(plan, tmp_path / "out", "tiny:1", Silent())
    write_layout(plan, tmp_path / "out", "tiny:1", Silent())

    assert read_layout(tmp_path / "out").image_id == plan.image_id


def test_a_directory_with_other_files_is_not_touched(plan: ImagePlan, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("x")

    with pytest.raises(ImageError, match="not empty and no OCI layout"):
        write_layout(plan, tmp_path / "out", "tiny:1", Silent())

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_a_tag_of_somebody_else_is_not_moved(plan: ImagePlan, tmp_path: Path) -> None:
    write_base(tmp_path / "out", name="theirs:1")
    before = (tmp_path / "out/index.json").read_text()

    with pytest.raises(ImageError, match="has theirs:1 already, and not from deploytk"):
        write_layout(plan, tmp_path / "out", "theirs:1", Silent())

    assert (tmp_path / "out/index.json").read_text() == before
    write_layout(plan, tmp_path / "out", "tiny:1", Silent())
    assert read_layout(tmp_path / "out", "theirs:1").reference == "theirs:1"


def test_two_writers_do_not_meet(plan: ImagePlan, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out/.lock", "out"), pytest.raises(TryAgainError):
        write_layout(plan, tmp_path / "out", "tiny:1", Silent())


def test_a_full_disk_is_said_and_leaves_no_image(plan: ImagePlan, small_disk: Path) -> None:
    with pytest.raises(ImageError, match=r"the disk of .* is full"):
        write_layout(plan, small_disk / "out", "tiny:1", Silent())

    assert not (small_disk / "out/index.json").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda base: (base / "index.json").unlink(), "has no index.json"),
        (lambda base: (base / "index.json").write_text("[]"), "cannot be read"),
        (lambda base: (base / "index.json").write_text("{"), "cannot be read"),
        (lambda base: (base / "index.json").write_text('{"manifests": [{"digest": "../../x"}]}'), "is no digest"),
        (lambda base: [path.unlink() for path in (base / "blobs/sha256").iterdir()], "has no blobs"),
        (lambda base: max((base / "blobs/sha256").iterdir(), key=lambda p: p.stat().st_size).write_bytes(b"x"), "cut"),
    ],
)
def test_damaged_layouts_are_refused(tmp_path: Path, damage: object, message: str) -> None:
    base = write_base(tmp_path / "base")
    damage(base)  # type: ignore[operator]

    with pytest.raises(ImageError, match=message):
        read_layout(base)


def test_a_damaged_layer_is_found_when_it_is_read(tmp_path: Path) -> None:
    directory = write_base(tmp_path / "base")
    base = read_layout(directory)
    place = directory / "blobs/sha256" / base.layers[0].digest[7:]
    place.write_bytes(b"x" * place.stat().st_size)

    with pytest.raises(ImageError, match="digest differs"):
        list(base.layers[0].read(0))


def test_an_index_per_platform_is_followed(tmp_path: Path) -> None:
    directory = write_base(tmp_path / "base")
    (entry,) = json.loads((directory / "index.json").read_text())["manifests"]
    inner = {"manifests": [{**entry, "platform": {"os": "linux", "architecture": "amd64"}}]}
    content = json.dumps({"mediaType": "application/vnd.oci.image.index.v1+json", **inner}).encode()
    (directory / "blobs/sha256" / digest_of(content)[7:]).write_bytes(content)
    (directory / "index.json").write_text(json.dumps({"manifests": [{"digest": digest_of(content)}]}))

    assert len(read_layout(directory).layers) == 2
