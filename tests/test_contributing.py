"""CONTRIBUTING says which files to touch to add something: done here, in a copy of the package."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MODELS

ROOT = Path(__file__).parents[1]

COMMAND = '''
"""A command that greets."""

from __future__ import annotations

from deploytk.cli.command import command
from deploytk.cli.options import ModelDir, Planning
from deploytk.cli.session import show


@command("deploytk greet ./model --gpu T4")
def greet(model: ModelDir, planning: Planning) -> None:
    """Say hello to a model."""
    show({"hello": model.name, "gpu": planning.gpu}, "show_fields")
'''

TARGET = '''
"""The Moon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from deploytk.publish.options import Option
from deploytk.publish.record import Release
from deploytk.publish.target import About


@dataclass(frozen=True, slots=True)
class MoonOptions:
    crater: Annotated[str, Option("Which crater to land in.", metavar="NAME")] = "Tycho"


class Moon:
    about = About("moon", "the Moon", options=MoonOptions)
    app = None

    def __init__(self, options):
        self.own = options

    def preview(self, bundle, options):
        raise NotImplementedError

    def publish(self, bundle, options, progress):
        return Release("moon", self.own.crater, "1", "moon://", 1, 1, 0, True, "looking up", ())
'''


def _files_to_touch(thing: str, name: str) -> list[str]:
    """The second column of the table, for one of its rows."""
    [row] = re.findall(rf"^\| {thing} \| (.*?) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    return [path.replace("NAME", name) for path in re.findall(r"`(.*?)`", row)]


class Copy:
    """A copy of what the package is made of, installed well enough to be run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "toolkit", root / "toolkit", ignore=ignored)
        for name in ("templates", "images"):
            (root / name).symlink_to(ROOT / name)
        shutil.copy(ROOT / "pyproject.toml", root)
        self.touched: set[str] = set()

    def change(self, path: str, edit: Callable[[str], str]) -> None:
        file = self.root / path
        file.write_text(edit(file.read_text() if file.exists() else ""))
        self.touched.add(path)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """deploytk, from the copy; its entry points are those of the copy's pyproject.toml."""
        info = self.root / "toolkit" / "deploytk-9.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: deploytk\nVersion: 9\n")
        text = (self.root / "pyproject.toml").read_text()
        table = text.partition('[project.entry-points."deploytk.targets"]\n')[2].partition("\n[")[0]
        (info / "entry_points.txt").write_text("[deploytk.targets]\n" + table.replace('"', ""))
        environment = {**os.environ, "PYTHONPATH": str(self.root / "toolkit"), "XDG_CACHE_HOME": str(self.root)}
        command = [sys.executable, "-m", "deploytk", *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=self.root, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def test_a_command(copy: Copy) -> None:
    def register(text: str) -> str:
        return text.replace('    "inspect",\n', '    "inspect",\n    "greet",\n', 1)

    copy.change("toolkit/deploytk/cli/greet.py", lambda _: COMMAND.lstrip())
    copy.change("toolkit/deploytk/cli/lazily.py", register)

    done = copy.run("greet", str(MODELS / "hf-awq"), "--gpu", "T4", "--json")

    assert json.loads(done.stdout) == {"hello": "hf-awq", "gpu": "T4"}
    assert '"greet"' in copy.run("config", "schema").stdout
    assert "Example:  deploytk greet" in copy.run("greet", "--help").stdout
    assert copy.touched == {*_files_to_touch("a command", "greet")}


def test_a_target(copy: Copy) -> None:
    entry = 'moon = "deploytk.publish.targets.moon:Moon"\n'
    copy.change("toolkit/deploytk/publish/targets/moon.py", lambda _: TARGET.lstrip())
    copy.change("pyproject.toml", lambda text: text.replace('openxlab = "deploytk', f'{entry}openxlab = "deploytk'))
    model = shutil.copytree(MODELS / "hf-awq", copy.root / "model")

    done = copy.run("publish", str(model), "--target", "moon", "--crater", "Plato", "--json")

    assert json.loads(done.stdout)["repo"] == "Plato", done.stderr
    assert copy.touched == {*_files_to_touch("a target", "moon")}


def test_an_lmdeploy_version(copy: Copy) -> None:
    room = "toolkit/deploytk/lmdeploy"
    newest = json.loads((ROOT / room / "support.json").read_text())["versions"][-1]
    copy.change(f"{room}/support.json", lambda text: text.replace(f'"{newest}"]', f'"{newest}", "99.0.0"]', 1))
    copy.change(f"{room}/overhead.yaml", lambda text: text.replace(f"last: {newest}\n", "last: 99.0.0\n"))

    done = copy.run("plan", str(MODELS / "hf-fp16"), "--json")

    assert json.loads(done.stdout)["lmdeploy"] == "99.0.0", done.stderr
    assert copy.touched == {*_files_to_touch("an LMDeploy version", "")}


def test_a_gpu(copy: Copy) -> None:
    copy.change("toolkit/deploytk/hardware/gpus.yaml", lambda text: text + 'X1: {total: 99999, capability: "13.0"}\n')

    done = copy.run("plan", str(MODELS / "hf-awq"), "--gpu", "x1", "--json")

    assert json.loads(done.stdout)["gpu"]["name"] == "X1", done.stderr
    assert copy.touched == {*_files_to_touch("a GPU", "")}
