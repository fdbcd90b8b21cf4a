"""Where a registry is treated otherwise: what is worth asking again, small and large blobs, how long a token holds."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from odd_registry import Odd, plan_with

from deploytk.base.errors import ImageError, TryAgainError
from deploytk.base.progress import Silent
from deploytk.base.readback import NoRangesError
from deploytk.base.retry import RetryPolicy
from deploytk.image.reference import parse_reference
from deploytk.image.registry.connection import Connection
from deploytk.image.registry.push import push_image
from deploytk.image.registry.push_job import PushJob
from deploytk.image.registry.sessions import MountSources
from deploytk.image.registry.upload import push_blob
from deploytk.image.registry.upload_process import send_in_process
from deploytk.image.registry.verify import _span
from deploytk.image.value import ImagePlan, Layer

MIB = 2**20
DIGEST = f"sha256:{'0' * 64}"
QUICK = RetryPolicy(attempts=2, first_s=0.01)


@pytest.fixture
def plan(tmp_path: Path) -> ImagePlan:
    return plan_with(MIB + MIB // 2, tmp_path)


def _patches(odd: Odd) -> int:
    return sum(line.startswith("PATCH") for line in odd.said)


def _send(odd: Odd, layer: Layer) -> None:
    with Connection(parse_reference(f"{odd.host}/a/b:1"), None, QUICK) as connection:
        push_blob(connection, layer, lambda _: None, lambda: False)


@pytest.mark.parametrize("status", [400, 404, 408, 425, 429, 500, 503])
def test_a_chunk_is_sent_again_after_what_may_pass(plan: ImagePlan, odd: Odd, status: int) -> None:
    odd.chunk_answer = status

    with pytest.raises(TryAgainError, match=f"answers {status}"):
        _send(odd, plan.layers[0])

    assert _patches(odd) == QUICK.attempts


@pytest.mark.parametrize("status", [402, 403, 406, 407, 409, 424, 426, 428, 430])
def test_a_chunk_that_is_refused_is_not_sent_again(plan: ImagePlan, odd: Odd, status: int) -> None:
    odd.chunk_answer = status

    with pytest.raises(ImageError) as caught:
        _send(odd, plan.layers[0])

    assert not isinstance(caught.value, TryAgainError)
    assert _patches(odd) == 1


def test_blobs_from_one_mebibyte_on_are_mounted_from_another_repository(plan: ImagePlan, odd: Odd) -> None:
    push_image(plan, f"{odd.host}/a/b:1", Silent(), QUICK)
    odd.blobs.clear()  # this repository knows of none; the stand-in has one store for all
    odd.said.clear()

    push_image(plan, f"{odd.host}/a/c:1", Silent(), QUICK)

    large = {layer.digest for layer in plan.layers if layer.size >= MIB}
    mounts = {line.split()[1].partition("?")[2] for line in odd.said if "mount=" in line}
    assert 0 < len(large) < len(plan.layers)
    assert mounts == {f"mount={digest}&from=a/b" for digest in large}


def test_where_a_blob_lies_is_remembered_in_a_home_that_has_nothing_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPLOYTK_CACHE_DIR", str(tmp_path / "new" / "home"))

    MountSources("registry.example").remember("sha256:1", "a/b")

    assert MountSources("registry.example").of("sha256:1") == "a/b"


@pytest.mark.parametrize(("status", "start", "is_read"), [(200, 8, True), (200, 8 + 1 / MIB, False), (206, 9, True)])
def test_eight_mebibytes_are_read_to_get_to_a_sample_and_no_more(status: int, start: float, is_read: bool) -> None:
    """206 is of a server that knows ranges: what it sends begins with the sample."""
    first = int(start * MIB)
    content = b"a" * (first if status == 200 else 0) + b"sample" + b"a" * 10
    response = httpx.Response(status, stream=httpx.ByteStream(content))

    if is_read:
        assert _span(response, first, first + 6) == b"sample"
        return
    with pytest.raises(NoRangesError):
        _span(response, first, first + 6)


def test_a_token_is_fetched_once_for_as_long_as_it_holds(odd: Odd) -> None:
    odd.requests_per_token = 100

    with Connection(parse_reference(f"{odd.host}/a/b:1"), None, QUICK) as connection:
        answers = [connection.ask("HEAD", f"{connection.root}/blobs/{DIGEST}", (404,)) for _ in range(5)]

    assert [answer.status_code for answer in answers] == [404] * 5
    assert odd.tokens == 1
    assert odd.left == 100 - 5  # each came with the token at once


def test_another_process_tells_of_every_four_mebibytes_that_it_sent(odd: Odd, tmp_path: Path) -> None:
    layer = plan_with(9 * MIB, tmp_path).layers[0]
    told: list[int] = []
    job = PushJob(parse_reference(f"{odd.host}/a/b:1"), None, QUICK, (layer,))

    sent = send_in_process(job, told.append, lambda _: None, lambda: False)

    assert sent.sent_bytes == sum(told) == layer.size
    assert len(told) == 3  # 4 + 4 + what is left
    assert min(told[:2]) >= 4 * MIB


def test_a_tag_of_others_is_left_to_them_unless_that_is_said(plan: ImagePlan, odd: Odd) -> None:
    odd.manifests["1"] = b'{"schemaVersion": 2}'

    with pytest.raises(ImageError, match="an image that deploytk did not make"):
        push_image(plan, f"{odd.host}/a/b:1", Silent(), QUICK)
    push_image(plan, f"{odd.host}/a/b:1", Silent(), QUICK, takes_over=True)

    assert odd.manifests["1"] == plan.manifest


@pytest.mark.parametrize(("size", "is_read"), [(2 * MIB, True), (16 * MIB, True), (16 * MIB + 1, False)])
def test_an_answer_of_sixteen_mebibytes_is_read_and_none_that_is_larger(odd: Odd, size: int, is_read: bool) -> None:
    odd.manifests["1"] = b"{}" + b" " * (size - 2)
    with Connection(parse_reference(f"{odd.host}/a/b:1"), None, QUICK) as connection:
        if is_read:
            assert len(connection.ask("GET", f"{connection.root}/manifests/1", (200,)).content) == size
            return
        with pytest.raises(ImageError, match="more than 16 MiB"):
            connection.ask("GET", f"{connection.root}/manifests/1", (200,))
