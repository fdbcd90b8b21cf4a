"""Where a hub is treated otherwise: many files asked about in portions, names that it takes, how long is waited."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundles import given_bundle
from conftest import MODELS
from git_server import GitServer
from modelscope_server import ModelScopeServer

from deploytk.base.errors import UsageError
from deploytk.base.progress import Silent
from deploytk.bundle import Bundle
from deploytk.publish.options import PublishOptions
from deploytk.publish.release import publish_bundle
from deploytk.publish.targets.common.app_repository import write_app
from deploytk.publish.targets.huggingface.options import HuggingFaceOptions
from deploytk.publish.targets.modelscope import ModelScope
from deploytk.publish.targets.modelscope.options import ModelScopeOptions
from deploytk.publish.targets.openxlab import OpenXLab
from deploytk.publish.targets.openxlab.options import OpenXLabOptions
from deploytk.publish.targets.openxlab.place import check_repo

REPO = "me/tiny"
HALF_AN_HOUR_S = 1800.0


@pytest.fixture
def workspace(tmp_path: Path) -> Bundle:
    return given_bundle(MODELS / "workspace-0.4.2-awq", tmp_path / "bundle")


def test_every_object_is_sent_and_read_back_in_whichever_portion_it_is_asked_about(
    git_hub: GitServer, workspace: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploytk.publish.targets.openxlab.lfs._BATCH", 2)
    weights = {file.sha256 for file in workspace.files if file.kind == "weights"}

    publish_bundle(workspace, OpenXLab(patience_s=2.0), PublishOptions(repo=REPO), Silent())

    read = {call.rpartition("/")[2] for call in git_hub.requests if call.startswith("GET") and "/objects/" in call}
    assert len(weights) > 3 * 2  # so that the last portions have neither of the bits of the first
    assert weights <= set(git_hub.stored) == read


def test_every_blob_is_sent_in_whichever_portion_it_is_asked_about(
    modelscope_hub: ModelScopeServer, workspace: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploytk.publish.targets.modelscope.files._AT_ONCE", 2)

    publish_bundle(workspace, ModelScope(patience_s=2.0), PublishOptions(repo=REPO), Silent())

    there = modelscope_hub.repositories[REPO].files
    paths = [file.path for file in workspace.files if file.kind == "weights"]
    assert {path: there.get(path) for path in paths} == {path: (workspace.path / path).read_bytes() for path in paths}


@pytest.mark.parametrize("repo", ["me/tiny", "a/b", "0/9", "A-b_c.d/E.f", f"{'a' * 96}/{'b' * 96}"])
def test_openxlab_takes_names_of_two_parts(repo: str) -> None:
    assert check_repo(repo) == repo


@pytest.mark.parametrize(
    "repo",
    [
        "", "tiny", "/tiny", "me/", "me/tiny/x", "me/tiny.git", "m e/tiny", "me/ti ny", "-me/tiny", "me/.tiny",
        f"{'a' * 97}/b", f"a/{'b' * 97}", "me/tiny\n",
    ],
)  # fmt: skip
def test_openxlab_takes_no_other_name(repo: str) -> None:
    with pytest.raises(UsageError, match=r"takes no repository called|needs the name of the repository"):
        check_repo(repo)


def test_an_app_is_waited_for_as_long_as_was_said_or_half_an_hour() -> None:
    """An app that is not asked for is not waited for."""
    options = PublishOptions(repo=REPO)
    studio, usual = (ModelScopeOptions(app=True, wait=wait).studio(options) for wait in (5, None))
    space, usual_space = (HuggingFaceOptions(app=True, wait=wait).space(options) for wait in (5, None))
    openxlab, usual_there = (OpenXLabOptions(app_url="https://example.com", wait=wait) for wait in (5, None))

    for asked, unasked in ((studio, usual), (space, usual_space)):
        assert asked
        assert unasked
        assert (asked.wait_s, unasked.wait_s) == (5, HALF_AN_HOUR_S)
    assert (openxlab.wait_s, usual_there.wait_s) == (5, HALF_AN_HOUR_S)
    assert ModelScopeOptions().studio(options) is HuggingFaceOptions().space(options) is None


def test_an_app_that_the_hub_starts_is_preflighted_first() -> None:
    studio = ModelScope(ModelScopeOptions(app=True)).app
    app = OpenXLab(OpenXLabOptions(app=True)).app

    assert studio
    assert app
    assert studio.is_preflighted
    assert app.is_preflighted
    assert ModelScope().app is OpenXLab().app is None


def test_a_file_that_the_app_has_no_longer_goes_and_others_stay(workspace: Bundle, tmp_path: Path) -> None:
    app = write_app(workspace, tmp_path / "app", "https://example.com/me/tiny.git", "0" * 40)
    for name in ("old.py", "mine.txt"):
        (app / name).write_text("of earlier")

    write_app(workspace, app, "https://example.com/me/tiny.git", "1" * 40, ["old.py", "deploytk_app/never.py"])

    assert not (app / "old.py").exists()
    assert (app / "mine.txt").read_text() == "of earlier"
    assert "1" * 40 in (app / "model_source.json").read_text()
