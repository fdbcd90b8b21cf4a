"""What is released: a tag that the version and the changelog agree with, the same bytes every time, links that hold."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import release
from steps import ROOT, load

from deploytk import __version__

REPOSITORY = "https://github.com/deploytk/deploytk"
CHANGELOG = (
    "# Changelog\n\nWords.\n\n## 0.2.0 - 2026-11-27\n\n### Added\n\n- A thing.\n\n## 0.1.0 - 2026-01-01\n\n- Old.\n"
)


def test_the_notes_are_what_the_changelog_says_of_the_tag() -> None:
    assert release.notes("v0.2.0", "0.2.0", CHANGELOG) == "### Added\n\n- A thing."
    assert release.notes("v0.1.0", "0.1.0", "## 0.1.0 - 2026-01-01\n\n- Old.") == "- Old."


@pytest.mark.parametrize(
    ("tag", "version", "changelog", "words"),
    [
        ("v0.2.1", "0.2.0", CHANGELOG, "the tag has to be v0.2.0"),
        ("0.2.0", "0.2.0", CHANGELOG, "the tag has to be v0.2.0"),
        ("v0.2.0; $(touch pwned)", "0.2.0", CHANGELOG, "the tag has to be v0.2.0"),
        ("v0.1.0", "0.1.0", CHANGELOG, "is '0.2.0 - 2026-11-27', it has to be '0.1.0' and a date"),
        ("v0.2.0", "0.2.0", "## Unreleased\n\n- New.\n\n" + CHANGELOG, "is 'Unreleased'"),
        ("v0.2.0", "0.2.0", CHANGELOG.replace(" - 2026-11-27", ""), "and a date"),
        ("v0.2.0", "0.2.0", CHANGELOG.replace("### Added\n\n- A thing.\n", ""), "says nothing of 0.2.0"),
        ("v0.2.0", "0.2.0", "", "'missing'"),
        ("v0.2.0", "0.2.0", CHANGELOG.replace("0.2.0", "0x2.0"), "is '0x2.0 - 2026-11-27', it has to be '0.2.0'"),
    ],
)
def test_a_tag_that_may_not_be_released_is_refused(tag: str, version: str, changelog: str, words: str) -> None:
    with pytest.raises(release.ReleaseError, match=re.escape(words)):
        release.notes(tag, version, changelog)


def test_the_program_says_what_is_to_be_done_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert release.main(["v0.0.0"]) == 1
    assert capsys.readouterr().err.startswith("error: the tag is v0.0.0, ")


def test_one_version_stands_everywhere() -> None:
    in_pyproject = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)

    assert in_pyproject
    assert in_pyproject[1] == __version__ == load("CITATION.cff")["version"]


def _source(place: Path, modified_at: int, mode: int) -> Path:
    """What the wheel is made of, as another checkout has it: other times, other rights, another order of creation."""
    models = ("tests/models/hf-awq", "tests/models/workspace-0.4.2-awq")
    for name in ("toolkit", "templates", "images", *models):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "tests/models/dialogs.json"):
        shutil.copy(ROOT / name, place / name)
    for path in place.rglob("*"):
        os.utime(path, (modified_at, modified_at))
        if path.is_file():
            path.chmod(mode)
    return place


def _wheel(source: Path) -> Path:
    from hatchling.builders.wheel import WheelBuilder

    [built] = WheelBuilder(str(source)).build(directory=str(source / "dist"))
    return Path(built)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of the same source in two checkouts."""
    pytest.importorskip("hatchling")
    places = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SOURCE_DATE_EPOCH", raising=False)
        return _wheel(_source(places[0], 1_000_000_000, 0o644)), _wheel(_source(places[1], 1_600_000_000, 0o600))


def test_the_same_source_gives_the_same_bytes(wheels: tuple[Path, Path]) -> None:
    one, other = (hashlib.sha256(path.read_bytes()).hexdigest() for path in wheels)

    assert wheels[0].name == wheels[1].name == f"deploytk-{__version__}-py3-none-any.whl"
    assert one == other


@pytest.mark.services
def test_the_source_distribution_gives_that_wheel_too(wheels: tuple[Path, Path], tmp_path: Path) -> None:
    from hatchling.builders.sdist import SdistBuilder

    [packed] = SdistBuilder(str(wheels[0].parents[1])).build(directory=str(tmp_path))
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path, filter="data") if hasattr(tarfile, "data_filter") else archive.extractall(tmp_path)

    again = _wheel(tmp_path / f"deploytk-{__version__}")
    assert again.read_bytes() == wheels[0].read_bytes()


def test_the_wheel_has_all_that_runs_and_nothing_else(wheels: tuple[Path, Path]) -> None:
    names = zipfile.ZipFile(wheels[0]).namelist()

    assert {name.split("/")[0] for name in names} == {"deploytk", f"deploytk-{__version__}.dist-info"}
    for needed in ("templates/card/README.md.j2", "images/cpu.Dockerfile", "models/hf-awq/config.json", "py.typed"):
        assert f"deploytk/{needed}" in names
    assert [name for name in names if "__pycache__" in name or "/tests/" in name] == []


def test_the_package_index_is_told_what_it_shows(wheels: tuple[Path, Path]) -> None:
    text = zipfile.ZipFile(wheels[0]).read(f"deploytk-{__version__}.dist-info/METADATA").decode()
    metadata = Parser().parsestr(text)

    urls = dict(one.split(", ", 1) for one in metadata.get_all("Project-URL", []))
    assert {"Documentation", "Source", "Changelog", "Issues"} <= {*urls}
    assert all(url.startswith(REPOSITORY) for url in urls.values())
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert len(metadata["Summary"]) < 200


@pytest.mark.parametrize("page", sorted(path.name for path in ROOT.glob("README*.md")))
def test_every_link_of_a_readme_holds_wherever_it_is_shown(page: str) -> None:
    """The package index shows the page without the files beside it; a link to a file of ours names one that exists."""
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)[^)]*\)", text) + re.findall(r"(?:src|href|srcset)=\"([^\"]+)\"", text)
    own = rf"(?:{REPOSITORY}/(?:blob|tree|raw)|https://raw.githubusercontent.com/deploytk/deploytk)/main/([^#?]+)"

    assert links
    for link in links:
        assert link.startswith(("https://", "#")), link
        if found := re.match(own, link):
            assert (ROOT / found[1]).exists(), link
