"""A registry that lies: whatever it says, "verified" is true only of what it really hands out."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from bases import write_base
from odd_registry import Odd, plan_with

from deploytk.base.errors import DeployError, ImageError
from deploytk.base.progress import Silent
from deploytk.base.readback import SPAN_BYTES, Remembered, is_same, spans
from deploytk.base.retry import RetryPolicy
from deploytk.image.oci import read_layout, write_layout
from deploytk.image.registry.pull import read_registry
from deploytk.image.registry.push import push_image
from deploytk.image.value import ImagePlan

KIB = 2**10
LARGE = 600 * KIB  # more than is read back whole
QUICK = RetryPolicy(attempts=3, total_s=10.0, first_s=0.01)

Lie = Callable[[bytes], bytes]


@pytest.fixture
def plan(tmp_path: Path) -> ImagePlan:
    return plan_with(LARGE, tmp_path)


def _push(plan: ImagePlan, odd: Odd, *, takes_over: bool = False) -> int:
    return push_image(plan, f"{odd.host}/a/b:1", Silent(), QUICK, takes_over=takes_over)[1]


_OTHER: dict[str, Lie] = {
    "other bytes": lambda content: bytes(len(content)),
    "cut off": lambda content: content[:-1],
    "nothing": lambda _: b"",
    "an error page": lambda _: b"<html>502 Bad Gateway</html>",
    "the end damaged": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "the start damaged": lambda content: bytes([content[0] ^ 1]) + content[1:],
    "too long": lambda content: content + b"x",
}


@pytest.mark.parametrize("lie", [name for name in _OTHER if name != "too long"])
@pytest.mark.parametrize("where", ["kept", "shown"])
def test_blobs_that_are_others_are_found_out(plan: ImagePlan, odd: Odd, where: str, lie: str) -> None:
    (odd.lies if where == "kept" else odd.shows)["blob"] = _OTHER[lie]

    for _ in range(2):  # the second time it says that it has all of them
        with pytest.raises(ImageError, match=r"other bytes under|bytes instead of"):
            _push(plan, odd)


def test_one_damaged_blob_among_all_is_found_out(plan: ImagePlan, odd: Odd) -> None:
    weights = next(layer for layer in plan.layers if layer.kind == "weights")
    odd.lies["blob"] = lambda content: bytes(len(content)) if _digest(content) == weights.digest else content

    for _ in range(2):
        with pytest.raises(ImageError, match=f"other bytes under {weights.digest[:19]}"):
            _push(plan, odd)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.mark.parametrize("lie", ["an error page", "cut off", "too long", "nothing"])
@pytest.mark.parametrize("where", ["tag", "digest"])
def test_a_manifest_that_is_another_is_found_out_whatever_its_digest_header_says(
    plan: ImagePlan, odd: Odd, where: str, lie: str
) -> None:
    odd.shows[where] = _OTHER[lie]

    for _ in range(2):
        with pytest.raises(ImageError, match="took the manifest but does not show it under"):
            _push(plan, odd, takes_over=True)


def test_a_tag_that_stays_at_an_old_image_is_found_out(plan: ImagePlan, odd: Odd) -> None:
    odd.shows["tag"] = lambda _: b'{"mediaType": "application/vnd.oci.image.manifest.v1+json"}'

    with pytest.raises(ImageError, match="does not show it under 1"):
        _push(plan, odd)


def test_a_blob_of_another_size_is_found_out_before_anything_is_sent(plan: ImagePlan, odd: Odd) -> None:
    _push(plan, odd)
    odd.sizes = lambda size: size + 1
    odd.methods.clear()

    with pytest.raises(ImageError, match="bytes instead of"):
        _push(plan, odd)

    assert not {"PUT", "PATCH", "POST"} & set(odd.methods)


def test_blobs_that_get_lost_after_the_upload_are_found_out(plan: ImagePlan, odd: Odd) -> None:
    def forget(body: bytes) -> bytes:
        odd.blobs.pop(plan.layers[0].digest)
        return body

    odd.lies["manifest"] = forget

    with pytest.raises(ImageError, match="took 1 blobs but does not show them"):
        _push(plan, odd)


def test_a_blob_of_the_image_that_was_there_and_is_gone_at_the_end_is_found_out(plan: ImagePlan, odd: Odd) -> None:
    _push(plan, odd)
    odd.manifests.clear()

    def forget(body: bytes) -> bytes:
        odd.blobs.pop(plan.layers[-1].digest)
        return body

    odd.lies["manifest"] = forget

    with pytest.raises(ImageError, match="took 1 blobs but does not show them"):
        _push(plan, odd)


@pytest.mark.parametrize("kind", ["weights", "model", "app", "card"])
def test_whatever_of_ours_was_there_before_is_read_back(
    plan: ImagePlan, odd: Odd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Not sent again, since the registry says that it has it; with another cache nobody has read it back yet."""
    _push(plan, odd)
    monkeypatch.setenv("DEPLOYTK_CACHE_DIR", str(tmp_path / "another"))
    [digest, *_] = [layer.digest for layer in plan.layers if layer.kind == kind]
    odd.blobs[digest] = bytes(len(odd.blobs[digest]))
    odd.methods.clear()

    with pytest.raises(ImageError, match=f"other bytes under {digest[:19]}"):
        _push(plan, odd)

    assert "PATCH" not in odd.methods


def test_layers_of_a_base_that_were_there_before_are_not_read(
    plan: ImagePlan, odd: Odd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _push(plan, odd)
    monkeypatch.setenv("DEPLOYTK_CACHE_DIR", str(tmp_path / "another"))
    odd.said.clear()

    _push(plan, odd)

    read = {line.split()[1].rpartition("/")[2] for line in odd.said if line.startswith("GET") and "/blobs/" in line}
    assert read == {layer.digest for layer in plan.layers if layer.kind != "base"} | {plan.image_id}


@pytest.mark.parametrize("more", [1, 10**9])
def test_more_than_was_sent_is_not_believed(plan: ImagePlan, odd: Odd, more: int) -> None:
    odd.chunk_limits = {"OCI_Chunk_Max_Length": str(64 * KIB)}
    odd.range_adds = more

    with pytest.raises(ImageError, match="and was sent"):
        _push(plan, odd)

    assert odd.manifests == {}


def test_chunks_that_are_taken_and_not_kept_end_in_words(plan: ImagePlan, odd: Odd) -> None:
    odd.chunk_limits = {"OCI_Chunk_Max_Length": str(64 * KIB)}
    odd.forgets_chunks = True

    with pytest.raises(DeployError, match="keeps nothing of them, 3 times"):
        _push(plan, odd)


def test_the_answer_to_the_last_put_may_get_lost(plan: ImagePlan, odd: Odd) -> None:
    odd.loses_put_answers = 2

    sent_bytes = _push(plan, odd)

    assert sent_bytes == sum(layer.size for layer in plan.layers) + len(plan.config)  # nothing was sent twice


def test_what_was_read_back_once_is_not_read_again(plan: ImagePlan, odd: Odd) -> None:
    _push(plan, odd)
    odd.ranges.clear()

    _push(plan, odd)

    assert odd.ranges == []


def test_samples_are_the_ends_and_something_in_between() -> None:
    assert spans(0) == ((0, 0),)
    assert spans(4 * SPAN_BYTES) == ((0, 4 * SPAN_BYTES),)
    size = 4 * SPAN_BYTES + 1
    for _ in range(50):
        first, *middle, last = spans(size)
        assert (first, last) == ((0, SPAN_BYTES), (size - SPAN_BYTES, size))
        assert all(SPAN_BYTES <= start < end <= size - SPAN_BYTES for start, end in middle)
        assert len(middle) == 2
    assert len({spans(10**9) for _ in range(5)}) == 5  # elsewhere each time


def test_a_sample_that_is_short_or_long_is_not_the_same() -> None:
    content = random.Random(2).randbytes(100)

    assert is_same(100, lambda start, end: content[start:end], lambda start, end: content[start:end])
    assert not is_same(100, lambda start, end: content[start:end], lambda start, end: content[start : end - 1])
    assert not is_same(100, lambda start, end: content[start:end], lambda *_: content + b"x")
    assert not is_same(100, lambda start, end: content[start:end], lambda *_: b"")


def test_what_was_read_back_is_remembered_by_place() -> None:
    Remembered("a").add(["1", "2"])
    Remembered("a").add(["2", "3"])

    assert Remembered("a").load() == {"1", "2", "3"}
    assert Remembered("b").load() == set()


def test_a_config_that_is_another_is_no_base(plan: ImagePlan, odd: Odd) -> None:
    _push(plan, odd)
    odd.shows["blob"] = lambda content: content + b" "  # JSON all the same

    with pytest.raises(ImageError, match="has another digest than it says"):
        read_registry(f"{odd.host}/a/b:1")


def test_a_manifest_that_an_index_names_and_is_another_is_no_base(plan: ImagePlan, odd: Odd) -> None:
    _push(plan, odd)
    platform = {"os": "linux", "architecture": "amd64"}
    kind = "application/vnd.oci.image.index.v1+json"
    index = {"mediaType": kind, "manifests": [{"digest": plan.digest, "platform": platform}]}
    odd.manifests["1"] = json.dumps(index).encode()
    assert read_registry(f"{odd.host}/a/b:1").image_id == plan.image_id
    odd.shows["digest"] = lambda content: content + b" "

    with pytest.raises(ImageError, match="has another digest than it says"):
        read_registry(f"{odd.host}/a/b:1")


def test_a_layout_whose_config_is_another_is_no_base(tmp_path: Path) -> None:
    base = write_base(tmp_path / "layout")
    image_id = read_layout(base).image_id
    config = base / "blobs" / "sha256" / image_id.removeprefix("sha256:")
    config.write_bytes(config.read_bytes() + b" ")

    with pytest.raises(ImageError, match="its config has another digest"):
        read_layout(base)


def test_a_layout_with_blobs_cut_off_or_begun_too_long_is_made_right(plan: ImagePlan, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_layout(plan, out, "1", Silent())
    first, second = (out / "blobs" / "sha256" / layer.digest.removeprefix("sha256:") for layer in plan.layers[:2])
    whole = first.read_bytes(), second.read_bytes()
    first.write_bytes(whole[0][:-1])
    second.rename(second.with_name(f".{second.name}.partial")).write_bytes(whole[1] + b"x")

    _, written = write_layout(plan, out, "1", Silent())

    assert (first.read_bytes(), second.read_bytes()) == whole
    assert written == sum(map(len, whole))


@pytest.mark.parametrize(("lie", "is_right"), [(None, True), ("the end damaged", False), ("cut off", False)])
def test_what_a_registry_hands_out_as_a_whole_only_is_read_as_a_whole(
    plan: ImagePlan, odd: Odd, monkeypatch: pytest.MonkeyPatch, lie: str | None, is_right: bool
) -> None:
    """The sample in the middle is too far in to be waited for: then the digest of all of it counts."""
    monkeypatch.setattr("deploytk.image.registry.verify._MOST_SKIPPED_BYTES", 0)
    odd.knows_ranges = False
    if lie:
        odd.shows["blob"] = lambda blob: _OTHER[lie](blob) if len(blob) > LARGE else blob

    if is_right:
        assert _push(plan, odd) > LARGE
        return
    with pytest.raises(ImageError, match="has other bytes under"):
        _push(plan, odd)
