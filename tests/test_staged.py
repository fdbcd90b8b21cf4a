"""What lies where a half-written directory would be: a link of others is not followed, and what it leads to stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from bundles import make_bundle
from conftest import MODELS

from deploytk.artifact import read_artifact
from deploytk.base.files import staged_directory
from deploytk.base.progress import Silent
from deploytk.bundle import BundleOptions
from deploytk.modernize import ModernizeOptions, modernize
from deploytk.publish.targets.common.app_repository import write_app
from deploytk.scale.write import write_files


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A directory of somebody's, to which links of a model may lead."""
    place = tmp_path / "precious"
    (place / "deep").mkdir(parents=True)
    (place / "letter").write_text("mine")
    (place / "deep" / "letter").write_text("mine too")
    return place


def _is_whole(precious: Path) -> bool:
    files = {str(path.relative_to(precious)): path.read_text() for path in precious.rglob("*") if path.is_file()}
    return files == {"letter": "mine", "deep/letter": "mine too"}


def _stage(destination: Path, *, resumable: bool) -> None:
    with staged_directory(destination, resumable=resumable) as staging:
        (staging / "new").write_text("new")


@pytest.mark.parametrize("ending", ["partial", "replaced", "lock"])
@pytest.mark.parametrize("resumable", [True, False])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_in_the_way_is_not_followed(
    ending: str, resumable: bool, is_there: bool, precious: Path, tmp_path: Path
) -> None:
    destination = tmp_path / "out"
    if is_there:
        _stage(destination, resumable=False)
    (tmp_path / f".out.{ending}").symlink_to(precious if ending != "lock" else tmp_path / "made")

    _stage(destination, resumable=resumable)

    assert [path.name for path in destination.iterdir()] == ["new"]
    assert not destination.is_symlink()
    assert _is_whole(precious)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "precious"]


def test_a_failure_behind_a_link_in_the_way_removes_nothing_of_others(precious: Path, tmp_path: Path) -> None:
    def fail() -> None:
        with staged_directory(tmp_path / "out", resumable=False) as staging:
            staging.rmdir()
            staging.symlink_to(precious)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()

    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    assert _is_whole(precious)


@pytest.mark.parametrize("kind", ["link", "link inside", "directory inside"])
def test_modernize_in_a_workspace_that_brings_what_looks_like_an_interrupted_run_loses_nothing(
    kind: str, model_copy: Callable[[str], Path], precious: Path
) -> None:
    workspace = model_copy("workspace-0.7.3-awq")
    staging = workspace / ".out.partial"
    if kind == "link":
        staging.symlink_to(precious)
    elif kind == "link inside":
        staging.mkdir()
        (staging / "link").symlink_to(precious)
    else:
        (staging / "sub" / "deeper").mkdir(parents=True)

    done = modernize(read_artifact(workspace), workspace / "out", ModernizeOptions(), Silent())

    assert not done.path.is_symlink()
    assert sorted(path.name for path in done.path.iterdir()) == list(done.files)
    assert not {"link", "sub"} & {*done.files}
    assert _is_whole(precious)


def test_an_app_that_is_written_beside_a_bundle_follows_no_link_in_the_way(precious: Path, tmp_path: Path) -> None:
    bundle = make_bundle(MODELS / "hf-awq", tmp_path / "bundle")
    (tmp_path / ".app.partial").symlink_to(precious)

    write_app(bundle, tmp_path / "app", "https://hub.example/me/tiny", "0" * 40)

    assert (tmp_path / "app" / "app.py").is_file()
    assert _is_whole(precious)


def test_the_words_of_an_owner_are_kept_by_the_run_after_a_kill_between_two_renames(tmp_path: Path) -> None:
    place = tmp_path / "b"
    make_bundle(MODELS / "hf-awq", place)
    card = place / "README.md"
    card.write_text(card.read_text() + "\nWhat its owner wrote.\n")
    place.rename(tmp_path / ".b.replaced")

    make_bundle(MODELS / "hf-awq", place, BundleOptions(name="tiny", license="mit"))

    assert "What its owner wrote." in card.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_an_overlay_of_a_person_is_kept_by_the_run_after_a_kill_between_two_renames(tmp_path: Path) -> None:
    place = tmp_path / "out"
    write_files(place, {"a.yaml": "old"})
    (place / "overlays" / "mine").mkdir(parents=True)
    (place / "overlays" / "mine" / "kept.yaml").write_text("mine")
    place.rename(tmp_path / ".out.replaced")

    write_files(place, {"a.yaml": "new"})

    assert (place / "overlays" / "mine" / "kept.yaml").read_text() == "mine"
    assert (place / "a.yaml").read_text() == "new"


def test_nothing_half_written_is_part_of_what_modernize_goes_on_to_write(
    model_copy: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = read_artifact(model_copy("workspace-0.7.3-awq"))

    def killed(*_: object) -> None:
        (tmp_path / ".out.partial" / ".config.json.x1y2").write_text("{")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("deploytk.modernize.write._write_texts", killed)
        with pytest.raises(KeyboardInterrupt):
            modernize(workspace, tmp_path / "out", ModernizeOptions(), Silent())

    done = modernize(workspace, tmp_path / "out", ModernizeOptions(), Silent())

    assert done.kept_bytes > 0
    assert not [name for name in done.files if name.startswith(".")]
