"""A repository me/tiny in every place that a bundle can be published to, as a person at its page has it."""

from __future__ import annotations

import base64
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
from modelscope_server import ModelScopeServer, Repository

from deploytk.base.progress import Silent
from deploytk.bundle import Bundle, BundleOptions
from deploytk.publish.options import EditedCard, PublishOptions
from deploytk.publish.record import Release
from deploytk.publish.release import publish_bundle
from deploytk.publish.target import Target
from deploytk.publish.targets.huggingface import HuggingFace
from deploytk.publish.targets.local import Local
from deploytk.publish.targets.modelscope import ModelScope
from deploytk.publish.targets.openxlab import OpenXLab


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
def modelscope(modelscope_hub: ModelScopeServer, monkeypatch: pytest.MonkeyPatch) -> OnModelScope:
    monkeypatch.setattr("deploytk.publish.targets.modelscope.studio._POLL_S", 0.02)
    modelscope_hub.repositories["me/tiny"] = Repository(1)
    return OnModelScope(modelscope_hub, ModelScope())


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
        place, options = tmp_path / "bundle", BundleOptions(name="tiny", license="mit", app="api")
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


def publish(remote: Remote, bundle: Bundle, *, is_mirror: bool = False, edited_card: EditedCard = "refuse") -> Release:
    options = PublishOptions(repo=remote.repo, is_mirror=is_mirror, edited_card=edited_card)
    return publish_bundle(bundle, remote.target, options, Silent())
