"""Publishing deletes what an earlier release wrote, and of others nothing unless `--mirror` says so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from remotes import Make, OnHuggingFace, OnModelScope, OnOpenXLab, Remote, git, publish, put_in

from deploytk.base.progress import Silent
from deploytk.publish.options import PublishOptions
from deploytk.publish.record import record_path
from deploytk.publish.release import plan_release
from deploytk.publish.superseded import named_in
from deploytk.publish.targets.huggingface import HuggingFace
from deploytk.publish.targets.huggingface.options import HuggingFaceOptions
from deploytk.publish.targets.modelscope import ModelScope
from deploytk.publish.targets.modelscope.options import ModelScopeOptions
from deploytk.publish.targets.openxlab import OpenXLab
from deploytk.publish.targets.openxlab.app import app_place
from deploytk.publish.targets.openxlab.options import OpenXLabOptions

pytest_plugins = "remotes"  # its fixtures

LICENSE = b"of others"


def test_what_others_wrote_stays_and_is_named(remote: Remote, make: Make) -> None:
    bundle = make()
    publish(remote, bundle)
    remote.put("LICENSE", LICENSE)
    remote.put("results/mmlu.json", b"{}")

    plan = plan_release(bundle, remote.target, PublishOptions(repo=remote.repo), Silent())
    release = publish(remote, make(notes=b"new"))

    assert {change.path for change in plan.changes if change.status == "kept"} == {"LICENSE", "results/mmlu.json"}
    assert set(release.kept_files) == {"LICENSE", "results/mmlu.json"}
    assert release.verified
    files = remote.files()
    assert (files["LICENSE"], files["results/mmlu.json"], files["notes.txt"]) == (LICENSE, b"{}", b"new")


def test_files_that_were_there_before_the_first_release_stay(remote: Remote, make: Make) -> None:
    bundle = make()
    if not isinstance(remote, OnHuggingFace):
        publish(remote, bundle)
    remote.put("LICENSE", LICENSE)

    release = publish(remote, bundle)
    again = publish(remote, bundle)

    assert (release.kept_files, again.kept_files) == (("LICENSE",), ("LICENSE",))
    assert again.uploaded_files == 0


def test_what_an_earlier_release_wrote_goes_and_is_named(remote: Remote, make: Make) -> None:
    publish(remote, make(notes=b"old"))
    remote.put("LICENSE", LICENSE)

    bundle = make()
    plan = plan_release(bundle, remote.target, PublishOptions(repo=remote.repo), Silent())
    release = publish(remote, bundle)

    assert [change.path for change in plan.changes if change.status == "deleted"] == ["notes.txt"]
    assert (release.deleted_files, release.kept_files) == (("notes.txt",), ("LICENSE",))
    assert "notes.txt" not in remote.files()


def test_a_file_of_ours_that_somebody_has_changed_is_theirs(remote: Remote, make: Make) -> None:
    publish(remote, make(notes=b"old"))
    remote.put("notes.txt", b"mad")  # of the same length

    release = publish(remote, make())

    assert (release.deleted_files, release.kept_files) == ((), ("notes.txt",))
    assert remote.files()["notes.txt"] == b"mad"


def test_mirror_makes_it_what_the_bundle_is(remote: Remote, make: Make) -> None:
    publish(remote, make())
    remote.put("LICENSE", LICENSE)

    bundle = make()
    plan = plan_release(bundle, remote.target, PublishOptions(repo=remote.repo, is_mirror=True), Silent())
    release = publish(remote, bundle, is_mirror=True)

    assert [change.path for change in plan.changes if change.status == "deleted"] == ["LICENSE"]
    assert release.deleted_files == ("LICENSE",)
    assert "LICENSE" not in remote.files()


CLAIMS = (
    b"no JSON",
    b"[" * 100_000,
    b'{"files": ["LICENSE"]}',
    b'{"files": {"LICENSE": {"size": 9, "sha256": "x"}}}',
    b'{"files": {"LICENSE": {"size": "9", "sha256": "' + hashlib.sha256(LICENSE).hexdigest().encode() + b'"}}}',
    json.dumps({"files": {"LICENSE": {"size": 9, "sha256": "0" * 64}}}).encode(),
)


def test_a_manifest_that_lies_deletes_nothing(
    remote: Remote, make: Make, record_property: Callable[[str, object], None]
) -> None:
    """One release after the other into the same repository: what the one before left is what others may have left."""
    bundle = make()
    publish(remote, bundle)
    remote.put("LICENSE", LICENSE)
    record_property("inputs", len(CLAIMS))
    for claim in CLAIMS:
        record_path(bundle).unlink()
        remote.put("deploytk.json", claim)

        release = publish(remote, bundle)

        assert (release.deleted_files, release.kept_files) == ((), ("LICENSE",)), claim[:60]
        assert remote.files()["LICENSE"] == LICENSE


def test_what_a_manifest_names_is_a_size_and_a_digest_or_nothing() -> None:
    digest = "0" * 64

    assert named_in(json.dumps({"files": {"a": {"size": 1, "sha256": digest}}}).encode()) == {"a": (1, digest)}
    for claim in (b"", b"{}", b"null", b'{"files": 3}', b'{"files": {"a": 3}}'):
        assert named_in(claim) == {}


def test_files_of_a_studio_that_others_wrote_stay(modelscope: OnModelScope, make: Make) -> None:
    modelscope.target = ModelScope(ModelScopeOptions(app=True, wait=5.0))
    bundle = make()
    publish(modelscope, bundle)
    studio = modelscope.hub.studios["me/tiny"]
    studio.files["LICENSE"] = LICENSE
    records = json.loads(record_path(bundle).read_text())
    old = {"old.py": [3, hashlib.sha256(b"old").hexdigest()], "mine.py": [3, hashlib.sha256(b"old").hexdigest()]}
    records["releases"][-1]["app_files"] |= old
    record_path(bundle).write_text(json.dumps(records))
    studio.files |= {"old.py": b"old", "mine.py": b"new"}

    release = publish(modelscope, bundle)

    assert set(release.app_kept_files) == {"LICENSE", "mine.py"}
    assert "old.py" not in studio.files
    assert (studio.files["LICENSE"], studio.files["mine.py"]) == (LICENSE, b"new")


def test_what_a_kill_left_to_be_deleted_goes_with_the_next_run(
    modelscope: OnModelScope, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(modelscope, make(notes=b"old"))
    bundle = make()
    with monkeypatch.context() as killed:
        killed.setattr("modelscope_hub.HubApi.delete_files", _killed)
        with pytest.raises(KeyboardInterrupt):
            publish(modelscope, bundle)
    assert "notes.txt" in modelscope.files()

    release = publish(modelscope, bundle)

    assert release.deleted_files == ("notes.txt",)
    assert "notes.txt" not in modelscope.files()


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_the_files_of_a_space_that_others_wrote_stay(
    huggingface: OnHuggingFace, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_APP_TOKEN", "w0rd-that-may-read")
    huggingface.target = HuggingFace(HuggingFaceOptions(app=True, wait=0), patience_s=3.0, poll_s=0.02)
    space = OnHuggingFace(huggingface.hub, huggingface.target, "me/tiny-app", "spaces")
    bundle = make()
    publish(huggingface, bundle)
    space.put("LICENSE", LICENSE)

    huggingface.target = HuggingFace(HuggingFaceOptions(app_sdk="gradio", wait=0), patience_s=3.0, poll_s=0.02)
    plan = huggingface.target.preview(bundle, PublishOptions(repo="me/tiny"))
    release = publish(huggingface, bundle)

    assert plan.app
    # Under Gradio's SDK there is no Dockerfile: the one that we wrote goes.
    assert {change.path: change.status for change in plan.app.changes if change.status in ("deleted", "kept")} == {
        "Dockerfile": "deleted",
        "LICENSE": "kept",
    }
    assert release.app_kept_files == ("LICENSE",)
    assert space.files()["LICENSE"] == LICENSE
    assert "Dockerfile" not in space.files()


def _naming(manifest: bytes, path: str, content: bytes) -> bytes:
    """A deploytk.json of a release that had one more file."""
    found = json.loads(manifest)
    found["files"][path] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "kind": "app"}
    return json.dumps(found).encode()


def test_large_files_of_others_stay_in_lfs(openxlab: OnOpenXLab, make: Make) -> None:
    """Without its line in .gitattributes a clone would have the pointer instead of the file."""
    publish(openxlab, make())
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 7\n".encode()
    openxlab.put("adapters.zip", pointer)

    release = publish(openxlab, make(notes=b"new"))
    again = publish(openxlab, make(notes=b"new"))

    assert release.kept_files == again.kept_files == ("adapters.zip",)
    assert b"/adapters.zip filter=lfs" in openxlab.files()[".gitattributes"]
    assert release.revision == again.revision


def test_what_others_wrote_beside_the_app_stays(openxlab: OnOpenXLab, make: Make, tmp_path: Path) -> None:
    remote = tmp_path / "app.git"
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(remote))
    openxlab.target = OpenXLab(OpenXLabOptions(app_remote=str(remote)), patience_s=2.0)
    bundle = make()
    publish(openxlab, bundle)
    put_in(remote, "LICENSE", LICENSE)
    put_in(remote, "old.py", b"old")
    submodule = b"from refs/heads/main^0\nM 160000 " + b"1" * 40 + b" vendor\n"
    git(
        remote,
        "fast-import",
        "--quiet",
        stdin=b"commit refs/heads/main\ncommitter She <she@x> 1 +0000\ndata 0\n" + submodule,
    )
    (app_place(bundle) / ".git").mkdir()
    (app_place(bundle) / ".git" / "HEAD").write_text("ref: refs/heads/main")
    (app_place(bundle) / "notes.md").write_text("mine")
    (app_place(bundle) / "old.py").write_text("old")
    manifest = _naming(git(remote, "cat-file", "blob", "main:deploytk.json"), "old.py", b"old")
    put_in(remote, "deploytk.json", manifest)
    (app_place(bundle) / "deploytk.json").write_bytes(manifest)

    plan = plan_release(bundle, openxlab.target, PublishOptions(repo="me/tiny"), Silent())
    release = publish(openxlab, bundle)

    assert plan.app
    assert {change.path: change.status for change in plan.app.changes if change.status != "same"} == {
        "LICENSE": "kept",
        "vendor": "kept",
        "old.py": "deleted",
        "deploytk.json": "changed",
    }
    assert release.app_kept_files == ("LICENSE", "notes.md", "vendor")
    assert (app_place(bundle) / "notes.md").read_text() == "mine"
    assert (app_place(bundle) / ".git" / "HEAD").is_file()
    assert not (app_place(bundle) / "old.py").exists()
    assert git(remote, "cat-file", "blob", "main:LICENSE") == LICENSE
    assert b"old.py" not in git(remote, "ls-tree", "-r", "--name-only", "main")


# Other files that somebody edited there are replaced, and that is told


def test_a_file_that_was_edited_there_is_named_when_it_is_replaced(remote: Remote, make: Make) -> None:
    publish(remote, make(notes=b"old", other=b"old"))
    remote.put("notes.txt", b"mad")  # of the same length
    bundle = make(notes=b"new", other=b"new")

    plan = plan_release(bundle, remote.target, PublishOptions(repo=remote.repo), Silent())
    release = publish(remote, bundle)

    assert [change.path for change in plan.changes if change.is_edited] == ["notes.txt"]
    assert release.replaced_files == ("notes.txt",)
    assert remote.files()["notes.txt"] == b"new"
