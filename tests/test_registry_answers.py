"""What registries answer that Debian's never does: tokens that run out, refused chunks, requests to come back later."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from bundles import Notes
from odd_registry import Odd, odd_registry, plan_with

from deploytk.base.errors import ImageError, TryAgainError
from deploytk.base.progress import Progress, Silent
from deploytk.base.retry import RetryPolicy
from deploytk.image.reference import parse_reference
from deploytk.image.registry.connection import Connection
from deploytk.image.registry.pull import read_registry
from deploytk.image.registry.push import push_image
from deploytk.image.registry.upload import push_blob, takes_chunks
from deploytk.image.registry.verify import verify_image
from deploytk.image.value import ImagePlan

KIB = 2**10
LARGE = 200 * KIB
QUICK = RetryPolicy(attempts=3, first_s=0.01)


@pytest.fixture
def plan(tmp_path: Path) -> ImagePlan:
    return plan_with(LARGE, tmp_path)


def _push(plan: ImagePlan, odd: Odd, progress: Progress | None = None) -> int:
    return push_image(plan, f"{odd.host}/a/b:1", progress or Silent(), QUICK)[1]


def _everything(plan: ImagePlan) -> set[str]:
    return {layer.digest for layer in plan.layers} | {plan.image_id}


def test_a_token_that_runs_out_is_fetched_anew(plan: ImagePlan, odd: Odd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploytk.image.registry.push_job.AT_ONCE", 1)
    odd.requests_per_token = 5

    _push(plan, odd)

    assert set(odd.blobs) == _everything(plan)
    assert odd.tokens > 2


def test_a_token_server_that_is_busy_is_asked_again(plan: ImagePlan, odd: Odd) -> None:
    odd.requests_per_token, odd.token_busy = 1000, 2

    _push(plan, odd)

    assert set(odd.blobs) == _everything(plan)


def test_an_identity_token_is_changed_for_a_token(plan: ImagePlan, odd: Odd, tmp_path: Path) -> None:
    odd.requests_per_token = 1000
    entry = {"auth": base64.b64encode(b"me:").decode(), "identitytoken": "opaque"}
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": {odd.host: entry}}))

    _push(plan, odd)

    assert set(odd.blobs) == _everything(plan)
    [asked] = {body for body in odd.logins if not body.startswith("Basic")}
    assert parse_qs(asked) == {
        "grant_type": ["refresh_token"], "refresh_token": ["opaque"], "client_id": ["deploytk"],
        "service": ["odd"], "scope": ["repository:a/b:pull,push"],
    }  # fmt: skip


def test_a_login_without_the_right_is_not_called_wrong(
    plan: ImagePlan, odd: Odd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPLOYTK_REGISTRY_USER", "me")
    monkeypatch.setenv("DEPLOYTK_REGISTRY_PASSWORD", "right")
    odd.requests_per_token, odd.scope_error = 0, ',error="insufficient_scope"'

    with pytest.raises(ImageError, match="does not allow this for a/b"):
        _push(plan, odd)


def test_chunks_are_as_small_as_the_registry_wants_them(plan: ImagePlan, odd: Odd) -> None:
    odd.chunk_limits = {"OCI_Chunk_Max_Length": str(64 * KIB)}

    _push(plan, odd)

    assert set(odd.blobs) == _everything(plan)
    assert max(odd.chunks) == 64 * KIB
    assert odd.chunks.count(64 * KIB) >= LARGE // (64 * KIB)


def test_chunks_are_as_large_as_the_registry_wants_them(
    plan: ImagePlan, odd: Odd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploytk.image.registry.upload.CHUNK_BYTES", 16 * KIB)
    odd.chunk_limits = {"OCI_Chunk_Min_Length": str(100 * KIB)}

    _push(plan, odd)

    assert set(odd.blobs) == _everything(plan)
    assert max(odd.chunks) == 100 * KIB


def test_an_upload_goes_on_with_chunks_of_the_same_size(
    plan: ImagePlan, odd: Odd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploytk.image.registry.push_job.AT_ONCE", 1)
    odd.chunk_limits = {"OCI_Chunk_Max_Length": str(64 * KIB)}
    odd.chunk_answer, odd.chunks_before = 403, 2
    with pytest.raises(ImageError, match="does not allow"):
        _push(plan, odd)
    odd.chunk_answer, odd.chunks = 202, []

    sent_bytes = _push(plan, odd)

    assert max(odd.chunks) == 64 * KIB
    # The largest layer is the first one: two chunks of it were there.
    assert sent_bytes == sum(layer.size for layer in plan.layers) + len(plan.config) - 2 * 64 * KIB


def test_progress_after_a_resume_shows_what_was_there_already(plan: ImagePlan, odd: Odd) -> None:
    odd.chunk_limits = {"OCI_Chunk_Max_Length": str(64 * KIB)}
    odd.chunk_answer, odd.chunks_before = 403, 2
    layer, shown = plan.layers[0], list[int]()
    with Connection(parse_reference(f"{odd.host}/a/b:1"), None, QUICK) as connection:
        with pytest.raises(ImageError, match="does not allow"):
            push_blob(connection, layer, lambda _: None, lambda: False)
        odd.chunk_answer = 202

        push_blob(connection, layer, shown.append, lambda: False)

    assert shown[0] == 2 * 64 * KIB
    assert sum(shown) == layer.size


@pytest.mark.parametrize("more", [1, 10**9])
def test_an_upload_that_came_further_than_the_layer_is_long_is_begun_anew(plan: ImagePlan, odd: Odd, more: int) -> None:
    odd.chunk_limits = {"OCI_Chunk_Max_Length": str(64 * KIB)}
    odd.chunk_answer, odd.chunks_before = 403, 2
    layer = plan.layers[0]
    with Connection(parse_reference(f"{odd.host}/a/b:1"), None, QUICK) as connection:
        with pytest.raises(ImageError, match="does not allow"):
            push_blob(connection, layer, lambda _: None, lambda: False)
        odd.chunk_answer, odd.asked_adds = 202, layer.size - 2 * 64 * KIB + more

        sent = push_blob(connection, layer, lambda _: None, lambda: False)

    assert odd.methods.count("POST") == 2
    assert sent.sent_bytes == layer.size
    assert layer.digest in odd.blobs


def test_failures_are_counted_anew_whenever_an_upload_came_further(plan: ImagePlan, odd: Odd) -> None:
    odd.chunk_limits = {"OCI_Chunk_Max_Length": str(16 * KIB)}
    odd.is_shaky = True
    layer = plan.layers[0]

    with Connection(parse_reference(f"{odd.host}/a/b:1"), None, QUICK) as connection:
        push_blob(connection, layer, lambda _: None, lambda: False)

    assert layer.digest in odd.blobs
    # 200 KiB are 13 chunks, and every one was refused once: far more failures than the three that end one request.
    assert odd.methods.count("PATCH") >= 2 * 13


@pytest.mark.parametrize(("refusals", "is_patient"), [(6, True), (7, False)])
def test_a_login_is_renewed_six_times_for_a_chunk_and_no_more(
    plan: ImagePlan, odd: Odd, refusals: int, is_patient: bool
) -> None:
    odd.requests_per_token, odd.chunk_logins = 1000, refusals
    with Connection(parse_reference(f"{odd.host}/a/b:1"), None, QUICK) as connection:
        if is_patient:
            push_blob(connection, plan.layers[0], lambda _: None, lambda: False)
        else:
            with pytest.raises(ImageError, match="login"):
                push_blob(connection, plan.layers[0], lambda _: None, lambda: False)

    assert odd.chunk_logins == 0
    assert (plan.layers[0].digest in odd.blobs) == is_patient


@pytest.mark.parametrize(("refusals", "is_patient"), [(3, True), (4, False)])
def test_a_login_is_renewed_three_times_for_a_sample_and_no_more(
    plan: ImagePlan, odd: Odd, refusals: int, is_patient: bool
) -> None:
    layer = plan.layers[0]
    odd.blobs[layer.digest] = b"".join(layer.read(0))
    odd.manifests = {plan.digest: plan.manifest, "1": plan.manifest}
    odd.requests_per_token, odd.download_logins = 1000, refusals
    with Connection(parse_reference(f"{odd.host}/a/b:1"), None, QUICK) as connection:
        if is_patient:
            verify_image(connection, plan, (layer,), (layer,))
        else:
            with pytest.raises(ImageError, match="login"):
                verify_image(connection, plan, (layer,), (layer,))

    assert odd.download_logins == 0


@pytest.mark.parametrize("chunks_before", [0, 1])
@pytest.mark.parametrize("answer", [201, 405, 416])
def test_a_registry_that_refuses_chunks_gets_whole_blobs(
    plan: ImagePlan, odd: Odd, answer: int, chunks_before: int
) -> None:
    odd.chunk_limits = {"OCI_Chunk_Max_Length": str(64 * KIB)}
    odd.chunk_answer, odd.chunks_before = answer, chunks_before
    notes = Notes()

    _push(plan, odd, notes)

    assert set(odd.blobs) == _everything(plan)
    assert notes.lines == [f"{odd.host} takes layers only in one go: one that is cut off is sent anew"]


def test_a_known_registry_gets_whole_blobs_at_once(plan: ImagePlan, odd: Odd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploytk.image.registry.upload._ONE_REQUEST", re.compile(re.escape(odd.host)))
    notes = Notes()

    _push(plan, odd, notes)

    assert set(odd.blobs) == _everything(plan)
    assert (odd.chunks, len(notes.lines)) == ([], 1)


def test_a_whole_blob_is_broken_off_at_once(plan: ImagePlan, odd: Odd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploytk.image.registry.upload._ONE_REQUEST", re.compile(re.escape(odd.host)))
    asked = iter([False])

    with (
        Connection(parse_reference(f"{odd.host}/a/b:1"), None) as connection,
        pytest.raises(InterruptedError),
    ):
        push_blob(connection, plan.layers[0], lambda _: None, lambda: next(asked, True))

    assert odd.blobs == {}


def test_a_blob_that_arrives_damaged_is_sent_once_more(plan: ImagePlan, odd: Odd) -> None:
    odd.damages = 1

    _push(plan, odd)

    assert set(odd.blobs) == _everything(plan)


def test_a_registry_that_damages_every_blob_is_given_up(plan: ImagePlan, odd: Odd) -> None:
    odd.damages = 1000

    with pytest.raises(ImageError, match="answers 400"):
        _push(plan, odd)

    assert odd.manifests == {}


def test_a_download_that_breaks_off_goes_on_where_it_was(plan: ImagePlan, odd: Odd) -> None:
    _push(plan, odd)
    read = read_registry(f"{odd.host}/a/b:1")
    odd.ranges.clear()
    odd.cuts = [100 * KIB, 50 * KIB]

    content = b"".join(read.layers[0].read(0))

    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == plan.layers[0].digest
    # From the start, then after 100 KiB, then after 150 KiB.
    assert odd.ranges == [None, "bytes=102400-", "bytes=153600-"]


def test_a_download_is_asked_for_again(plan: ImagePlan, odd: Odd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploytk.base.retry.RetryPolicy.backoff_s", lambda *_: 0.0)
    _push(plan, odd)
    read = read_registry(f"{odd.host}/a/b:1")
    odd.download_busy = 2

    content = b"".join(read.layers[0].read(0))

    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == plan.layers[0].digest


def test_a_login_is_not_sent_to_where_downloads_lie(plan: ImagePlan, odd: Odd) -> None:
    _push(plan, odd)
    with odd_registry() as storage:
        storage.blobs, storage.storage = odd.blobs, "http://sent.on.invalid"
        odd.requests_per_token, odd.storage = 1000, f"http://{storage.host}"
        read = read_registry(f"{odd.host}/a/b:1")

        content = b"".join(read.layers[0].read(0))

        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == plan.layers[0].digest
        assert len(storage.ranges) == 2  # the config and the layer; with a login it would have sent them on


def test_a_download_with_another_digest_is_not_used(plan: ImagePlan, odd: Odd) -> None:
    _push(plan, odd)
    read = read_registry(f"{odd.host}/a/b:1")
    digest = plan.layers[0].digest
    whole = odd.blobs[digest]
    odd.blobs[digest] = bytes(len(whole))

    with pytest.raises(ImageError, match="arrived damaged"):
        read.layers[0].read(0)

    odd.blobs[digest] = whole
    assert b"".join(read.layers[0].read(0)) == whole


def test_a_busy_registry_is_asked_again(plan: ImagePlan, odd: Odd) -> None:
    odd.busy = 2

    assert _push(plan, odd) > 0


def test_a_registry_that_stays_busy_is_given_up(plan: ImagePlan, odd: Odd) -> None:
    odd.busy = 1000

    with pytest.raises(TryAgainError, match="answers 503, 3 times"):
        _push(plan, odd)

    assert odd.busy == 1000 - 3  # however many layers there are


@pytest.mark.parametrize(
    ("host", "takes"),
    [
        ("ghcr.io", False),
        ("europe-docker.pkg.dev", False),
        ("eu.gcr.io", False),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", False),
        ("registry.example.com", True),
        ("notghcr.io", True),
    ],
)
def test_hosts_that_refuse_chunks_are_known(host: str, takes: bool) -> None:
    assert takes_chunks(host) == takes
