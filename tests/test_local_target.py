"""The hub in a directory: atomic, locked, resumable, idempotent, verified by reading back."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from bundles import Notes, given_bundle, make_bundle, whole_bundle
from conftest import MODELS

from deploytk.base.digests import hash_file
from deploytk.base.errors import BundleError, ReleaseError, TryAgainError, UsageError
from deploytk.base.files import locked
from deploytk.base.progress import Silent
from deploytk.bundle import Bundle, BundleOptions, Golden, read_bundle, verify_bundle
from deploytk.publish.options import PublishOptions
from deploytk.publish.record import Release, record_path
from deploytk.publish.release import plan_release, publish_bundle
from deploytk.publish.target import find_target


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return whole_bundle(MODELS / "hf-awq", tmp_path / "bundle")


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    return tmp_path / "hub"


def _publish(bundle: Bundle, hub: Path) -> Release:
    return publish_bundle(bundle, find_target("local"), PublishOptions(repo=str(hub)), Silent())


def _tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_release_is_a_bundle_again(bundle: Bundle, hub: Path) -> None:
    release = _publish(bundle, hub)

    published = read_bundle(hub / "repos" / "tiny" / "current")
    assert published.digest == bundle.digest
    assert release.url.endswith(f"/repos/tiny/revisions/{release.revision}")
    assert (release.uploaded_files, release.unchanged_files) == (len(bundle.files) + 1, 0)
    assert release.verified


def test_publishing_again_sends_nothing(bundle: Bundle, hub: Path) -> None:
    first = _publish(bundle, hub)

    again = _publish(bundle, hub)

    assert (again.uploaded_files, again.uploaded_bytes, again.revision) == (0, 0, first.revision)
    assert again.unchanged_files == len(bundle.files) + 1


def test_only_what_changed_is_sent(bundle: Bundle, hub: Path, tmp_path: Path) -> None:
    _publish(bundle, hub)
    other = given_bundle(MODELS / "hf-awq", tmp_path / "other", BundleOptions(name="tiny", license="mit"))

    release = _publish(other, hub)

    # Both cards name the licence, deploytk.json their digests.
    assert release.uploaded_files == 3
    assert len(list((hub / "repos/tiny/revisions").iterdir())) == 2


def test_the_plan_shows_what_publishing_would_do(bundle: Bundle, hub: Path, tmp_path: Path) -> None:
    target, options = find_target("local"), PublishOptions(repo=str(hub))
    before = target.preview(bundle, options)
    _publish(bundle, hub)
    other = given_bundle(MODELS / "hf-awq", tmp_path / "other", BundleOptions(name="tiny", license="mit", app="api"))

    after = {change.path: change.status for change in target.preview(other, options).changes}

    assert {change.status for change in before.changes} == {"new"}
    assert before.upload_bytes == bundle.bytes + (bundle.path / "deploytk.json").stat().st_size
    assert (after["README.md"], after["model.safetensors"]) == ("changed", "same")
    assert not (tmp_path / "hub" / "repos" / "other").exists()


def test_the_hub_does_not_change_when_the_model_does(
    hub: Path, tmp_path: Path, model_copy: Callable[[str], Path]
) -> None:
    model = model_copy("hf-awq")
    _publish(make_bundle(model, tmp_path / "b"), hub)
    published = hub / "repos/tiny/current/model.safetensors"
    before = published.read_bytes()

    with (model / "model.safetensors").open("r+b") as file:
        file.write(b"overwritten")

    assert published.read_bytes() == before


def test_a_damaged_object_is_found_and_replaced(bundle: Bundle, hub: Path) -> None:
    _publish(bundle, hub)
    damaged = (hub / "repos/tiny/current/config.json").resolve()
    damaged.chmod(0o644)
    damaged.write_text("{}")

    release = _publish(bundle, hub)

    assert release.uploaded_files == 1
    assert (hub / "repos/tiny/current/config.json").read_bytes() == (bundle.path / "config.json").read_bytes()


def test_a_damaged_object_is_replaced_in_every_revision_that_shows_it(
    bundle: Bundle, hub: Path, tmp_path: Path
) -> None:
    first = _publish(bundle, hub)
    _publish(given_bundle(MODELS / "hf-awq", tmp_path / "other", BundleOptions(name="tiny", license="mit")), hub)
    shared = hub / "repos/tiny/current/config.json"
    shared.chmod(0o644)
    shared.write_text("{}")

    _publish(bundle, hub)

    for revision in (hub / "repos/tiny/revisions").iterdir():
        verify_bundle(read_bundle(revision), Silent())
    assert (hub / "repos/tiny/current").resolve().name == first.revision


def test_a_tree_that_somebody_changed_is_repaired(bundle: Bundle, hub: Path) -> None:
    _publish(bundle, hub)
    tree = (hub / "repos/tiny/current").resolve()
    (tree / "app.py").unlink()
    (tree / "stranger.txt").write_text("")
    (tree / "config.json").unlink()
    (tree / "config.json").write_text("{}")

    (tree / ".app.py.partial").write_text("what a kill left")

    release = _publish(bundle, hub)

    assert release.uploaded_files == 0
    assert release.kept_files == ("stranger.txt",)
    assert (tree / "stranger.txt").exists()
    assert not (tree / ".app.py.partial").exists()
    verify_bundle(read_bundle(tree), Silent())


def test_two_repositories_share_what_is_equal(bundle: Bundle, hub: Path, tmp_path: Path) -> None:
    _publish(bundle, hub)

    release = _publish(given_bundle(MODELS / "hf-awq", tmp_path / "b2", BundleOptions(name="other")), hub)

    # Both cards and deploytk.json name the model; the weights and all else are there.
    assert release.uploaded_files == 3
    assert (hub / "repos/other/current/model.safetensors").samefile(hub / "repos/tiny/current/model.safetensors")


def test_a_hub_whose_first_publisher_was_killed_is_still_a_hub(bundle: Bundle, hub: Path) -> None:
    (hub / "objects").mkdir(parents=True)
    (hub / ".lock").touch()

    assert _publish(bundle, hub).verified


def test_a_full_disk_leaves_nothing_half_written(bundle: Bundle, small_disk: Path) -> None:
    with pytest.raises(ReleaseError, match="is full"):
        _publish(bundle, small_disk)

    written = [path for path in small_disk.rglob("*") if path.is_file()]
    assert all(hash_file(path) == path.parent.name + path.name for path in written)
    assert not (small_disk / "repos").exists() or not list((small_disk / "repos").iterdir())


def test_a_bundle_that_cannot_be_recorded_is_published_nevertheless(bundle: Bundle, hub: Path, tmp_path: Path) -> None:
    record_path(bundle).mkdir()
    notes = Notes()

    release = publish_bundle(bundle, find_target("local"), PublishOptions(repo=str(hub)), notes)

    assert release.verified
    assert any("no record is kept" in line for line in notes.lines)


@pytest.mark.parametrize("text", ["hf_hub_download(", "risk-" + "a" * 50, "task = 'x'", "sk-learn", "http://a:80/b@c"])
def test_what_only_resembles_a_secret_is_published(
    hub: Path, tmp_path: Path, text: str, model_copy: Callable[[str], Path]
) -> None:
    model = model_copy("hf-awq")
    (model / "notes.txt").write_text(text)

    assert _publish(make_bundle(model, tmp_path / "b"), hub).verified


def test_a_secret_among_the_golden_prompts_is_refused(hub: Path, tmp_path: Path) -> None:
    options = BundleOptions(name="tiny", golden=(Golden("hf_" + "a" * 34, ""),))
    bundle = given_bundle(MODELS / "hf-awq", tmp_path / "b", options)

    with pytest.raises(BundleError, match=r"deploytk\.json, line \d+, looks like a Hugging Face token"):
        _publish(bundle, hub)


def test_a_plan_refuses_what_publishing_would_refuse(
    hub: Path, tmp_path: Path, model_copy: Callable[[str], Path]
) -> None:
    model = model_copy("hf-awq")
    (model / "notes.txt").write_text("hf_" + "a" * 34)
    bundle = make_bundle(model, tmp_path / "b")

    with pytest.raises(BundleError, match="looks like a Hugging Face token"):
        plan_release(bundle, find_target("local"), PublishOptions(repo=str(hub)), Silent())


def test_a_bundle_that_changed_is_refused_before_anything_is_sent(bundle: Bundle, hub: Path) -> None:
    path = bundle.path / "app.py"
    path.write_bytes(b"#" + path.read_bytes()[1:])

    with pytest.raises(BundleError, match="digest differs"):
        _publish(bundle, hub)

    assert not hub.exists()


@pytest.mark.parametrize(
    "secret",
    [
        "hf_" + "a" * 34,
        "ms-" + "-".join("a1" * (size // 2) for size in (8, 4, 4, 4, 12)),
        "ghp_" + "A1" * 18,
        "AKIA" + "A" * 16,
        "LTAI" + "a1" * 10,
        "sk-proj-" + "a" * 40,
        "-----BEGIN RSA PRIVATE KEY-----",
        'ak="' + "a1" * 10 + '"',
        '"sk": "' + "a1" * 10 + '"',
        "OPENXLAB_SK=" + "a1" * 10,
        "access_token=" + "a" * 20,
        "https://me:hunter2hunter2@example.com/x",
    ],
)
def test_a_secret_is_refused_and_never_shown(
    hub: Path, tmp_path: Path, secret: str, model_copy: Callable[[str], Path]
) -> None:
    model = model_copy("hf-awq")
    (model / "notes.txt").write_text(f"first line\nmy key: {secret}\n")
    bundle = make_bundle(model, tmp_path / "b")

    with pytest.raises(BundleError, match=r"notes\.txt, line 2") as caught:
        _publish(bundle, hub)

    assert secret not in str(caught.value)
    assert not hub.exists()


def test_a_second_publisher_is_told_to_wait(bundle: Bundle, hub: Path) -> None:
    (hub / "objects").mkdir(parents=True)

    with locked(hub / ".lock", "the hub"), pytest.raises(TryAgainError):
        _publish(bundle, hub)


def test_a_directory_that_is_no_hub_is_left_alone(bundle: Bundle, hub: Path) -> None:
    hub.mkdir()
    (hub / "thesis.tex").write_text("years of work")

    with pytest.raises(ReleaseError, match="not a hub"):
        _publish(bundle, hub)

    assert [path.name for path in hub.iterdir()] == ["thesis.tex"]


def test_an_unknown_target_names_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        find_target("moon")

    assert "local" in caught.value.hint


def test_a_record_of_every_release_is_kept(bundle: Bundle, hub: Path) -> None:
    _publish(bundle, hub)
    release = _publish(bundle, hub)

    records = json.loads(record_path(bundle).read_text())["releases"]

    assert [record["revision"] for record in records] == [release.revision] * 2
    assert records[0]["digest"] == bundle.digest


def test_kill_9_while_publishing_then_again_is_the_same_as_without(bundle: Bundle, hub: Path, tmp_path: Path) -> None:
    _publish(bundle, tmp_path / "expected")
    command = [sys.executable, "-m", "deploytk", "publish", str(bundle.path)]
    command += ["--target", "local", "--repo", str(hub)]
    chance = random.Random(1)
    for _ in range(4):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.25, 0.7))
        child.send_signal(signal.SIGKILL)
        child.wait()
        current = hub / "repos" / "tiny" / "current"
        if current.exists():
            assert read_bundle(current).digest == bundle.digest

    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    # Modification times and locks aside, the hub is what one undisturbed run makes.
    assert _tree(hub) == _tree(tmp_path / "expected")
