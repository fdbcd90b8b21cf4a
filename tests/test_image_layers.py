"""Layers of our own: the bytes of Python's tarfile, made while they are read, whatever the size."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import random
import tarfile
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from bundles import make_bundle, whole_bundle
from conftest import MODELS
from hypothesis import given, settings
from hypothesis import strategies as st

from deploytk.base.errors import ImageError
from deploytk.base.progress import Advance, Silent
from deploytk.bundle import MANIFEST, Bundle, BundleFile
from deploytk.image.layers import GROUP_BYTES, MOST_LAYERS, SHARD_BYTES, Tar, _hash, make_layers
from deploytk.image.value import Layer

MIB = 2**20


def _bundle(root: Path, sizes: dict[str, int], kind: str = "weights", *, sha256: str | None = None) -> Bundle:
    """A bundle of sparse files."""
    root.mkdir(exist_ok=True)
    (root / MANIFEST).write_text("{}")
    files = []
    for path, size in sorted(sizes.items()):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        with (root / path).open("wb") as file:
            file.truncate(size)
        digest = sha256 or hashlib.sha256((root / path).read_bytes()).hexdigest()
        files.append(BundleFile(path, size, digest, kind))  # type: ignore[arg-type]
    return Bundle(root, "sparse", "sha256:0", tuple(files), {}, sum(sizes.values()), 0)


def _layers(bundle: Bundle) -> tuple[Layer, ...]:
    return make_layers(bundle, "layers", Silent())


def _content(layer: Layer, offset: int = 0) -> bytes:
    return b"".join(layer.read(offset))


def _names(layer: Layer) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(_content(layer))) as tar:
        return tar.getnames()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return whole_bundle(MODELS / "hf-awq", tmp_path / "bundle")


def test_weights_come_first_and_the_card_last(bundle: Bundle) -> None:
    layers = _layers(bundle)

    assert [layer.kind for layer in layers] == ["weights", "model", "app", "card"]
    assert _names(layers[0]) == ["bundle", "bundle/model.safetensors"]
    assert _names(layers[-1]) == ["bundle", "bundle/README.md", "bundle/README_zh.md", "bundle/deploytk.json"]
    for layer in layers:
        assert layer.digest == layer.diff_id == f"sha256:{hashlib.sha256(_content(layer)).hexdigest()}"
        assert layer.size == len(_content(layer))


def test_every_file_of_the_bundle_is_in_one_layer(bundle: Bundle) -> None:
    found: dict[str, bytes] = {}
    for layer in _layers(bundle):
        with tarfile.open(fileobj=io.BytesIO(_content(layer))) as tar:
            for member in tar.getmembers():
                assert (member.uid, member.gid, member.mtime) == (0, 0, 0)
                assert member.mode == (0o755 if member.isdir() else 0o644)
                if member.isfile():
                    assert member.name not in found
                    found[member.name] = tar.extractfile(member).read()  # type: ignore[union-attr]

    expected = {f"bundle/{f.path}": (bundle.path / f.path).read_bytes() for f in bundle.files}
    assert found == expected | {f"bundle/{MANIFEST}": (bundle.path / MANIFEST).read_bytes()}


@pytest.mark.parametrize("mode", ["mount", "download"])
def test_weights_can_be_left_out(bundle: Bundle, mode: str) -> None:
    layers = make_layers(bundle, mode, Silent())  # type: ignore[arg-type]

    assert [layer.kind for layer in layers] == ["model", "app", "card"]


_PATHS = st.lists(
    st.text("abcü.-", min_size=1, max_size=60).filter(lambda part: part not in (".", "..") and ".wh" not in part),
    min_size=1,
    max_size=4,
).map("/".join)


@settings(max_examples=60, deadline=None)
@given(
    contents=st.dictionaries(_PATHS, st.binary(max_size=1500), min_size=1, max_size=6),
    offsets=st.lists(st.integers(0, 30000), max_size=8),
)
def test_bytes_are_those_of_tarfile_from_any_offset(contents: dict[str, bytes], offsets: list[int]) -> None:
    names = {f"bundle/{path}" for path in contents}
    if any(other.startswith(f"{name}/") for name in names for other in names):
        return  # a file cannot be a directory as well
    directories = {str(parent) for name in names for parent in Path(name).parents if parent.name}
    expected = io.BytesIO()
    with tarfile.open(fileobj=expected, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(names | directories):
            info = tarfile.TarInfo(name)
            if name in directories:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            else:
                info.size = len(contents[name.removeprefix("bundle/")])
            tar.addfile(info, io.BytesIO(contents.get(name.removeprefix("bundle/"), b"")))

    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        (root / MANIFEST).write_text("{}")
        files = []
        for path, content in sorted(contents.items()):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
            files.append(BundleFile(path, len(content), hashlib.sha256(content).hexdigest(), "app"))
        layer = _layers(Bundle(root, "any", "sha256:0", tuple(files), {}, 0, 0))[0]

        assert _content(layer) == expected.getvalue()
        for offset in offsets:
            assert _content(layer, offset) == expected.getvalue()[offset:]


def test_a_large_file_has_its_own_layer_and_small_ones_share(tmp_path: Path) -> None:
    sizes = {"a.safetensors": SHARD_BYTES, "b.safetensors": SHARD_BYTES - 1, "c.safetensors": 10 * MIB}
    bundle = _bundle(tmp_path / "b", sizes)

    layers = _layers(bundle)

    own, shared, _ = layers
    assert _names(own)[1:] == ["bundle/a.safetensors"]
    assert _names(shared)[1:] == ["bundle/b.safetensors", "bundle/c.safetensors"]


def test_no_shared_layer_is_larger_than_its_limit(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path / "b", {f"{n}.weight": 60 * MIB for n in range(9)}, sha256="0" * 64)

    layers = _layers(bundle)

    # 4 x 60 MiB fit into 256 MiB: 4 + 4 + 1 files.
    assert [round(layer.size / MIB) for layer in layers[:-1]] == [240, 240, 60]
    assert all(layer.size <= GROUP_BYTES for layer in layers)


def test_a_workspace_of_hundreds_of_large_files_stays_below_what_docker_stacks(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path / "b", {f"{n:03}.weight": SHARD_BYTES for n in range(130)}, sha256="0" * 64)
    sizes = [f.size for f in bundle.files]

    from deploytk.image.layers import _groups

    groups = _groups(bundle.files, "layers")

    # Files of 64 MiB share layers of 512 MiB once the limits are doubled: 130 / 8 = 17 layers.
    assert (len(groups), sum(sizes) // MIB) == (17, 130 * 64)
    assert len(groups) < MOST_LAYERS


def test_only_the_card_changes_with_the_card(tmp_path: Path) -> None:
    from deploytk.bundle import BundleOptions

    first = _layers(whole_bundle(MODELS / "hf-awq", tmp_path / "one"))
    second = _layers(make_bundle(MODELS / "hf-awq", tmp_path / "two", BundleOptions(name="tiny", license="mit")))

    same = [one.digest == two.digest for one, two in zip(first, second, strict=True)]
    assert same == [True, True, True, False]


def test_planning_again_hashes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = _bundle(tmp_path / "b", {"w.safetensors": 16 * MIB}, sha256="0" * 64)
    hashed: list[Tar] = []

    def note(tar: Tar, advance: Advance) -> str:
        hashed.append(tar)
        return _hash(tar, advance)

    monkeypatch.setattr("deploytk.image.layers._hash", note)
    first = _layers(bundle)
    count = len(hashed)

    again = _layers(bundle)

    assert [layer.digest for layer in again] == [layer.digest for layer in first]
    assert len(hashed) == count == len(first)


def test_shuffled_times_and_places_make_no_difference(tmp_path: Path) -> None:
    bundle = make_bundle(MODELS / "hf-awq", tmp_path / "one")
    other = make_bundle(MODELS / "hf-awq", tmp_path / "two" / "deeper")
    for path in other.path.rglob("*"):
        os.utime(path, (random.random() * 1e9, random.random() * 1e9))

    assert [layer.digest for layer in _layers(bundle)] == [layer.digest for layer in _layers(other)]


def test_a_file_that_changed_is_caught_before_its_layer_is_whole(bundle: Bundle) -> None:
    weights = _layers(bundle)[0]
    path = bundle.path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.unlink()  # it is a hard link to the model
    path.write_bytes(content)

    sent: list[bytes] = []
    with pytest.raises(ImageError, match=r"model\.safetensors has changed since the image was planned"):
        sent.extend(weights.read(0))

    assert sum(map(len, sent)) < weights.size


@pytest.mark.parametrize("size", [10, 10**7])
def test_a_file_of_another_size_is_refused(bundle: Bundle, size: int) -> None:
    weights = _layers(bundle)[0]
    path = bundle.path / "model.safetensors"
    path.unlink()
    path.write_bytes(bytes(size))

    with pytest.raises(ImageError, match=r"model\.safetensors has changed"):
        _content(weights)


def _with_file(bundle: Bundle, path: str) -> Bundle:
    extra = BundleFile(path, 0, hashlib.sha256().hexdigest(), "model")
    return dataclasses.replace(bundle, files=(*bundle.files, extra))


@pytest.mark.parametrize("name", [".wh.config.json", "sub/.wh..wh..opq", ".wh.x/y"])
def test_whiteout_names_are_refused(bundle: Bundle, name: str) -> None:
    (bundle.path / name).parent.mkdir(exist_ok=True)
    (bundle.path / name).touch()

    with pytest.raises(ImageError, match=r"cannot be in an image"):
        _layers(_with_file(bundle, name))


def test_links_out_of_the_bundle_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (bundle.path / "link").symlink_to(tmp_path / "secret")

    with pytest.raises(ImageError, match="link is a link out of the bundle"):
        _layers(_with_file(bundle, "link"))


def test_pipes_and_missing_files_are_refused(bundle: Bundle) -> None:
    os.mkfifo(bundle.path / "pipe")

    with pytest.raises(ImageError, match="neither a file nor a directory"):
        _layers(_with_file(bundle, "pipe"))
    with pytest.raises(ImageError, match="cannot be read"):
        _layers(_with_file(bundle, "missing"))


def test_a_link_within_the_bundle_is_packed_as_the_file(bundle: Bundle) -> None:
    (bundle.path / "again.json").symlink_to("config.json")
    config = next(f for f in bundle.files if f.path == "config.json")
    linked = dataclasses.replace(bundle, files=(*bundle.files, dataclasses.replace(config, path="again.json")))

    model = _layers(linked)[1]

    with tarfile.open(fileobj=io.BytesIO(_content(model))) as tar:
        assert tar.getmember("bundle/again.json").isreg()


def test_sizes_and_memory_of_60_gb_of_weights(tmp_path: Path) -> None:
    """The files are sparse; their digests are given, as if they had been remembered."""
    gib = 2**30
    sizes = {f"model-{n:05}-of-00006.safetensors": 10 * gib for n in range(1, 7)}
    bundle = _bundle(tmp_path / "b", sizes, sha256="ab" * 32)
    from deploytk.base.cache import cache_directory
    from deploytk.image.layers import _draft, _groups

    (cache_directory() / "layers").mkdir(parents=True)
    for kind, files in _groups(bundle.files, "layers"):
        (cache_directory() / "layers" / _draft(bundle, kind, files).tar.recipe).write_text("cd" * 32)

    tracemalloc.start()
    layers = _layers(bundle)
    end = b"".join(layers[0].read(layers[0].size - 5 * MIB))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    # Directory 512, PAX header for a size over 8 GiB 1024, header 512, file, two blocks of zeros, padded to 10240.
    assert layers[0].size == 10 * gib + 10240 * -(-(512 + 1024 + 512 + 1024) // 10240)
    assert len(end) == 5 * MIB
    assert peak_bytes < 20 * MIB
    overhead = sum(layer.size for layer in layers) - 60 * gib
    assert overhead < 60 * gib * 0.001


def test_the_packing_never_changes_by_accident(tmp_path: Path) -> None:
    """Another digest here means that every user uploads all weights again."""
    bundle = _bundle(tmp_path / "b", {"sub/ü.weight": 700, "sub/" + "n" * 120: 5})

    layers = _layers(bundle)

    assert layers[0].digest == "sha256:ab4d85e42d3fa7d1e90bb682f4708fca50e1995c159818f6ddbb7b9e0dcb080f"
