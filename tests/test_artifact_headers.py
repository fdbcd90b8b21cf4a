"""Large headers are read as columns, and hold what json finds in them."""

from __future__ import annotations

import contextlib
import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from deploytk.artifact.header_scan import scan_header
from deploytk.artifact.tensors import DTYPE_BITS, Tensors
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


def _counts(path: Path, small_bytes: int) -> tuple[dict[Any, int], Any]:
    tensors = Tensors(_LAYERS)
    scanned = scan_header(path, tensors, small_bytes=small_bytes)
    return dict(tensors.counts), (scanned.count, sorted(scanned.names or ()))


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
        scan_header(path, Tensors(_LAYERS), small_bytes=0)


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
            scan_header(path, Tensors(_LAYERS), small_bytes=0)


def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path) -> None:
    # 640 is 0x0280, stored as 80 02, which is how a pickle begins
    text = (b'{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}').ljust(640)
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", 640) + text + bytes(4))

    assert scan_header(tmp_path / "m.safetensors", Tensors(_LAYERS)).names == ("a",)
