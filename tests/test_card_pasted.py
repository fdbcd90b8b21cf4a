"""The lines of a published card do what they say: taken from it, and run by a shell or Python as they stand.

What needs a GPU is run by benchmarks/gpu/card.sh. Lines that install are left out: what they install is here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from apps import App, running_app, wait_for
from conftest import MODELS
from remotes import Make, OnHuggingFace, OnModelScope, publish

pytest_plugins = "remotes"  # its fixtures

KNOWN = {one["prompt"].lower(): one["answer"] for one in json.loads((MODELS / "dialogs.json").read_text("utf-8"))}
ASKED = {"README.md": "who are you", "README_zh.md": "你是谁"}


def _blocks(card: str, language: str = "") -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)
    return [text for of, text in found if of == language]


def _run(command: list[str], place: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "NO_PROXY": "*", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


# Downloads, from the hub's stand-in with the hub's own client


def _download(card: str, programs: dict[str, list[str]]) -> list[str]:
    """The command that runs the block that downloads, by the programs that are here."""
    [block] = [block for block in _blocks(card) if block.rstrip().splitlines()[-1].startswith("cd ")]
    lines = [line for line in block.splitlines() if not line.startswith("pip install ")]
    first = lines[0].split()[0]
    lines[0] = shlex.join(programs[first]) + lines[0].removeprefix(first)
    return ["bash", "-c", "\n".join(["set -e", *lines, "cat deploytk.json"])]


def test_the_line_that_downloads_from_hugging_face_brings_the_bundle(
    huggingface: OnHuggingFace, make: Make, tmp_path: Path
) -> None:
    publish(huggingface, make())
    program = [sys.executable, "-c", "from huggingface_hub.cli.hf import main; main()"]

    said = _run(_download(huggingface.files()["README.md"].decode(), {"hf": program}), tmp_path)

    assert huggingface.files()["deploytk.json"].decode() in said
    assert _files(tmp_path / "tiny") == huggingface.files()


def test_the_line_that_downloads_from_modelscope_brings_the_bundle(
    modelscope: OnModelScope, make: Make, tmp_path: Path
) -> None:
    publish(modelscope, make())
    program = [sys.executable, "-c", "from modelscope_hub.cli.main import run_cmd; raise SystemExit(run_cmd())"]

    _run(_download(modelscope.files()["README.md"].decode(), {"modelscope": program}), tmp_path)

    assert _files(tmp_path / "tiny") == {name: one for name, one in modelscope.files().items() if name[0] != "."}


def _files(place: Path) -> dict[str, bytes]:
    """What is not hidden: clients keep their own notes beside it."""
    paths = [path for path in place.rglob("*") if path.is_file()]
    names = {str(path.relative_to(place)): path for path in paths}
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith(".")}


# Questions, of the app that runs and without it


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    place = tmp_path_factory.mktemp("card")
    bundle = place / "bundle"
    _run(
        [sys.executable, "-m", "deploytk", "package", str(MODELS / "hf-fp16"), "-o", str(bundle), "--app", "api"], place
    )
    with running_app(bundle, place / "log", {"DEPLOYTK_ENGINE": "cpu"}) as found:
        wait_for(lambda: found.state["state"] == "ready", 240, lambda: found.output)
        yield found


@pytest.mark.engine
@pytest.mark.timeout(400)
@pytest.mark.parametrize("card", ASKED)
def test_the_lines_for_openai_get_the_known_answer(app: App, card: str) -> None:
    [block] = [one for one in _blocks((app.bundle / card).read_text("utf-8"), "python") if "OpenAI(" in one]
    assert "http://127.0.0.1:7860/v1" in block

    said = _run([sys.executable, "-c", block.replace("http://127.0.0.1:7860", app.url)], app.bundle)

    assert said.strip() == KNOWN[ASKED[card]]


@pytest.mark.engine
@pytest.mark.timeout(400)
@pytest.mark.parametrize("card", ASKED)
def test_the_lines_for_transformers_get_the_known_answer(app: App, card: str) -> None:
    [block] = [one for one in _blocks((app.bundle / card).read_text("utf-8"), "python") if "transformers" in one]
    if not importlib.util.find_spec("accelerate"):  # the card says to install it; on a CPU nothing else is for it to do
        block = block.replace(', device_map="auto"', "")

    said = _run([sys.executable, "-c", block], app.bundle)

    assert said.strip() == KNOWN[ASKED[card]]
