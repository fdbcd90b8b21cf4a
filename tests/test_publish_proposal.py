"""`publish` without a repository proposes one, and tells at once of all that is missing."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MODELS
from git_server import WRITER, GitServer
from hf_hub import WRITER as HF_WRITER
from hf_hub import hf_hub

from deploytk.publish.proposal import repository, usual_name

NOTHING = ("OPENXLAB_USERNAME", "OPENXLAB_GIT_TOKEN", "OPENXLAB_AK", "HF_TOKEN", "MODELSCOPE_API_TOKEN")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in NOTHING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return Path(shutil.copytree(MODELS / "workspace-0.4.2-awq", tmp_path / "workspace_hfmerge"))


def _publish(model: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploytk", "publish", f"./{model.name}", *arguments],
        cwd=model.parent,
        capture_output=True,
        text=True,
        timeout=110,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("openxlab", ["OPENXLAB_USERNAME", "OPENXLAB_GIT_TOKEN", "create it by hand", "OWNER/workspace_hfmerge"]),
        ("huggingface", ["HF_TOKEN", "OWNER/workspace_hfmerge"]),
        ("modelscope", ["MODELSCOPE_API_TOKEN", "OWNER/workspace_hfmerge"]),
    ],
)
def test_all_that_is_missing_is_told_at_once(model: Path, target: str, told: list[str]) -> None:
    done = _publish(model, "--target", target)

    assert (done.returncode, done.stdout) == (2, "")
    assert [word for word in told if word not in done.stderr] == []
    repo = "OWNER/workspace_hfmerge"
    assert f"run: deploytk publish ./workspace_hfmerge --target {target} --repo {repo}" in done.stderr
    assert "None" not in done.stderr
    assert not (model.parent / ".deploytk").exists()  # nothing was packaged


def test_a_repository_that_is_named_needs_the_rest_still(model: Path) -> None:
    done = _publish(model, "--target", "openxlab", "--repo", "me/x")

    assert done.returncode == 1
    assert "OPENXLAB_GIT_TOKEN" in done.stderr
    assert "name x, task Text Generation" in done.stderr


@pytest.fixture
def signed_in(request: pytest.FixtureRequest, model: Path, tmp_path: Path) -> Iterator[str]:
    """A hub with the account `me`, whose token is in the environment."""
    monkeypatch = request.getfixturevalue("monkeypatch")
    if request.param == "openxlab":
        server: GitServer = request.getfixturevalue("git_hub")
        server.create(f"{WRITER[0]}/workspace_hfmerge")
        yield "openxlab"
    elif request.param == "huggingface":
        with hf_hub(tmp_path / "hub") as hub:
            monkeypatch.setenv("HF_ENDPOINT", hub.url)
            monkeypatch.setenv("HF_TOKEN", HF_WRITER)
            yield "huggingface"
    else:
        request.getfixturevalue("modelscope_hub")
        yield "modelscope"


HUBS = pytest.mark.parametrize("signed_in", ["openxlab", "huggingface", "modelscope"], indirect=True)


@HUBS
def test_the_owner_is_the_account_of_the_token(model: Path, signed_in: str) -> None:
    done = _publish(model, "--target", signed_in)

    assert done.returncode == 2
    command = f"deploytk publish ./workspace_hfmerge --target {signed_in} --repo me/workspace_hfmerge"
    assert done.stderr.splitlines()[-1] == f" hint: run: {command}"


@pytest.mark.parametrize("signed_in", ["openxlab"], indirect=True)
def test_a_person_at_a_terminal_is_asked_and_may_just_press_return(model: Path, signed_in: str) -> None:
    terminal, inside = pty.openpty()
    command = [sys.executable, "-m", "deploytk", "publish", f"./{model.name}", "--target", signed_in, "--plan"]
    child = subprocess.Popen(command, cwd=model.parent, stdin=inside, stdout=inside, stderr=inside)
    os.close(inside)
    shown = b""
    until = time.monotonic() + 60
    while b"me/workspace_hfmerge]" not in shown and time.monotonic() < until:
        if select.select([terminal], [], [], 1)[0]:
            shown += os.read(terminal, 2**16)

    os.write(terminal, b"\n")
    with contextlib.suppress(OSError):  # the end of what it says
        while True:
            shown += os.read(terminal, 2**16)
    child.wait(60)

    assert child.returncode == 0, shown.decode()
    os.close(terminal)


def test_a_repository_on_openxlab_that_is_not_there_is_told_before_any_work(
    model: Path, git_hub: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENXLAB_USERNAME", WRITER[0])
    monkeypatch.setenv("OPENXLAB_GIT_TOKEN", WRITER[1])

    done = _publish(model, "--target", "openxlab")

    assert done.returncode == 2
    assert "create it by hand" in done.stderr
    assert not (model.parent / ".deploytk").exists()


def test_a_name_is_what_every_hub_takes() -> None:
    assert usual_name("internlm chat (7b)") == "internlm-chat-7b"
    assert usual_name("模型") == "model"
    assert repository("tiny", "me", "x") == "me/tiny"
    assert repository("you/tiny", "me", "x") == "you/tiny"
    assert repository(None, None, "x") == "OWNER/x"
