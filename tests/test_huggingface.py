"""Hugging Face, with the real huggingface_hub against the stand-in: one commit, resumable, idempotent, verified."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import Notes, as_shown_on, given_bundle, make_bundle
from conftest import MODELS
from hf_hub import NARROW, READER, WRITER, Fault, Hub, hf_hub
from huggingface_hub import constants

from deploytk.base.digests import hash_file
from deploytk.base.errors import DeployError, ReleaseError, TryAgainError, UsageError
from deploytk.base.progress import Progress, Silent
from deploytk.bundle import Bundle, BundleOptions
from deploytk.publish.options import PublishOptions
from deploytk.publish.record import Release
from deploytk.publish.release import publish_bundle
from deploytk.publish.target import find_target
from deploytk.publish.targets.huggingface import HuggingFace, client
from deploytk.publish.targets.huggingface.target import check_front_matter

PAGE_SCRIPTS = 2  # of the chat page that are large enough to be objects of their own
REPO = "me/tiny"


@pytest.fixture(autouse=True)
def _xet_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hf_hub(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", WRITER)
        yield hub


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    made = given_bundle(MODELS / "hf-awq", tmp_path / "bundle", BundleOptions(name="tiny", license="mit"))
    return as_shown_on(made, "huggingface", REPO)


def _publish(
    bundle: Bundle,
    *,
    repo: str | None = REPO,
    is_private: bool = True,
    patience_s: float = 3.0,
    progress: Progress | None = None,
) -> Release:
    options = PublishOptions(repo=repo, is_private=is_private)
    return publish_bundle(bundle, HuggingFace(patience_s=patience_s), options, progress or Silent())


def _expected(bundle: Bundle) -> dict[str, str]:
    manifest = {"deploytk.json": hash_file(bundle.path / "deploytk.json")}
    return {file.path: file.sha256 for file in bundle.files} | manifest


def _published(hub: Hub, repo: str = REPO) -> dict[str, str]:
    tree = hub.tree(repo)
    del tree[".gitattributes"]  # the hub's own
    return tree


def _kinds(hub: Hub) -> list[str]:
    return [kind for kind, _ in hub.requests]


def _changed(bundle: Bundle, tmp_path: Path, *, license_: str = "apache-2.0") -> Bundle:
    made = given_bundle(MODELS / "hf-awq", tmp_path / "changed", BundleOptions(name="tiny", license=license_))
    return as_shown_on(made, "huggingface", REPO)


def test_the_repository_is_the_bundle_after_one_commit(hub: Hub, bundle: Bundle) -> None:
    release = _publish(bundle)

    assert _published(hub) == _expected(bundle)
    assert len(hub.commits(REPO)) == 2  # the hub's own first one, and ours
    assert release.revision == hub.commits(REPO)[-1]["oid"]
    assert (release.uploaded_files, release.unchanged_files) == (len(bundle.files) + 1, 0)
    assert release.verified


def test_it_is_registered_under_its_name() -> None:
    assert isinstance(find_target("huggingface"), HuggingFace)


def test_a_repository_is_private_unless_told_otherwise(hub: Hub, bundle: Bundle) -> None:
    _publish(bundle)
    _publish(bundle, repo="me/shown", is_private=False)

    assert (hub.load("models", REPO) or {})["private"] is True
    assert (hub.load("models", "me/shown") or {})["private"] is False


def test_without_an_owner_it_goes_to_the_account_of_the_token(hub: Hub, bundle: Bundle) -> None:
    assert _publish(bundle, repo=None).repo == "me/tiny"


def test_publishing_again_sends_nothing(hub: Hub, bundle: Bundle) -> None:
    first = _publish(bundle)
    hub.requests.clear()
    received = hub.received_bytes

    again = _publish(bundle)

    assert hub.received_bytes == received
    assert _kinds(hub) == ["info", "tree"]
    assert (again.uploaded_files, again.uploaded_bytes) == (0, 0)
    assert again.revision == first.revision


def test_one_changed_file_is_one_upload_and_what_is_gone_goes_in_the_same_commit(
    hub: Hub, bundle: Bundle, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in (MODELS / "hf-awq").iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    (model / "notes.txt").write_bytes(b"1" * 100_000)
    (model / "more.txt").write_text("more\n")
    first = make_bundle(model, tmp_path / "one", BundleOptions(name="tiny", license="mit"))
    _publish(as_shown_on(first, "huggingface", REPO))
    (model / "notes.txt").write_bytes(b"2" * 100_000)
    (model / "more.txt").unlink()
    made = make_bundle(model, tmp_path / "two", BundleOptions(name="tiny", license="mit"))
    second = as_shown_on(made, "huggingface", REPO)
    hub.requests.clear()

    release = _publish(second)

    assert _kinds(hub).count("PUT") == 1
    assert _published(hub) == _expected(second)
    assert len(hub.commits(REPO)) == 3
    assert release.uploaded_files == 2  # notes.txt and the manifest, which names its digest


def test_equal_files_are_sent_once(hub: Hub, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in (MODELS / "hf-awq").iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    for name in ("a.txt", "b.txt"):
        (model / name).write_bytes(b"1" * 100_000)
    made = make_bundle(model, tmp_path / "bundle", BundleOptions(name="tiny", license="mit"))
    bundle = as_shown_on(made, "huggingface", REPO)

    _publish(bundle)

    assert len(hub.stored) == len(set(hub.stored)) == 2 + PAGE_SCRIPTS  # model.safetensors, and one for both
    assert _published(hub) == _expected(bundle)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("info", 503),
        ("create", "lost"),
        ("preupload", 503),
        ("PUT", 503),
        ("PUT", "cut"),
        ("PUT", (429, 1)),
        ("commit", 503),
        ("commit", (429, 1)),
        ("commit", 409),
        ("commit", "cut"),
        ("commit", "lost"),
        ("tree", 503),
        ("yaml", 502),
        ("xet", 500),
    ],
)
def test_a_fault_heals_and_there_is_still_one_commit(hub: Hub, bundle: Bundle, kind: str, fault: Fault) -> None:
    hub.faults[kind] = [fault]

    release = _publish(bundle)

    assert _published(hub) == _expected(bundle)
    assert len(hub.commits(REPO)) == 2
    assert len(hub.stored) == len(set(hub.stored))  # each content once
    assert release.revision == hub.commits(REPO)[-1]["oid"]


def test_a_commit_that_takes_its_time_is_asked_for_once(
    hub: Hub, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub writes 3,000 small files for minutes; who gives up before it answers asks for the same again."""
    monkeypatch.setattr(client, "_STALLED_S", 2.0)
    monkeypatch.setattr(client, "_COMMITTED_S", 60.0)
    hub.on["commit"] = lambda: time.sleep(4)

    _publish(bundle)

    assert _kinds(hub).count("commit") == 1
    assert len(hub.commits(REPO)) == 2


def test_retry_after_is_honoured(hub: Hub, bundle: Bundle) -> None:
    hub.faults["info"] = [(429, 2)]
    started = time.monotonic()

    _publish(bundle)

    assert time.monotonic() - started > 2


def test_a_commit_of_somebody_else_is_seen_before_ours(hub: Hub, bundle: Bundle) -> None:
    def other() -> None:
        state = hub.load("models", REPO) or {}
        theirs = {"theirs.txt": {"content": "", "size": 0, "oid": "0" * 40}}
        hub.add_commit(state, "theirs", state["commits"][-1]["files"] | theirs)
        hub.save("models", REPO, state)

    hub.on["commit"] = other

    _publish(bundle)

    assert [commit["summary"] for commit in hub.commits(REPO)] == ["initial commit", "theirs", "Publish tiny"]
    assert _kinds(hub).count("PUT") == 1 + PAGE_SCRIPTS
    assert _published(hub).keys() == {*_expected(bundle), "theirs.txt"}


def test_a_hub_that_stays_away_is_try_again_later(hub: Hub, bundle: Bundle) -> None:
    hub.faults["info"] = [503] * 50

    with pytest.raises(TryAgainError, match="answers 503") as caught:
        _publish(bundle, patience_s=0.6)

    assert caught.value.exit_code == 75


def test_a_hub_that_is_not_there_is_try_again_later(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", WRITER)

    with pytest.raises(TryAgainError, match="does not answer"):
        _publish(bundle, patience_s=0.6)


@pytest.mark.parametrize(
    ("token", "repo", "message"),
    [
        ("w0rd-that-nobody-knows", REPO, "does not accept the access token"),
        (READER, REPO, "may not write to me/tiny"),
        (WRITER, "stranger/tiny", "may not write to stranger/tiny"),
        (WRITER, "me/forbidden-name", "Invalid name: it is reserved"),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_line_without_the_token(
    hub: Hub,
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    token: str,
    repo: str,
    message: str,
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    notes = Notes()

    with caplog.at_level(logging.DEBUG), pytest.raises(ReleaseError, match=message) as caught:
        _publish(bundle, repo=repo, progress=notes)

    said = f"{caught.value} {caught.value.hint} {caplog.text} {notes.lines}"
    assert "\n" not in str(caught.value)
    assert token not in said
    assert hub.received_bytes == 0


@pytest.mark.parametrize("repo", ["me/", "a/b/c", "me/a..b", "me/a--b", "me/tiny.git", "me/" + "x" * 97, "me/ä"])
def test_a_name_that_no_hub_takes_is_refused_here(hub: Hub, bundle: Bundle, repo: str) -> None:
    with pytest.raises(UsageError):
        _publish(bundle, repo=repo)

    assert hub.requests == []


def test_a_token_that_may_write_but_not_create_is_enough_where_the_repository_is(hub: Hub, bundle: Bundle) -> None:
    hub.create(REPO, private=True)
    hub.faults["create"] = [403]

    _publish(bundle)

    assert _published(hub) == _expected(bundle)


def test_without_a_token_nothing_is_asked(
    hub: Hub, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))

    with pytest.raises(ReleaseError, match="no access token") as caught:
        _publish(bundle)

    assert "HF_TOKEN" in caught.value.hint
    assert hub.requests == []


def test_a_token_in_the_address_of_the_hub_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://me:w0rd@hub.invalid")

    with pytest.raises(UsageError) as caught:
        _publish(bundle)

    assert "w0rd" not in f"{caught.value} {caught.value.hint}"


def test_a_repository_that_everybody_sees_is_not_published_to_by_mistake(hub: Hub, bundle: Bundle) -> None:
    hub.create(REPO, private=False)

    with pytest.raises(ReleaseError, match="visible to everybody"):
        _publish(bundle)

    assert hub.received_bytes == 0
    assert len(hub.commits(REPO)) == 1


def test_a_hub_that_creates_it_public_is_stopped_at(hub: Hub, bundle: Bundle) -> None:
    hub.default_is_public = True

    with pytest.raises(ReleaseError, match="visible to everybody; nothing was sent"):
        _publish(bundle)

    assert hub.received_bytes == 0


def test_a_private_repository_asked_to_be_public_leaves_a_step(hub: Hub, bundle: Bundle) -> None:
    hub.create(REPO, private=True)

    release = _publish(bundle, is_private=False)

    assert release.steps_left == (f"make it public on its settings page: {hub.url}/me/tiny/settings",)


def test_a_file_that_changes_while_it_is_sent_is_never_committed(hub: Hub, bundle: Bundle) -> None:
    weights = bundle.path / "model.safetensors"

    def change() -> None:
        content = weights.read_bytes()
        weights.unlink()  # it is a hard link to the model of the tests
        weights.write_bytes(content[:-1] + b"x")

    hub.on["preupload"] = change

    with pytest.raises(ReleaseError, match=r"model\.safetensors changed while it was sent"):
        _publish(bundle)

    assert len(hub.commits(REPO)) == 1


def test_a_card_that_the_hub_refuses_stops_before_anything_large_is_sent(hub: Hub, bundle: Bundle) -> None:
    hub.faults["yaml"] = [400]

    with pytest.raises(ReleaseError, match=r"refuses the head of README\.md"):
        _publish(bundle)

    assert hub.received_bytes == 0


@pytest.mark.parametrize(
    "card", ["# no head\n", "---\nlicense: [\n---\n", "---\ntags: []\n---\n", "---\nlicense: 1\n---\n"]
)
def test_a_card_without_a_proper_head_is_refused_here(card: str) -> None:
    with pytest.raises(ReleaseError, match=r"README\.md"):
        check_front_matter(card)


def test_a_mirror_without_xet_is_asked_once_and_named(hub: Hub, bundle: Bundle, tmp_path: Path) -> None:
    notes = Notes()

    _publish(bundle, progress=notes)
    _publish(_changed(bundle, tmp_path))

    assert _kinds(hub).count("xet") == 1
    assert any("HF_HUB_DISABLE_XET=1" in line for line in notes.lines)


def test_xet_takes_the_weights_where_the_hub_has_it(hub: Hub, bundle: Bundle, tmp_path: Path) -> None:
    hub.xet = tmp_path / "xet"
    hub.xet.mkdir()
    hub.from_xet = {file.sha256: bundle.path / file.path for file in bundle.files}

    release = _publish(bundle)

    weights = next(file for file in bundle.files if file.path == "model.safetensors")
    assert hub.commits(REPO)[-1]["files"]["model.safetensors"]["lfs"] == weights.sha256
    assert "PUT" not in _kinds(hub)
    assert sum(path.stat().st_size for path in hub.xet.rglob("*") if path.is_file()) > 0.5 * weights.size
    assert release.uploaded_files == len(bundle.files) + 1


def test_large_files_go_in_parts_where_the_hub_wants_it(hub: Hub, bundle: Bundle) -> None:
    hub.part_bytes = 500_000

    _publish(bundle)

    assert _published(hub) == _expected(bundle)
    assert _kinds(hub).count("PUT") == 4 + PAGE_SCRIPTS  # 1,941,456 bytes


def test_a_listing_in_pages_is_read_to_its_end(hub: Hub, bundle: Bundle) -> None:
    hub.page = 5

    _publish(bundle)

    assert _publish(bundle).uploaded_files == 0


def test_plan_shows_every_change_and_changes_nothing(hub: Hub, bundle: Bundle, tmp_path: Path) -> None:
    before = HuggingFace().preview(bundle, PublishOptions(repo=REPO))
    _publish(bundle)
    hub.requests.clear()

    after = HuggingFace().preview(_changed(bundle, tmp_path), PublishOptions(repo=REPO))

    assert {change.status for change in before.changes} == {"new"}
    assert before.upload_bytes == bundle.bytes + (bundle.path / "deploytk.json").stat().st_size
    assert before.is_private
    assert {c.path for c in after.changes if c.status == "changed"} == {"README.md", "README_zh.md", "deploytk.json"}
    assert set(_kinds(hub)) == {"whoami", "info", "tree", "resolve"}  # the cards that lie there are read


@pytest.mark.parametrize(
    ("token", "repo", "permissions"),
    [
        (WRITER, "me/tiny", "the token of me may write"),
        (WRITER, "team/tiny", "the token of me may write"),
        (READER, "me/tiny", "the token of me may only read"),
        (NARROW, "me/tiny", "the token of me may write to me/tiny, and create nothing else"),
        (NARROW, "me/other", "the token of me may not write to repositories of me"),
        (
            WRITER,
            "stranger/tiny",
            "the token of me may not write: stranger is neither that account nor one of its organizations",
        ),
    ],
)
def test_plan_says_what_the_token_may_do(
    hub: Hub, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, token: str, repo: str, permissions: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)

    plan = HuggingFace().preview(bundle, PublishOptions(repo=repo))

    assert plan.permissions == permissions


def test_every_error_has_a_hint_and_no_traceback(hub: Hub, bundle: Bundle) -> None:
    hub.faults["info"] = [402]

    with pytest.raises(DeployError, match="paid plan") as caught:
        _publish(bundle)

    assert caught.value.hint
