"""A target declares its own options: the command shows and takes just those of the one chosen, also of a plugin."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import run
from conftest import MODELS

MODEL = str(MODELS / "hf-awq")
PLUGIN = """
from dataclasses import dataclass
from typing import Annotated

from deploytk.publish.options import Option
from deploytk.publish.record import Release
from deploytk.publish.target import About


@dataclass(frozen=True, slots=True)
class MoonOptions:
    crater: Annotated[str, Option("Which crater to land in.", metavar="NAME")] = "Tycho"
    wait: Annotated[int | None, Option("Nights.", parse=int)] = None


class Moon:
    about = About("moon", "the Moon", options=MoonOptions, takes=("public",))
    app = None

    def __init__(self, options):
        self.own = options

    def preview(self, bundle, options):
        raise NotImplementedError

    def publish(self, bundle, options, progress):
        repo = f"{self.own.crater}/{self.own.wait}"
        return Release("moon", repo, "1", "moon://", 1, 1, 0, True, "looking up", ())
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A directory for PYTHONPATH in which somebody's package registers the target `moon`."""
    info = tmp_path / "site" / "moonbase-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: moonbase\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[deploytk.targets]\nmoon = moonbase:Moon\nsun = moonsun:Sun\n")
    (tmp_path / "site" / "moonbase.py").write_text(PLUGIN)
    return tmp_path / "site"


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def _with(plugin: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`deploytk publish` in a process that has that package from its start."""
    environment = {**os.environ, "PYTHONPATH": str(plugin)}
    command = [sys.executable, "-m", "deploytk", "publish", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, cwd=cwd)


def test_help_shows_the_targets_and_what_all_of_them_take() -> None:
    shown = run("publish", "--help").stdout

    for name in ("huggingface", "local", "modelscope", "oci", "openxlab"):
        assert name in shown
    assert "--repo" in shown
    for other in ("--app-hardware", "--via", "--app-remote", "--base ", "--wait"):
        assert other not in shown


@pytest.mark.parametrize(
    ("target", "has", "has_not"),
    [
        ("huggingface", ("--app-hardware", "--app-sdk", "--wait"), ("--via", "--base ")),
        ("openxlab", ("--via", "--app-remote", "--app-url"), ("--app-hardware", "--base ")),
        ("modelscope", ("--app ", "--wait"), ("--via", "--app-sdk")),
        ("oci", ("--base ",), ("--app ", "--wait")),
        ("local", (), ("--app ", "--wait", "--base ", "--via")),
    ],
)
def test_help_of_a_target_shows_its_own(target: str, has: tuple[str, ...], has_not: tuple[str, ...]) -> None:
    shown = run("publish", "x", "--target", target, "--help").stdout

    assert [one for one in has if one not in shown] == []
    assert [one for one in has_not if one in shown] == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--target local --app --app-hardware t4-small --via sdk", "--app does nothing here"),
        ("--target local --via sdk", "--via does nothing here: it is an option of openxlab, not of local"),
        ("--target=local --wait 5m", "--wait does nothing here"),
        ("--target huggingface --base x", "--base does nothing here: it is an option of oci"),
        ("--target local --public", "--public does nothing here"),
        ("--target oci --repo 127.0.0.1:9/me/x:1 --public", "--public does nothing here"),
        ("--target oci --repo 127.0.0.1:9/me/x:1 --edited-card keep", "--edited-card does nothing here"),
        ("--target huggingface --wait 5m", "--wait does nothing without an app"),
        ("--target modelscope --wait 5m", "--wait does nothing without an app"),
        ("--target openxlab --app --wait 5m", "--wait does nothing without --app-url"),
        ("--target openxlab --app --via sdk", "--via sdk sends the model alone"),
        ("--target moon", "there is no target 'moon'"),
    ],
)
def test_an_option_without_effect_is_refused_with_the_reason(
    options: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    done = run("publish", MODEL, *options.split())

    assert (done.code, done.stdout) == (2, "")
    assert says in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_somebodys_target_is_shown_chosen_and_given_its_own_options(plugin: Path, tmp_path: Path) -> None:
    general = _with(plugin, "--help").stdout
    shown = _with(plugin, "x", "--target", "moon", "--help").stdout

    model = str(shutil.copytree(MODEL, tmp_path / "model"))
    done = _with(plugin, model, "--target", "moon", "--crater", "Plato", "--wait", "3", cwd=tmp_path)

    assert "moon" in general
    assert "Which crater to land in." in shown
    assert "Plato/3" in done.stdout
    assert _with(plugin, MODEL, "--target", "local", "--crater", "Plato").returncode == 2


def test_a_target_that_cannot_be_loaded_is_in_nobodys_way(plugin: Path) -> None:
    assert "moon" in _with(plugin, "x", "--target", "moon", "--help").stdout

    done = _with(plugin, MODEL, "--target", "sun")

    assert done.returncode == 2
    assert "the target 'sun' cannot be loaded: No module named 'moonsun'" in done.stderr
    assert "reinstall moonbase" in done.stderr


def test_the_settings_file_may_choose_the_target_and_its_options(plugin: Path, tmp_path: Path) -> None:
    (tmp_path / "deploytk.toml").write_text('[publish]\ntarget = "moon"\ncrater = "Copernicus"\nvia = "sdk"\n')

    model = str(shutil.copytree(MODEL, tmp_path / "model"))
    done = _with(plugin, model, cwd=tmp_path)
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "deploytk.toml").write_text('[publish]\ncreater = "Copernicus"\n')

    assert "Copernicus/None" in done.stdout, done.stderr
    assert "no option 'creater'" in _with(plugin, MODEL, cwd=wrong).stderr
