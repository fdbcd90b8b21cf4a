"""What is said to a registry, request by request: what the specification asks for, in its order, and no more."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from odd_registry import Odd, odd_registry, plan_with

from deploytk.base.errors import DeployError, ImageError
from deploytk.base.progress import Silent
from deploytk.base.retry import RetryPolicy
from deploytk.image.reference import parse_reference
from deploytk.image.registry.connection import Connection
from deploytk.image.registry.pull import read_registry
from deploytk.image.registry.push import push_image
from deploytk.image.registry.refusals import refusal
from deploytk.image.registry.sessions import MountSources
from deploytk.image.registry.upload import push_blob
from deploytk.image.registry.verify import _limited
from deploytk.image.value import ImagePlan, Layer

KIB = 2**10
CHUNK = 64 * KIB
LARGE = 3 * CHUNK + 1  # of which a chunk of one byte is left
QUICK = RetryPolicy(attempts=3, first_s=0.01)
DIGEST = f"sha256:{'0' * 64}"


@pytest.fixture
def odd(odd: Odd) -> Odd:
    odd.chunk_limits = {"OCI_Chunk_Max_Length": str(CHUNK)}
    return odd


@pytest.fixture
def plan(tmp_path: Path) -> ImagePlan:
    return plan_with(LARGE, tmp_path)


def _push(plan: ImagePlan, odd: Odd) -> int:
    return push_image(plan, f"{odd.host}/a/b:1", Silent(), QUICK)[1]


def _blobs(plan: ImagePlan) -> dict[str, int]:
    """Digest -> size, the config among them."""
    return {layer.digest: layer.size for layer in plan.layers} | {plan.image_id: len(plan.config)}


def _sends(size: int) -> Iterator[str]:
    """What brings a blob of so many bytes there, in chunks and a last request that names the digest."""
    yield "POST /v2/a/b/blobs/uploads/ -> 202"
    for start in range(0, size, CHUNK):
        yield f"PATCH upload {start}-{min(start + CHUNK, size) - 1} -> 202"
    yield "PUT upload -> 201"


def _said(odd: Odd) -> Counter[str]:
    """All but what was read back, whose places are drawn anew each time."""
    heard = [line for line in odd.said if not line.startswith("GET /v2/a/b/blobs/sha256:")]
    return Counter(
        f"{line.partition(' ')[0]} upload {line.partition(' ')[2].partition(' ')[2]}" if "/uploads/u" in line else line
        for line in heard
    )


def test_a_push_asks_sends_names_and_looks(plan: ImagePlan, odd: Odd) -> None:
    _push(plan, odd)

    wanted = Counter({"GET /v2/a/b/manifests/1 -> 404": 1, "PUT /v2/a/b/manifests/1 -> 201": 1})
    for digest, size in _blobs(plan).items():
        # Which are missing, once more for the one that is sent next, and at the end whether it is there.
        wanted += Counter([f"HEAD /v2/a/b/blobs/{digest} -> 404"] * 2 + [f"HEAD /v2/a/b/blobs/{digest} -> 200"])
        wanted += Counter(_sends(size))
    wanted += Counter([f"GET /v2/a/b/manifests/{name} -> 200" for name in (plan.digest, "1")])
    assert _said(odd) == wanted
    # The manifest comes when all that it names is there.
    [named] = [at for at, line in enumerate(odd.said) if line.startswith("PUT /v2/a/b/manifests/")]
    assert not any(line.startswith(("POST", "PATCH", "PUT")) for line in odd.said[named + 1 :])
    # What was sent was looked at, by its bytes.
    read = {line.split()[1].rpartition("/")[2] for line in odd.said if line.startswith("GET /v2/a/b/blobs/")}
    assert read == set(_blobs(plan))


def test_a_push_of_what_is_there_sends_nothing_and_names_nothing(plan: ImagePlan, odd: Odd) -> None:
    _push(plan, odd)
    odd.said.clear()

    assert _push(plan, odd) == 0

    wanted = Counter([f"HEAD /v2/a/b/blobs/{digest} -> 200" for digest in _blobs(plan)] * 2)
    wanted += Counter({"GET /v2/a/b/manifests/1 -> 200": 2, f"GET /v2/a/b/manifests/{plan.digest} -> 200": 1})
    assert _said(odd) == wanted


def test_a_manifest_that_was_taken_and_is_not_there_is_found_out(plan: ImagePlan, odd: Odd) -> None:
    class Forgetful(dict[str, bytes]):
        def __ior__(self, other: object) -> Forgetful:  # type: ignore[override, misc]
            return self

    odd.manifests = Forgetful()

    with pytest.raises(ImageError, match="took the manifest but does not show it under sha256:"):
        _push(plan, odd)


def test_a_base_is_its_manifest_and_its_config_until_its_layers_are_read(plan: ImagePlan, odd: Odd) -> None:
    _push(plan, odd)
    odd.said.clear()

    base = read_registry(f"{odd.host}/a/b:1")
    assert odd.said == ["GET /v2/a/b/manifests/1 -> 200", f"GET /v2/a/b/blobs/{plan.image_id} -> 200"]

    odd.said.clear()
    layer = base.layers[0]
    assert b"".join(layer.read(0)) == b"".join(plan.layers[0].read(0))
    assert b"".join(layer.read(5)) == b"".join(plan.layers[0].read(5))
    blob = f"/v2/a/b/blobs/{layer.digest}"
    assert odd.said == [f"HEAD {blob} -> 200", f"GET {blob} -> 200"]  # once: the second time it is in the cache


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_whichever_redirect_leads_to_the_storage_is_followed(plan: ImagePlan, odd: Odd, status: int) -> None:
    with odd_registry() as storage:
        storage.blobs = odd.blobs
        odd.requests_per_token, odd.storage, odd.storage_status = 1000, f"http://{storage.host}", status

        _push(plan, odd)  # which reads back what it sent
        content = b"".join(read_registry(f"{odd.host}/a/b:1").layers[0].read(0))

    assert content == b"".join(plan.layers[0].read(0))
    read = {line.split()[1].rpartition("/")[2] for line in storage.said if line.startswith("GET")}
    assert read == set(_blobs(plan))


def test_an_upload_that_was_cut_off_is_asked_how_far_it_came(plan: ImagePlan, odd: Odd) -> None:
    layer = max(plan.layers, key=lambda layer: layer.size)
    odd.chunk_answer, odd.chunks_before = 403, 2
    with Connection(parse_reference(f"{odd.host}/a/b:1"), None, QUICK) as connection:
        with pytest.raises(ImageError, match="does not allow"):
            push_blob(connection, layer, lambda _: None, lambda: False)
        odd.chunk_answer = 202
        odd.said.clear()

        push_blob(connection, layer, lambda _: None, lambda: False)

    _, _, _, *rest = _sends(layer.size)  # without the beginning and two chunks
    assert _said(odd) == Counter([f"HEAD /v2/a/b/blobs/{layer.digest} -> 404", "GET upload -> 204", *rest])


def test_every_blob_is_remembered_for_other_repositories() -> None:
    sources = MountSources("registry.example")
    for number in (1, 2, 2):
        sources.remember(f"sha256:{number}", f"a/{number}")

    assert [sources.of(f"sha256:{number}") for number in (1, 2, 3)] == ["a/1", "a/2", None]
    assert MountSources("other.example").of("sha256:1") is None


def test_nothing_is_waited_for_beyond_what_is_wanted() -> None:
    def endless() -> Iterator[bytes]:
        yield b"abc"
        yield b"def"
        raise AssertionError("a server that goes on for ever was read on")

    assert b"".join(_limited(endless(), 3)) == b"abc"
    assert b"".join(_limited(endless(), 6)) == b"abcdef"
    assert b"".join(_limited(endless(), 4)) == b"abcd"


def test_the_first_of_several_reasons_is_told() -> None:
    reference = parse_reference("registry.example/a/b:1")
    answer = httpx.Response(
        400,
        json={"errors": [{"message": "the first"}, {"message": "the second"}, {"message": "the third"}]},
        request=httpx.Request("GET", "https://registry.example/v2/"),
    )

    assert str(refusal(reference, None, answer)) == "registry.example answers 400 (the first)"


def test_a_layer_is_read_once_in_a_row_and_anew_elsewhere(odd: Odd) -> None:
    content = random.Random(3).randbytes(2 * CHUNK + 7)
    starts: list[int] = []

    def read(offset: int) -> Iterator[bytes]:
        starts.append(offset)
        for at in range(offset, len(content), 1000):  # pieces that fit into no chunk
            yield content[at : at + 1000]

    layer = Layer(DIGEST, DIGEST, len(content), "weights", "application/octet-stream", "x", read)
    with Connection(parse_reference(f"{odd.host}/a/b:1"), None, QUICK) as connection, pytest.raises(ImageError):
        push_blob(connection, layer, lambda _: None, lambda: False)  # the digest is not that of the content

    assert content in odd.uploads.values()
    assert starts == [0, 0, 0, 0]  # sent, and read to see whether it changed; both once more


def test_without_a_word_of_the_registry_chunks_are_64_mib(odd: Odd) -> None:
    size = 64 * 2**20 + 1
    odd.chunk_limits = {}

    def read(offset: int) -> Iterator[bytes]:
        yield from (bytes(min(2**20, size - at)) for at in range(offset, size, 2**20))

    layer = Layer(DIGEST, DIGEST, size, "weights", "application/octet-stream", "x", read)
    odd.forgets_chunks = True  # it need not keep them
    with Connection(parse_reference(f"{odd.host}/a/b:1"), None, QUICK) as connection, pytest.raises(DeployError):
        push_blob(connection, layer, lambda _: None, lambda: False)

    assert odd.chunks[0] == 64 * 2**20
