"""OpenXLab's git way, with the real git against dulwich: atomic, resumable, idempotent, verified; git-lfs reads it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from bundles import Notes, as_shown_on, given_bundle, make_bundle, whole_bundle
from conftest import MODELS
from git_server import READER, WRITER, GitServer, git_server

from deploytk.base.errors import DeployError, ReleaseError, TryAgainError, UsageError
from deploytk.base.progress import Silent
from deploytk.bundle import Bundle, BundleOptions, read_bundle, verify_bundle
from deploytk.publish.options import PublishOptions
from deploytk.publish.record import Release
from deploytk.publish.release import publish_bundle
from deploytk.publish.targets.openxlab import OpenXLab, branch
from deploytk.publish.targets.openxlab.branch import Remote
from deploytk.publish.targets.openxlab.git import Finished, Git
from deploytk.publish.targets.openxlab.tree import git_attributes

REPO = "me/tiny"


@pytest.fixture
def bundle(git_hub: GitServer, tmp_path: Path) -> Bundle:
    return as_shown_on(whole_bundle(MODELS / "hf-awq", tmp_path / "bundle"), "openxlab", REPO)


@pytest.fixture
def workspace(git_hub: GitServer, tmp_path: Path) -> Bundle:
    return as_shown_on(
        whole_bundle(MODELS / "workspace-0.4.2-awq", tmp_path / "workspace"),
        "openxlab",
        REPO,
    )


def _publish(
    bundle: Bundle, *, patience_s: float = 2.0, is_private: bool = True, repo: str = REPO, **more: Any
) -> Release:
    options = PublishOptions(repo=repo, is_private=is_private, **more)
    return publish_bundle(bundle, OpenXLab(patience_s=patience_s), options, Silent())


def _git(*arguments: str, cwd: Path | None = None) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    return subprocess.run(
        ["git", *arguments], cwd=cwd, env=environment, check=True, capture_output=True, text=True, timeout=60
    ).stdout


def _tree(git_hub: GitServer, repo: str = REPO) -> str:
    return _git("ls-tree", "-r", "main", cwd=git_hub.root / f"{repo}.git")


def _commits(git_hub: GitServer, repo: str = REPO) -> int:
    return int(_git("rev-list", "--count", "main", cwd=git_hub.root / f"{repo}.git"))


def _is_empty(git_hub: GitServer) -> bool:
    return not _git("for-each-ref", cwd=git_hub.root / f"{REPO}.git")


def _clone(git_hub: GitServer, out: Path) -> Path:
    address = git_hub.url.replace("//", f"//{WRITER[0]}:{WRITER[1]}@")
    filters = [f"filter.lfs.{verb}=git-lfs {verb} -- %f" for verb in ("clean", "smudge")]
    filters += ["filter.lfs.process=git-lfs filter-process", "filter.lfs.required=true"]
    kept = [word for setting in filters for word in ("--config", setting)]
    _git("clone", "-q", *kept, f"{address}/{REPO}.git", str(out))
    return out


def test_a_clone_is_the_bundle_again(git_hub: GitServer, workspace: Bundle, tmp_path: Path) -> None:
    release = _publish(workspace)

    clone = _clone(git_hub, tmp_path / "clone")
    assert read_bundle(clone).digest == workspace.digest
    verify_bundle(read_bundle(clone), Silent())
    # Besides what the manifest names: itself, .gitattributes and metafile.yml.
    assert release.uploaded_files == len(workspace.files) + 3 - sum(file.size == 0 for file in workspace.files)
    assert release.verified
    assert not _git("status", "--porcelain", cwd=clone)


def test_weights_are_lfs_objects_under_their_own_paths(git_hub: GitServer, workspace: Bundle) -> None:
    _publish(workspace)

    weights = {file.sha256 for file in workspace.files if file.kind == "weights" and file.size}
    assert weights <= set(git_hub.stored)
    assert len(git_hub.stored) == len(set(git_hub.stored))
    assert "triton_models/weights/" in _tree(git_hub)


def test_publishing_again_sends_nothing(git_hub: GitServer, bundle: Bundle) -> None:
    first = _publish(bundle)
    git_hub.requests.clear()
    git_hub.stored.clear()

    again = _publish(bundle)

    assert (again.uploaded_files, again.uploaded_bytes, again.revision) == (0, 0, first.revision)
    assert git_hub.stored == []
    assert _commits(git_hub) == 1
    assert len(git_hub.requests) <= 10


def test_one_changed_file_is_one_upload(
    git_hub: GitServer, workspace: Bundle, tmp_path: Path, model_copy: Callable[[str], Path]
) -> None:
    _publish(workspace)
    git_hub.stored.clear()
    model = model_copy("workspace-0.4.2-awq")
    changed = next(path for path in sorted(model.rglob("*.qweight")) if path.stat().st_size)
    changed.write_bytes(bytes(reversed(changed.read_bytes())))

    release = _publish(make_bundle(model, tmp_path / "other"))

    assert len(git_hub.stored) == 1
    assert release.uploaded_files == 2  # the file, and deploytk.json that names its digest
    assert _commits(git_hub) == 2


def test_what_the_bundle_has_no_more_is_deleted(git_hub: GitServer, bundle: Bundle, tmp_path: Path) -> None:
    _publish(bundle)
    made = given_bundle(MODELS / "hf-awq", tmp_path / "api", BundleOptions(name="tiny", app="api"))
    api = as_shown_on(made, "openxlab", REPO)
    plan = OpenXLab().preview(api, PublishOptions(repo=REPO))

    _publish(api)

    deleted = {change.path for change in plan.changes if change.status == "deleted"}
    assert {"deploytk_app/gradio_app.py", "deploytk_app/data/page/index.html"} <= deleted
    assert all(path.startswith(("deploytk_app/gradio_app.py", "deploytk_app/data/page/")) for path in deleted)
    assert "deploytk_app/gradio_app.py" not in _tree(git_hub)


def test_the_plan_shows_what_publishing_would_do(git_hub: GitServer, bundle: Bundle) -> None:
    before = OpenXLab().preview(bundle, PublishOptions(repo=REPO))
    assert _is_empty(git_hub)
    release = _publish(bundle)

    after = OpenXLab().preview(bundle, PublishOptions(repo=REPO))

    assert {change.status for change in before.changes} == {"new"}
    assert before.upload_bytes == release.uploaded_bytes
    assert {change.status for change in after.changes} == {"same"}
    assert (after.upload_bytes, after.is_private, after.permissions) == (0, True, "the token of me may write")


def test_a_plan_tells_a_token_that_may_only_read(
    git_hub: GitServer, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENXLAB_GIT_TOKEN", READER[1])

    plan = OpenXLab().preview(bundle, PublishOptions(repo=REPO))

    assert plan.permissions == "the token of me may only read"


def test_the_same_bundle_gives_the_same_commit_anywhere(git_hub: GitServer, bundle: Bundle) -> None:
    git_hub.create("me/other")

    target = OpenXLab(patience_s=2.0)  # itself: what is published tells on its card where it is
    first, second = (target.publish(bundle, PublishOptions(repo=repo), Silent()) for repo in (REPO, "me/other"))

    assert first.revision == second.revision


def test_what_was_in_the_repository_stays_in_its_history(git_hub: GitServer, bundle: Bundle, tmp_path: Path) -> None:
    hand_made = tmp_path / "hand"
    _git("init", "-q", "-b", "main", str(hand_made))
    (hand_made / "README.md").write_text("from the web form\n")
    _git("add", ".", cwd=hand_made)
    _git("-c", "user.name=me", "-c", "user.email=me@localhost", "commit", "-qm", "Initial", cwd=hand_made)
    _git("push", "-q", str(git_hub.root / f"{REPO}.git"), "main", cwd=hand_made)

    with pytest.raises(ReleaseError, match=r"README\.md of .* has words of others"):
        _publish(bundle)
    _publish(bundle, edited_card="replace")

    assert _commits(git_hub) == 2
    assert (_clone(git_hub, tmp_path / "clone") / "README.md").read_bytes() == (bundle.path / "README.md").read_bytes()


def test_odd_names_arrive_as_they_are(git_hub: GitServer, tmp_path: Path, model_copy: Callable[[str], Path]) -> None:
    model = model_copy("hf-awq")
    names = ["with space.txt", 'quo"te.txt', "量化.txt", "a[b]*.json"]
    for name in names:
        (model / name).write_text(name)
    (model / "large 大[1].json").write_text('"' + "x" * 1_100_000 + '"')
    bundle = as_shown_on(make_bundle(model, tmp_path / "odd"), "openxlab", REPO)

    _publish(bundle)

    clone = _clone(git_hub, tmp_path / "clone")
    assert read_bundle(clone).digest == bundle.digest
    verify_bundle(read_bundle(clone), Silent())
    assert not _git("status", "--porcelain", cwd=clone)
    assert len(git_hub.stored) == 2  # the weights, and the JSON of more than 1 MB


def test_nothing_of_the_bundle_is_copied_or_changed(git_hub: GitServer, bundle: Bundle) -> None:
    before = {path: path.stat().st_mtime_ns for path in bundle.path.rglob("*")}

    _publish(bundle)

    assert {path: path.stat().st_mtime_ns for path in bundle.path.rglob("*")} == before
    assert not list((Path(os.environ["DEPLOYTK_CACHE_DIR"]) / "openxlab").iterdir())


def test_the_token_is_nowhere_but_in_the_environment(
    git_hub: GitServer, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A git that writes down how it was called, and the whole work directory as it was at the end."""
    seen = tmp_path / "seen"
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    real = shutil.which("git")
    cache = os.environ["DEPLOYTK_CACHE_DIR"]
    lines = ["#!/bin/sh", f'echo "$@" >> {seen}', f'"{real}" "$@"', "code=$?"]
    lines += [f"cat $(find {cache}/openxlab -type f) >> {seen}", "exit $code"]
    fake.write_text("\n".join(lines))
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("GIT_TRACE_CURL", str(tmp_path / "trace"))

    _publish(bundle)

    assert "ls-remote" in seen.read_text(errors="replace")
    assert WRITER[1] not in seen.read_text(errors="replace")
    assert WRITER[1] not in "".join(git_hub.requests)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("faults", "is_whole"),
    [
        ({"PUT": [503, "cut"]}, True),
        ({"batch": [500, "cut", 502]}, True),
        ({"push": [503]}, True),
        ({"GET": ["cut", 500, 503]}, True),
    ],
)
def test_a_server_that_stumbles_is_asked_again(
    git_hub: GitServer, bundle: Bundle, faults: dict[str, list[int | str]], is_whole: bool
) -> None:
    git_hub.faults.update(faults)

    release = _publish(bundle, patience_s=8)

    assert release.verified
    assert _commits(git_hub) == 1


def test_a_lost_answer_to_the_push_is_no_second_commit(git_hub: GitServer, bundle: Bundle) -> None:
    git_hub.faults["push"] = ["lose"]

    release = _publish(bundle, patience_s=8)

    assert _commits(git_hub) == 1
    assert release.revision in _git("rev-parse", "main", cwd=git_hub.root / f"{REPO}.git")


@pytest.mark.parametrize("theirs", ["0" * 40, "f" * 40])
def test_a_branch_that_others_moved_while_our_push_was_lost_is_not_pushed_to_again(theirs: str) -> None:
    """It is looked at anew, whichever commit is theirs."""
    git = Mock(spec=Git)
    git.run.return_value = Finished(128, b"", "fatal: the remote end hung up unexpectedly")
    git.wait.side_effect = AssertionError("it is pushed to again")
    git.must.return_value = f"{theirs}\trefs/heads/main\n".encode()

    is_ours = branch._push(git, "c" * 40, Remote("main", "8" * 40, {}, set()))

    assert not is_ours
    assert git.run.call_count == 1


def test_a_server_that_comes_back_gets_the_rest(git_hub: GitServer, workspace: Bundle, tmp_path: Path) -> None:
    port = git_hub.server_address[1]
    git_hub.shutdown()
    git_hub.server_close()
    back: list[Release] = []
    publishing = threading.Thread(target=lambda: back.append(_publish(workspace, patience_s=20)))
    publishing.start()
    time.sleep(1.0)

    with git_server(git_hub.root, port):
        publishing.join(30)

    assert back
    assert back[0].verified


def test_a_server_that_stays_away_says_run_again(git_hub: GitServer, bundle: Bundle) -> None:
    git_hub.shutdown()
    git_hub.server_close()

    with pytest.raises(TryAgainError, match=r"127\.0\.0\.1:\d+ does not answer") as caught:
        _publish(bundle, patience_s=0.5)

    assert "run again" in caught.value.hint


def test_a_server_that_takes_bytes_and_says_nothing_is_given_up(
    git_hub: GitServer, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploytk.publish.targets.openxlab.lfs_upload.TIMEOUT", 0.5)
    git_hub.faults["PUT"] = ["hang"] * 9
    started = time.monotonic()

    with pytest.raises(TryAgainError, match="does not answer"):
        _publish(bundle, patience_s=0.1)

    assert time.monotonic() - started < 8
    assert _is_empty(git_hub)


def test_an_upload_that_breaks_off_leaves_the_branch_alone_and_goes_on_later(
    git_hub: GitServer, workspace: Bundle
) -> None:
    git_hub.faults["PUT"] = [*["ok"] * 6, *[403] * 200]
    with pytest.raises(ReleaseError):
        _publish(workspace)
    git_hub.faults.clear()
    assert _is_empty(git_hub)
    before = list(git_hub.stored)

    release = _publish(workspace)

    assert len(before) >= 1
    assert len(git_hub.stored) == len(set(git_hub.stored))
    assert release.verified


@pytest.mark.parametrize(
    ("token", "says", "hint"),
    [
        ("wrong", "does not take the token of me", "Git token that may write"),
        (READER[1], "may not write to me/tiny", "may write"),
    ],
)
def test_a_token_that_does_not_do_is_named(
    git_hub: GitServer, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, token: str, says: str, hint: str
) -> None:
    monkeypatch.setenv("OPENXLAB_GIT_TOKEN", token)

    with pytest.raises(ReleaseError, match=says) as caught:
        _publish(bundle)

    assert hint in caught.value.hint
    assert token not in str(caught.value) + caught.value.hint
    assert _is_empty(git_hub)


def test_a_repository_that_is_not_there_is_explained_step_by_step(git_hub: GitServer, bundle: Bundle) -> None:
    with pytest.raises(ReleaseError, match="has no repository me/missing") as caught:
        _publish(bundle, repo="me/missing")

    assert "创建模型" in caught.value.hint
    assert "name missing" in caught.value.hint


def test_a_public_repository_needs_the_word(git_hub: GitServer, bundle: Bundle) -> None:
    git_hub.public.add(f"/{REPO}.git")

    with pytest.raises(ReleaseError, match="visible to everybody; nothing was sent"):
        _publish(bundle)

    assert _is_empty(git_hub)
    assert _publish(bundle, is_private=False).steps_left == ()


def test_a_public_repository_is_found_out_also_when_the_server_stumbles(git_hub: GitServer, bundle: Bundle) -> None:
    git_hub.public.add(f"/{REPO}.git")
    git_hub.faults["GET"] = ["cut", 503]

    with pytest.raises(ReleaseError, match="visible to everybody"):
        _publish(bundle)


def test_a_private_repository_that_shall_be_public_is_a_step_left(git_hub: GitServer, bundle: Bundle) -> None:
    release = _publish(bundle, is_private=False)

    assert "make it public" in release.steps_left[0]


@pytest.mark.parametrize("repo", [None, "tiny", "me/", "me/tiny.git", "me/../x", "me/a b", "-me/x", "a/b/c"])
def test_a_name_that_cannot_be_is_refused_before_anything(git_hub: GitServer, bundle: Bundle, repo: str | None) -> None:
    with pytest.raises(UsageError):
        publish_bundle(bundle, OpenXLab(), PublishOptions(repo=repo), Silent())

    assert git_hub.requests == []


@pytest.mark.parametrize("address", ["http://example.com", "https://me:secret@example.com", "ftp://127.0.0.1", "x"])
def test_a_token_goes_to_no_odd_server(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("OPENXLAB_GIT_ENDPOINT", address)
    monkeypatch.setenv("OPENXLAB_GIT_TOKEN", "x")

    with pytest.raises(UsageError):
        _publish(bundle)


def test_without_a_token_it_says_where_to_get_one(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENXLAB_GIT_TOKEN", raising=False)

    with pytest.raises(ReleaseError, match="no Git access token") as caught:
        _publish(bundle)

    assert "OPENXLAB_GIT_TOKEN" in caught.value.hint


def test_a_missing_program_is_named(
    git_hub: GitServer, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ReleaseError, match="git is not installed"):
        _publish(bundle)


def test_a_full_disk_is_named(
    git_hub: GitServer, bundle: Bundle, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (small_disk / "ballast").write_bytes(bytes(1000 * 2**10))
    monkeypatch.setenv("DEPLOYTK_CACHE_DIR", str(small_disk))

    with pytest.raises(ReleaseError, match="is full"):
        _publish(bundle)

    assert _is_empty(git_hub)


def test_a_file_that_changes_while_it_is_sent_is_refused(git_hub: GitServer, bundle: Bundle) -> None:
    weights = bundle.path / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(content)  # a file of its own, not the model's

    class Meddler(Notes):
        def task(self, label: str, total: int, unit: object = "bytes") -> object:  # type: ignore[override]
            if label == "sending":
                weights.write_bytes(content[::-1])
            return super().task(label, total)

    with pytest.raises(DeployError):
        publish_bundle(bundle, OpenXLab(patience_s=1.0), PublishOptions(repo=REPO), Meddler())

    assert _is_empty(git_hub)


def test_somebody_else_pushing_meanwhile_is_not_lost(git_hub: GitServer, bundle: Bundle, tmp_path: Path) -> None:
    other = given_bundle(MODELS / "hf-awq", tmp_path / "other", BundleOptions(name="tiny", license="mit"))

    class Rival(Notes):
        def task(self, label: str, total: int, unit: object = "bytes") -> object:  # type: ignore[override]
            if label == "sending" and not self.lines:
                self.note("pushed")
                hand_made = tmp_path / "hand"
                _git("init", "-q", "-b", "main", str(hand_made))
                _git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x", "--allow-empty", cwd=hand_made)
                _git("push", "-q", str(git_hub.root / f"{REPO}.git"), "main", cwd=hand_made)
            return super().task(label, total)

    release = publish_bundle(other, OpenXLab(patience_s=2.0), PublishOptions(repo=REPO), Rival())

    assert _commits(git_hub) == 2
    assert release.verified


def test_a_second_publisher_is_told_to_wait(git_hub: GitServer, bundle: Bundle) -> None:
    from deploytk.base.files import locked
    from deploytk.publish.targets.openxlab.place import find_place
    from deploytk.publish.targets.openxlab.target import lock_of

    with locked(lock_of(find_place(REPO)), "it"), pytest.raises(TryAgainError):
        _publish(bundle)


def test_attributes_name_every_large_file_and_nothing_by_accident() -> None:
    text = git_attributes(["w/a.weight", "big [1].json", "plain.json"])

    assert text.startswith("* -text\n")
    assert "*.weight filter=lfs" in text
    assert '"/big \\\\[1\\\\].json" filter=lfs' in text
    assert "/plain.json filter=lfs" in text
    assert "a.weight filter" not in text


def _kill_at_random(bundle: Bundle, times: int) -> None:
    """Kill `times` publishers, each at a random moment of the same work, then let one end."""
    command = [sys.executable, "-m", "deploytk", "--quiet", "publish", str(bundle.path)]
    command += ["--target", "openxlab", "--repo", REPO]
    chance = random.Random(1)
    for _ in range(times):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.3, 1.8))
        child.send_signal(signal.SIGKILL)
        child.wait()
    for _ in range(40):  # a child of the one that was killed may hold its lock for a moment
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if done.returncode != 75:
            break
        time.sleep(0.1)
    assert done.returncode == 0, done.stderr


def test_kill_9_of_the_command_then_again_is_the_same_as_without(git_hub: GitServer, workspace: Bundle) -> None:
    git_hub.create("me/undisturbed")
    _kill_at_random(workspace, 5)
    sent = list(git_hub.stored)

    OpenXLab(patience_s=2.0).publish(workspace, PublishOptions(repo="me/undisturbed"), Silent())

    assert _tree(git_hub) == _tree(git_hub, "me/undisturbed")
    assert len(sent) - len(set(sent)) <= 1
    assert _commits(git_hub) == 1
