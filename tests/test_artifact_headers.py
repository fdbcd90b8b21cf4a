"""Large headers are read as columns, and hold what json finds in them."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from deploytk.artifact.header_scan import Scanned, list_names, scan_headers
from deploytk.artifact.shards import read_shards
from deploytk.artifact.tensors import DTYPE_BITS, Tensors
from deploytk.artifact.tree import walk
from deploytk.base.errors import ArtifactError

_LAYERS = 100


def _write(path: Path, tensors: dict[str, Any], form: str, metadata: dict[str, str] | None = None) -> Path:
    place, entries = 0, {}
    for name, (dtype, shape) in tensors.items():
        size = DTYPE_BITS[dtype] // 8
        for axis in shape:
            size *= axis
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + size]}
        place += size
    header = ({} if metadata is None else {"__metadata__": metadata}) | entries
    separators = (", ", ": ") if form == "spaced" else (",", ":")
    text = json.dumps(
        header, separators=separators, sort_keys=form == "sorted", ensure_ascii=form == "escaped"
    ).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + place)
    return path


def _scan(path: Path, tensors: Tensors, small_bytes: int) -> Scanned:
    [found] = scan_headers([path], tensors, small_bytes=small_bytes)
    if isinstance(found, ArtifactError):
        raise found
    return found


def _counts(path: Path, small_bytes: int) -> tuple[dict[Any, int], Any]:
    tensors = Tensors(_LAYERS)
    scanned = _scan(path, tensors, small_bytes)
    return dict(tensors.counts), (scanned.count, sorted(scanned.names or list_names(path) or ()))


def _random_tensors(draw: random.Random) -> dict[str, Any]:
    """Names as models have them, and others; some are used twice with other numbers."""
    stems = [
        "model.layers.{}.mlp.w1.weight",
        "h.{}.e.{}.w{}.bias",
        "{}",
        "a{}.{}b",
        "\u6a21\u578b.{}",
        "x y, {}: [",
        "\x1f{}",
    ]
    found = {}
    for _ in range(draw.randrange(1, 60)):
        numbers = [draw.choice([0, 7, 9, 10, 99, 100, 12345]) for _ in range(3)]
        dtype = draw.choice(["F16", "BF16", "F32", "I32", "F8_E4M3"])
        found[draw.choice(stems).format(*numbers)] = (dtype, [draw.randrange(9) for _ in range(draw.randrange(4))])
    return found


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt", "a}": '"{,'}], ids=["none", "empty", "full"])
@pytest.mark.parametrize("form", ["compact", "spaced", "sorted", "escaped"])
def test_columns_hold_what_json_finds(tmp_path: Path, form: str, metadata: dict[str, str] | None) -> None:
    draw = random.Random(form)
    for _ in range(20):
        path = _write(tmp_path / "m.safetensors", _random_tensors(draw), form, metadata)

        assert _counts(path, small_bytes=0) == _counts(path, small_bytes=2**30)


def test_a_header_of_many_pieces_is_one_model(tmp_path: Path) -> None:
    names = [
        f"model.layers.{layer}.mlp.experts.{expert}.{matrix}_proj.weight"
        for layer in range(102)
        for expert in range(64)
        for matrix in ("gate", "up", "down")
    ]
    tensors = {name: ("BF16", [4, 2]) for name in names}
    path = _write(tmp_path / "m.safetensors", tensors, "compact", {"format": "pt"})

    counts, (count, listed) = _counts(path, small_bytes=2**16)

    assert (count, listed) == (102 * 64 * 3, sorted(names))
    # two layers of 102 are beyond the hundred that the model has
    stem = "model.layers.#.mlp.experts.#"
    assert {(group.pattern, group.is_beyond): n for group, n in counts.items()} == {
        (f"{stem}.{matrix}_proj.weight", is_beyond): (2 if is_beyond else 100) * 64
        for matrix in ("gate", "up", "down")
        for is_beyond in (False, True)
    }


def _raw(entries: str) -> bytes:
    text = ('{"__metadata__":{},' + entries + "}").encode()
    return struct.pack("<Q", len(text)) + text


_ONE = '"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}'


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (_raw(_ONE + "," + _ONE) + bytes(4), "malformed header"),
        (_raw(_ONE + "," + _ONE.replace('"a"', '"b"')) + bytes(4), "gap or an overlap at byte 0"),
        (_raw(_ONE.replace("0,4", "2,6")) + bytes(6), "gap or an overlap at byte 2"),
        (_raw(_ONE.replace("0,4", "0,5")) + bytes(5), "holds 'a' with 5 bytes, 4 expected"),
        (_raw(_ONE.replace("F16", "Q4")) + bytes(4), "malformed entry for 'a'"),
        (_raw(_ONE.replace("[2]", "[-2]")) + bytes(4), "malformed"),
        (_raw(_ONE.replace("[2]", "[99999999999,99999999999]")) + bytes(4), "malformed entry for 'a'"),
        (_raw(_ONE.replace("0,4", ",4")) + bytes(4), "malformed header"),
        (_raw(_ONE.replace("0,4", "0.0,4")) + bytes(4), "malformed header"),
        (_raw(_ONE) + bytes(5), "bytes, "),
        (_raw("") + bytes(5), "holds no tensors"),
        (_raw('"a":' + "[" * 100_000), "malformed header"),
        (_raw('"a\\"":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}') + bytes(4), "malformed header"),
        (_raw('"a":{"shape":[2],"data_offsets":[0,4]}') + bytes(4), "malformed header"),
        (_raw('"a":3') + bytes(4), "malformed header"),
        (struct.pack("<Q", 4) + b"null", "malformed header"),
        (struct.pack("<Q", 2) + b"{}", "holds no tensors"),
        (struct.pack("<Q", 40) + b'{"__metadata__":{"a":"b' + bytes(17), "malformed header"),
    ],
    ids=range(18),
)
def test_a_large_header_that_is_broken_is_told_apart(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)

    with pytest.raises(ArtifactError, match=named):
        _scan(path, Tensors(_LAYERS), 0)


def test_a_damaged_header_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    _write(path, {f"model.layers.{i}.w.weight": ("F16", [2, i]) for i in range(9)}, "compact", {"format": "pt"})
    whole, draw = path.read_bytes(), random.Random(1)
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(draw.randrange(1, 6)):
            content[draw.randrange(8, len(content))] = draw.randrange(256)
        path.write_bytes(bytes(content))

        with contextlib.suppress(ArtifactError):
            _scan(path, Tensors(_LAYERS), 0)


def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path) -> None:
    # 640 is 0x0280, stored as 80 02, which is how a pickle begins
    text = (b'{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}').ljust(640)
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", 640) + text + bytes(4))

    assert _scan(tmp_path / "m.safetensors", Tensors(_LAYERS), 2**20).names == ("a",)


def _write_many(root: Path, files: int, each: int) -> dict[str, str]:
    """A model of so many files whose headers json would take too long for; returns its weight_map."""
    weight_map = {}
    for file in range(files):
        name = f"model-{file + 1:05}-of-{files:05}.safetensors"
        names = [f"model.layers.{file}.mlp.experts.{expert}.down_proj.weight" for expert in range(each)]
        _write(root / name, {one: ("BF16", [4, 2]) for one in names}, "compact")
        weight_map |= dict.fromkeys(names, name)
    return weight_map


def _swapped(weight_map: dict[str, str]) -> None:
    first, last = next(iter(weight_map)), next(reversed(weight_map))
    weight_map[first], weight_map[last] = weight_map[last], weight_map[first]


@pytest.mark.parametrize("indent", [2, None])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _: None, []),
        (
            _swapped,
            ["experts.0.down_proj.weight is not in model-00003", "experts.3999.down_proj.weight is not in model-00001"],
        ),
        (lambda found: found.pop(next(iter(found))), ["in model-00001-of-00003.safetensors is not in the index"]),
        (lambda found: found.update(x="model-00001-of-00003.safetensors"), ["x is not in model-00001-of-00003"]),
        (
            lambda found: found.update(x="model-00004-of-00003.safetensors"),
            ["model-00004-of-00003.safetensors is miss"],
        ),
    ],
    ids=["right", "swapped", "lost", "added", "other file"],
)
def test_a_large_index_is_compared_without_a_string_for_every_name(
    tmp_path: Path, change: Any, words: list[str], indent: int | None
) -> None:
    weight_map = _write_many(tmp_path, 3, 4000)  # 3 headers of 460 kB, an index of 1.3 MB
    change(weight_map)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index, indent=indent))

    found = read_shards(tmp_path, walk(tmp_path), 3)

    assert [problem.message for problem in found.problems if not any(word in problem.message for word in words)] == []
    assert len(found.problems) == len(words)


def test_an_index_that_has_a_name_twice_is_refused_however_large_it_is(tmp_path: Path) -> None:
    weight_map = _write_many(tmp_path, 3, 4000)
    text = json.dumps({"weight_map": weight_map}, indent=2)
    first = json.dumps(next(iter(weight_map)))
    (tmp_path / "model.safetensors.index.json").write_text(
        text.replace('"weight_map": {', f'"weight_map": {{\n    {first}: "model-00001-of-00003.safetensors",')
    )

    found = read_shards(tmp_path, walk(tmp_path), 3)

    assert "is there twice" in found.problems[0].message


def test_a_tensor_in_two_large_files_is_named(tmp_path: Path) -> None:
    _write_many(tmp_path, 3, 4000)
    shutil.copy(tmp_path / "model-00001-of-00003.safetensors", tmp_path / "model-00002-of-00003.safetensors")

    messages = [problem.message for problem in read_shards(tmp_path, walk(tmp_path), 3).problems]

    assert "is in both model-00001-of-00003.safetensors and model-00002-of-00003.safetensors" in messages[0]
    assert "4000 tensors that are there twice in all" in messages


def test_many_threads_and_pieces_are_one_header(tmp_path: Path) -> None:
    # 150 000 tensors in 17 MB of header: longer than what one thread reads
    names = [f"model.layers.{place // 1000}.mlp.experts.{place % 1000}.down_proj.weight" for place in range(150_000)]
    path = _write(tmp_path / "m.safetensors", {name: ("U8", [1]) for name in names}, "compact")
    tensors = Tensors(149)

    [scanned] = scan_headers([path], tensors)

    assert isinstance(scanned, Scanned)
    assert scanned.count == 150_000
    assert {group.is_beyond: count for group, count in tensors} == {False: 149_000, True: 1000}
