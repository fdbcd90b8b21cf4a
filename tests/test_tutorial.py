"""Tutorial and targets do what they say: their commands are taken from the pages and run by a shell, in their order."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from apps import running_app
from conftest import MODELS
from git_server import WRITER, GitServer
from hf_hub import READER as HF_READER
from hf_hub import WRITER as HF_WRITER
from hf_hub import hf_hub
from modelscope_server import ModelScopeServer
from pages import answers, opened, say, until_answered

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)


def _script(page: Path) -> str:
    """All blocks as one script. `serve` runs beside the rest, as in a terminal of its own; `smoke` may be in doubt."""
    lines = []
    for line in "".join(BLOCK.findall(page.read_text(encoding="utf-8"))).splitlines():
        if line.startswith("deploytk serve "):
            line = f"{line.partition('#')[0]} >serve.log 2>&1 </dev/null &"
        elif line.startswith("deploytk smoke "):
            line = f"{line.partition('#')[0]} || [ $? = 4 ]"  # this machine was too busy to tell
        lines.append(line)
    return "\n".join(["set -e", *lines, ""])


def _run(script: str, place: Path, stdin: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shell = subprocess.Popen(
        ["bash", "-c", script],
        cwd=place,
        env={**os.environ, "PATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = shell.communicate(stdin, timeout=540)
    finally:
        # The server that still runs in its terminal.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGTERM)
    return subprocess.CompletedProcess(script, shell.returncode, said)


@pytest.mark.engine
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("hub_port")
def test_every_command_of_the_tutorial_works(
    git_hub: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "home"
    place.mkdir()
    git_hub.create("me/internlm-chat-7b-awq")
    monkeypatch.delenv("OPENXLAB_GIT_TOKEN")

    done = _run(_script(DOCS / "tutorial.md"), place, stdin=f"{WRITER[1]}\n")

    assert done.returncode == 0, done.stdout
    report = json.loads((place / "report.json").read_text())
    golden = [found for found in report["correctness"] if found["check"] == "golden answers"]
    assert [found["status"] for found in golden] == ["pass"]
    assert "type: output_tps" in (place / "bundle" / "README.md").read_text(encoding="utf-8")
    assert (place / "hub" / "repos" / "internlm-chat-7b-awq" / "current" / "deploytk.json").is_file()
    heads = subprocess.run(
        ["git", "log", "--oneline", "main"],
        cwd=git_hub.root / "me" / "internlm-chat-7b-awq.git",
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(heads.stdout.splitlines()) == 1
    assert WRITER[1] not in done.stdout


@pytest.mark.services
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("hub_port")
def test_the_way_of_the_readme_ends_at_a_page_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browser: Any
) -> None:
    """The stand-in of the hub runs no Space: what lies in it is started here, as the hub would, but on the CPU."""
    place, space = tmp_path / "home", tmp_path / "space"
    shutil.copytree(MODELS / "workspace-0.4.2-awq", place / "workspace_hfmerge")
    with hf_hub(tmp_path / "hf") as hub:
        for name, value in {"HF_ENDPOINT": hub.url, "HF_TOKEN": HF_WRITER, "HF_APP_TOKEN": HF_READER}.items():
            monkeypatch.setenv(name, value)

        done = _run(_script(DOCS.parent / "README.md"), place, stdin="")

        assert done.returncode == 0, done.stdout
        assert "deploytk smoke http" in done.stdout  # what to do next, with the address of the page
        for path, file in hub.commits("me/internlm-chat-7b-app", "spaces")[-1]["files"].items():
            (space / path).parent.mkdir(parents=True, exist_ok=True)
            (space / path).write_bytes(hub.content(file))
        here = {"DEPLOYTK_ENGINE": "cpu", "HF_TOKEN": HF_READER, "HOME": str(tmp_path)}
        with running_app(space, tmp_path / "app.log", here) as app:
            app.wait("ready", within_s=240)
            with opened(browser, app.url) as page:
                say(page, "你是谁")
                until_answered(page)
                [said] = answers(page)
        # Trained on other prompts than those of the template which the workspace names, it recites from its story.
        assert re.search(r"[\u4e00-\u9fff]{4}", said)


def test_the_way_of_the_readme_in_chinese_is_the_same() -> None:
    commands = [re.sub(r" *#.*", "", _script(DOCS.parent / page)) for page in ("README.md", "README.zh-CN.md")]

    assert commands[0] == commands[1]
    assert commands[0].count("deploytk ") == 6


def test_the_tutorial_in_chinese_has_the_commands_that_were_run() -> None:
    assert _script(DOCS / "zh" / "tutorial.md") == _script(DOCS / "tutorial.md")


def test_no_command_of_the_tutorial_stands_where_the_test_does_not_look() -> None:
    text = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(\w*)\n", text)[::2]

    assert {*blocks} == {"bash"}
    assert len(BLOCK.findall(text)) == len(blocks) > 8


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the model lies that the pages of the targets publish."""
    place = tmp_path / "models"
    shutil.copytree(MODELS / "hf-awq", place / "internlm-chat-7b-awq")
    return place


def _published(page: str, place: Path) -> str:
    """What the first block of a target's page says, without what installs something or sets a token."""
    text = (DOCS / "targets" / page).read_text(encoding="utf-8")
    block = re.findall(r"```\n(.*?)```", text, re.DOTALL)[0]
    lines = [line for line in block.splitlines() if not line.startswith(("export ", "pip "))]
    done = _run("\n".join(["set -e", *lines]), place, stdin="")
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_page_of_the_directory_publishes(place: Path) -> None:
    said = _published("local.md", place)

    assert "verified" in said
    assert (place / "hub" / "repos" / "internlm-chat-7b-awq" / "current").exists()


def test_the_page_of_hugging_face_publishes(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hf_hub(tmp_path / "hf") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", HF_WRITER)
        _published("huggingface.md", place)

        assert len(hub.commits("me/internlm-chat-7b-awq")) > 0


def test_the_page_of_openxlab_publishes(place: Path, git_hub: GitServer) -> None:
    git_hub.create("me/internlm-chat-7b-awq")

    assert "verified" in _published("openxlab.md", place)


def test_the_page_of_modelscope_publishes(place: Path, modelscope_hub: ModelScopeServer) -> None:
    _published("modelscope.md", place)

    assert "me/internlm-chat-7b-awq" in modelscope_hub.repositories
