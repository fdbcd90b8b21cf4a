"""Publishing deletes what an earlier release wrote, of others nothing unless `--mirror` says so, and nobody's words."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from bundles import given_bundle, make_bundle
from conftest import MODELS
from git_server import GitServer
from hf_hub import WRITER, Hub, _git, hf_hub
from huggingface_hub import constants
from modelscope_server import WRITER as MODELSCOPE_WRITER
from modelscope_server import ModelScopeServer, Repository, modelscope_server

from deploytk.base.progress import Silent
from deploytk.bundle import Bundle, BundleOptions, read_bundle, settle_edits
from deploytk.publish.edited import EditedError
from deploytk.publish.options import EditedCard, PublishOptions
from deploytk.publish.record import Release, record_path
from deploytk.publish.release import plan_release, publish_bundle
from deploytk.publish.superseded import named_in
from deploytk.publish.target import Target
from deploytk.publish.targets.huggingface import HuggingFace
from deploytk.publish.targets.huggingface.options import HuggingFaceOptions
from deploytk.publish.targets.local import Local
from deploytk.publish.targets.modelscope import ModelScope
from deploytk.publish.targets.modelscope.options import ModelScopeOptions
from deploytk.publish.targets.openxlab import OpenXLab
from deploytk.publish.targets.openxlab.app import app_place
from deploytk.publish.targets.openxlab.options import OpenXLabOptions

LICENSE = b"of others"


class Remote(Protocol):
    """A repository me/tiny, as a person with a browser has it."""

    @property
    def target(self) -> Target: ...
    @property
    def repo(self) -> str: ...
    def files(self) -> dict[str, bytes]: ...
    def put(self, path: str, content: bytes) -> None: ...


@dataclass
class OnHuggingFace:
    hub: Hub
    target: HuggingFace
    repo: str = "me/tiny"
    kind: str = "models"

    def files(self) -> dict[str, bytes]:
        files = self.hub.commits(self.repo, self.kind)[-1]["files"]
        return {path: self.hub.content(file) for path, file in files.items() if path != ".gitattributes"}

    def put(self, path: str, content: bytes) -> None:
        state = self.hub.load(self.kind, self.repo) or {}
        file = {"content": base64.b64encode(content).decode(), "size": len(content), "oid": _git(content)}
        self.hub.add_commit(state, "by hand", state["commits"][-1]["files"] | {path: file})
        self.hub.save(self.kind, self.repo, state)


@pytest.fixture
def huggingface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OnHuggingFace]:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with hf_hub(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", WRITER)
        hub.create("me/tiny")
        yield OnHuggingFace(hub, HuggingFace(patience_s=3.0, poll_s=0.02))


@dataclass
class OnModelScope:
    hub: ModelScopeServer
    target: ModelScope
    repo: str = "me/tiny"

    def files(self) -> dict[str, bytes]:
        return self.hub.repositories[self.repo].files

    def put(self, path: str, content: bytes) -> None:
        self.files()[path] = content


@pytest.fixture
def modelscope(monkeypatch: pytest.MonkeyPatch) -> Iterator[OnModelScope]:
    monkeypatch.setattr("deploytk.publish.targets.modelscope.studio._POLL_S", 0.02)
    with modelscope_server() as hub:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
        monkeypatch.setenv("MODELSCOPE_API_TOKEN", MODELSCOPE_WRITER)
        hub.repositories["me/tiny"] = Repository(1)
        yield OnModelScope(hub, ModelScope())


@dataclass
class OnDisk:
    repo: str
    target: Local

    @property
    def tree(self) -> Path:
        return Path(self.repo) / "repos" / "tiny" / "current"

    def files(self) -> dict[str, bytes]:
        return {str(p.relative_to(self.tree)): p.read_bytes() for p in self.tree.rglob("*") if p.is_file()}

    def put(self, path: str, content: bytes) -> None:
        place = self.tree / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.write_bytes(content)


@pytest.fixture
def local(tmp_path: Path) -> OnDisk:
    return OnDisk(str(tmp_path / "hub"), Local())


@dataclass
class OnOpenXLab:
    hub: GitServer
    target: OpenXLab
    path: Path
    repo: str = "me/tiny"

    def files(self) -> dict[str, bytes]:
        names = git(self.path, "ls-tree", "-r", "--name-only", "main").decode().splitlines()
        return {name: git(self.path, "cat-file", "blob", f"main:{name}") for name in names}

    def put(self, path: str, content: bytes) -> None:
        put_in(self.path, path, content)


def git(path: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    return subprocess.run(["git", *arguments], cwd=path, input=stdin, capture_output=True, check=True).stdout


def put_in(repository: Path, path: str, content: bytes) -> None:
    head = "commit refs/heads/main\ncommitter She <she@x> 1800000000 +0000\ndata 7\nby hand\nfrom refs/heads/main^0\n"
    stream = f"{head}M 100644 inline {path}\ndata {len(content)}\n".encode() + content + b"\n"
    git(repository, "fast-import", "--quiet", stdin=stream)


@pytest.fixture
def openxlab(git_hub: GitServer, tmp_path: Path) -> OnOpenXLab:
    [path] = (tmp_path / "server").rglob("tiny.git")
    return OnOpenXLab(git_hub, OpenXLab(patience_s=2.0), path)


REMOTES = ["huggingface", "modelscope", "local", "openxlab"]


@pytest.fixture(params=REMOTES)
def remote(request: pytest.FixtureRequest) -> Remote:
    found: Remote = request.getfixturevalue(request.param)
    return found


Make = Callable[..., Bundle]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes the bundle again, of the tiny model with other files beside it."""

    def bundle(**extra: bytes) -> Bundle:
        place, options = tmp_path / "bundle", BundleOptions(name="tiny", license="mit")
        shutil.rmtree(place, ignore_errors=True)
        if not extra:
            return given_bundle(MODELS / "hf-awq", place, options)
        model = tmp_path / "model"
        shutil.rmtree(model, ignore_errors=True)
        shutil.copytree(MODELS / "hf-awq", model)
        for name, content in extra.items():
            (model / f"{name}.txt").write_bytes(content)
        return make_bundle(model, place, options)

    return bundle


def _publish(remote: Remote, bundle: Bundle, *, is_mirror: bool = False, edited_card: EditedCard = "refuse") -> Release:
    options = PublishOptions(repo=remote.repo, is_mirror=is_mirror, edited_card=edited_card)
    return publish_bundle(bundle, remote.target, options, Silent())


def test_what_others_wrote_stays_and_is_named(remote: Remote, make: Make) -> None:
    bundle = make()
    _publish(remote, bundle)
    remote.put("LICENSE", LICENSE)
    remote.put("results/mmlu.json", b"{}")

    plan = plan_release(bundle, remote.target, PublishOptions(repo=remote.repo), Silent())
    release = _publish(remote, make(notes=b"new"))

    assert {change.path for change in plan.changes if change.status == "kept"} == {"LICENSE", "results/mmlu.json"}
    assert set(release.kept_files) == {"LICENSE", "results/mmlu.json"}
    assert release.verified
    files = remote.files()
    assert (files["LICENSE"], files["results/mmlu.json"], files["notes.txt"]) == (LICENSE, b"{}", b"new")


def test_files_that_were_there_before_the_first_release_stay(remote: Remote, make: Make) -> None:
    bundle = make()
    if not isinstance(remote, OnHuggingFace):
        _publish(remote, bundle)
    remote.put("LICENSE", LICENSE)

    release = _publish(remote, bundle)
    again = _publish(remote, bundle)

    assert (release.kept_files, again.kept_files) == (("LICENSE",), ("LICENSE",))
    assert again.uploaded_files == 0


def test_what_an_earlier_release_wrote_goes_and_is_named(remote: Remote, make: Make) -> None:
    _publish(remote, make(notes=b"old"))
    remote.put("LICENSE", LICENSE)

    bundle = make()
    plan = plan_release(bundle, remote.target, PublishOptions(repo=remote.repo), Silent())
    release = _publish(remote, bundle)

    assert [change.path for change in plan.changes if change.status == "deleted"] == ["notes.txt"]
    assert (release.deleted_files, release.kept_files) == (("notes.txt",), ("LICENSE",))
    assert "notes.txt" not in remote.files()


def test_a_file_of_ours_that_somebody_has_changed_is_theirs(remote: Remote, make: Make) -> None:
    _publish(remote, make(notes=b"old"))
    remote.put("notes.txt", b"mad")  # of the same length

    release = _publish(remote, make())

    assert (release.deleted_files, release.kept_files) == ((), ("notes.txt",))
    assert remote.files()["notes.txt"] == b"mad"


def test_mirror_makes_it_what_the_bundle_is(remote: Remote, make: Make) -> None:
    _publish(remote, make())
    remote.put("LICENSE", LICENSE)

    bundle = make()
    plan = plan_release(bundle, remote.target, PublishOptions(repo=remote.repo, is_mirror=True), Silent())
    release = _publish(remote, bundle, is_mirror=True)

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
    _publish(remote, bundle)
    remote.put("LICENSE", LICENSE)
    record_property("inputs", len(CLAIMS))
    for claim in CLAIMS:
        record_path(bundle).unlink()
        remote.put("deploytk.json", claim)

        release = _publish(remote, bundle)

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
    _publish(modelscope, bundle)
    studio = modelscope.hub.studios["me/tiny"]
    studio.files["LICENSE"] = LICENSE
    records = json.loads(record_path(bundle).read_text())
    old = {"old.py": [3, hashlib.sha256(b"old").hexdigest()], "mine.py": [3, hashlib.sha256(b"old").hexdigest()]}
    records["releases"][-1]["app_files"] |= old
    record_path(bundle).write_text(json.dumps(records))
    studio.files |= {"old.py": b"old", "mine.py": b"new"}

    release = _publish(modelscope, bundle)

    assert set(release.app_kept_files) == {"LICENSE", "mine.py"}
    assert "old.py" not in studio.files
    assert (studio.files["LICENSE"], studio.files["mine.py"]) == (LICENSE, b"new")


def test_what_a_kill_left_to_be_deleted_goes_with_the_next_run(
    modelscope: OnModelScope, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(modelscope, make(notes=b"old"))
    bundle = make()
    with monkeypatch.context() as killed:
        killed.setattr("modelscope_hub.HubApi.delete_files", _killed)
        with pytest.raises(KeyboardInterrupt):
            _publish(modelscope, bundle)
    assert "notes.txt" in modelscope.files()

    release = _publish(modelscope, bundle)

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
    _publish(huggingface, bundle)
    space.put("LICENSE", LICENSE)

    huggingface.target = HuggingFace(HuggingFaceOptions(app_sdk="gradio", wait=0), patience_s=3.0, poll_s=0.02)
    plan = huggingface.target.preview(bundle, PublishOptions(repo="me/tiny"))
    release = _publish(huggingface, bundle)

    assert plan.app
    # Under Gradio's SDK there is no Dockerfile: the one that we wrote goes.
    assert {change.path: change.status for change in plan.app.changes if change.status in ("deleted", "kept")} == {
        "Dockerfile": "deleted",
        "LICENSE": "kept",
    }
    assert release.app_kept_files == ("LICENSE",)
    assert space.files()["LICENSE"] == LICENSE
    assert "Dockerfile" not in space.files()


def test_large_files_of_others_stay_in_lfs(openxlab: OnOpenXLab, make: Make) -> None:
    """Without its line in .gitattributes a clone would have the pointer instead of the file."""
    _publish(openxlab, make())
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 7\n".encode()
    openxlab.put("adapters.zip", pointer)

    release = _publish(openxlab, make(notes=b"new"))
    again = _publish(openxlab, make(notes=b"new"))

    assert release.kept_files == again.kept_files == ("adapters.zip",)
    assert b"/adapters.zip filter=lfs" in openxlab.files()[".gitattributes"]
    assert release.revision == again.revision


def test_what_others_wrote_beside_the_app_stays(openxlab: OnOpenXLab, make: Make, tmp_path: Path) -> None:
    remote = tmp_path / "app.git"
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(remote))
    openxlab.target = OpenXLab(OpenXLabOptions(app_remote=str(remote)), patience_s=2.0)
    bundle = make()
    _publish(openxlab, bundle)
    put_in(remote, "LICENSE", LICENSE)
    put_in(remote, "old.py", b"old")
    (app_place(bundle) / ".git").mkdir()
    (app_place(bundle) / ".git" / "HEAD").write_text("ref: refs/heads/main")
    (app_place(bundle) / "notes.md").write_text("mine")
    (app_place(bundle) / "old.py").write_text("old")
    records = json.loads(record_path(bundle).read_text())
    records["releases"][-1]["app_files"]["old.py"] = [3, hashlib.sha256(b"old").hexdigest()]
    record_path(bundle).write_text(json.dumps(records))

    plan = plan_release(bundle, openxlab.target, PublishOptions(repo="me/tiny"), Silent())
    release = _publish(openxlab, bundle)

    assert plan.app
    assert {change.path: change.status for change in plan.app.changes if change.status != "same"} == {
        "LICENSE": "kept",
        "old.py": "deleted",
    }
    assert release.app_kept_files == ("LICENSE", "notes.md")
    assert (app_place(bundle) / "notes.md").read_text() == "mine"
    assert (app_place(bundle) / ".git" / "HEAD").is_file()
    assert not (app_place(bundle) / "old.py").exists()
    assert git(remote, "cat-file", "blob", "main:LICENSE") == LICENSE
    assert b"old.py" not in git(remote, "ls-tree", "-r", "--name-only", "main")


# A card is its owner's to edit, on the hub's own page as well


WORDS = "Hers: it speaks Latin too."


def _edit(remote: Remote) -> bytes:
    """What a person does on the hub's page: a paragraph more."""
    edited = remote.files()["README.md"] + f"\n{WORDS}\n".encode()
    remote.put("README.md", edited)
    return edited


def _write_words(bundle: Bundle, text: str) -> Bundle:
    """Both cards of the bundle, ending in `text`."""
    for name, card in bundle.manifest.card.generated.items():
        (bundle.path / name).write_text(card + text)
    return settle_edits(read_bundle(bundle.path), Silent())


def test_a_card_that_was_edited_there_is_not_written_over(remote: Remote, make: Make) -> None:
    _publish(remote, make())
    edited = _edit(remote)
    bundle = make(notes=b"new")

    plan = plan_release(bundle, remote.target, PublishOptions(repo=remote.repo), Silent())
    with pytest.raises(EditedError, match=r"README\.md of .* was edited there; nothing was sent") as caught:
        _publish(remote, bundle)

    assert [one.message for one in plan.obstacles] == [str(caught.value)]
    assert (caught.value.exit_code, str(bundle.path) in caught.value.hint) == (1, True)
    assert "--edited-card keep" in caught.value.hint
    assert remote.files()["README.md"] == edited
    assert "notes.txt" not in remote.files()


def test_what_was_edited_there_is_taken_into_the_bundle(remote: Remote, make: Make) -> None:
    _publish(remote, make())
    _edit(remote)
    bundle = make(notes=b"new")

    release = _publish(remote, bundle, edited_card="keep")
    again = _publish(remote, read_bundle(bundle.path))

    assert (release.verified, again.uploaded_files) == (True, 0)
    files = remote.files()
    assert (files["notes.txt"], WORDS in files["README.md"].decode()) == (b"new", True)
    own = (bundle.path / ("README_zh.md" if "README_en.md" in files else "README.md")).read_text()
    assert WORDS in own
    assert "git clone" not in own  # how to download it is told by each hub itself
    assert "hf download" not in own


def test_an_edited_card_is_told_of_where_nothing_else_has_changed(local: OnDisk, make: Make) -> None:
    bundle = make()
    _publish(local, bundle)
    edited = _edit(local)

    with pytest.raises(EditedError, match="was edited there"):
        _publish(local, bundle)

    assert local.files()["README.md"] == edited


def test_an_edited_card_is_replaced_by_the_word(modelscope: OnModelScope, make: Make) -> None:
    _publish(modelscope, make())
    before = modelscope.files()["README.md"]
    _edit(modelscope)

    _publish(modelscope, make(), edited_card="replace")

    assert modelscope.files()["README.md"] == before


def test_words_that_were_put_into_the_bundle_by_hand_are_enough(modelscope: OnModelScope, make: Make) -> None:
    _publish(modelscope, make())
    edited = _edit(modelscope)

    _publish(modelscope, _write_words(make(), f"\n{WORDS}\n"))

    assert modelscope.files()["README.md"] == edited


def test_words_that_an_owner_takes_out_of_the_bundle_go(modelscope: OnModelScope, make: Make) -> None:
    bundle = make()
    _publish(modelscope, _write_words(bundle, f"\n{WORDS}\n"))
    assert WORDS in modelscope.files()["README.md"].decode()

    _publish(modelscope, _write_words(bundle, ""))

    assert WORDS not in modelscope.files()["README.md"].decode()


def test_words_in_a_release_that_a_bundle_elsewhere_lacks_are_not_lost(modelscope: OnModelScope, make: Make) -> None:
    """As in CI, which makes the bundle of the model each time: it knows nothing of what was written into another."""
    _publish(modelscope, _write_words(make(), f"\n{WORDS}\n"))
    bundle = make()
    record_path(bundle).unlink()

    with pytest.raises(EditedError, match="was edited there"):
        _publish(modelscope, bundle)

    assert WORDS in modelscope.files()["README.md"].decode()


def test_words_that_were_there_before_the_first_release_are_not_written_over(
    modelscope: OnModelScope, make: Make
) -> None:
    card = b"# Tiny\n\nMy own words.\n"
    modelscope.put("README.md", card)

    for choice in ("refuse", "keep"):  # of what it was made is not known: nothing can be merged
        with pytest.raises(EditedError, match="words of others") as caught:
            _publish(modelscope, make(), edited_card=choice)

    assert "--notes" in caught.value.hint
    assert modelscope.files()["README.md"] == card


def test_a_card_in_another_encoding_is_not_written_over_and_not_merged(modelscope: OnModelScope, make: Make) -> None:
    _publish(modelscope, make())
    card = "# 模型\n\n她写的。\n".encode("gbk")
    modelscope.put("README.md", card)

    with pytest.raises(EditedError, match="words of others"):
        _publish(modelscope, make(notes=b"new"), edited_card="keep")

    assert modelscope.files()["README.md"] == card


def test_a_card_with_a_head_alone_as_forms_write_it_has_no_words(modelscope: OnModelScope, make: Make) -> None:
    modelscope.put("README.md", b"---\nlicense: mit\n---\n\n")

    release = _publish(modelscope, make())

    assert "README.md" not in release.kept_files
