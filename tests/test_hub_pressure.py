"""Hubs under pressure: who asks to wait is quoted at once, waited for within the patience, and else it is 75.

The servers speak the real protocols to the real clients; how long those would wait by themselves is not asked.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from bundles import as_shown_on, whole_bundle
from conftest import MODELS
from hf_hub import WRITER as HF_TOKEN
from hf_hub import Hub, hf_hub
from modelscope_server import WRITER as MODELSCOPE_TOKEN
from modelscope_server import ModelScopeServer, modelscope_server
from stranger import Stranger, stranger

from deploytk.base.errors import TryAgainError
from deploytk.base.progress import Silent
from deploytk.bundle import Bundle
from deploytk.publish.options import PublishOptions
from deploytk.publish.release import publish_bundle
from deploytk.publish.targets.huggingface import HuggingFace, client
from deploytk.publish.targets.modelscope import ModelScope, signin
from deploytk.publish.targets.openxlab import OpenXLab

REPO = "me/tiny"
pytestmark = pytest.mark.timeout(120)


class Noted(Silent):
    """Keeps what a person would read."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hf_hub(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", HF_TOKEN)
        yield hub


@pytest.fixture
def scope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelScopeServer]:
    monkeypatch.setenv("HOME", str(tmp_path))
    with modelscope_server() as server:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.url)
        monkeypatch.setenv("MODELSCOPE_API_TOKEN", MODELSCOPE_TOKEN)
        yield server


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """One bundle for each target, made once: nothing here changes them."""
    found = {}
    for target in ("huggingface", "modelscope", "openxlab", "oci"):
        plain = whole_bundle(MODELS / "hf-awq", tmp_path_factory.mktemp(target) / "bundle")
        found[target] = plain if target == "oci" else as_shown_on(plain, target, REPO)
    return found


def publish(bundle: Bundle, target: Any) -> Noted:
    noted = Noted()
    publish_bundle(bundle, target, PublishOptions(repo=REPO), noted)
    return noted


def refusal(bundle: Bundle, target: Any) -> TryAgainError:
    with pytest.raises(TryAgainError) as caught:
        publish(bundle, target)
    assert caught.value.exit_code == 75
    return caught.value


# Hugging Face: its client waits by itself, up to five times as long as it is told


HUGGINGFACE = "info create tree preupload batch PUT commit yaml resolve".split()


@pytest.mark.parametrize(("kind", "status"), [*zip(HUGGINGFACE, itertools.cycle((429, 503)))])
def test_a_hub_that_asks_for_ten_minutes_is_not_waited_for(
    hub: Hub, made: dict[str, Bundle], kind: str, status: int
) -> None:
    hub.faults[kind] = [(status, 600)] * 60

    error = refusal(made["huggingface"], HuggingFace(patience_s=5.0))

    assert f"answers {status} and asks to wait 600 s" in str(error)
    assert re.search(r"run again after \d\d:\d\d:\d\d", error.hint)
    assert len(hub.faults[kind]) >= 40  # it was not asked again and again; samples are read by eight at once


@pytest.mark.parametrize("kind", ["info", "PUT", "commit"])
def test_a_wait_within_the_patience_is_said_at_once_and_waited_for(
    hub: Hub, made: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(client, "_LONGEST_PAUSE_S", 0.5)
    hub.faults[kind] = [(429, 1)]

    noted = publish(made["huggingface"], HuggingFace(patience_s=20.0))

    said = [note for note in noted.notes if "answers 429: again" in note]
    assert len(said) == 1
    assert "until" in said[0]
    assert len(hub.commits(REPO)) == 2


def test_a_short_wait_that_is_left_to_the_client_is_said_too(hub: Hub, made: dict[str, Bundle]) -> None:
    hub.faults["PUT"] = [(503, 1)]

    noted = publish(made["huggingface"], HuggingFace(patience_s=20.0))

    assert any(note.endswith("answers 503: asked again in 1 s") for note in noted.notes)


def test_a_commit_beyond_the_limit_is_looked_for_and_not_sent_again(
    hub: Hub, made: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_STALLED_S", 0.5)
    monkeypatch.setattr(client, "_COMMITTED_S", 0.0)
    hub.on["commit"] = lambda: time.sleep(4)

    noted = publish(made["huggingface"], HuggingFace(patience_s=60.0))

    assert [kind for kind, _ in hub.requests].count("commit") == 1
    assert len(hub.commits(REPO)) == 2
    assert any("has the commit and has not answered: looking for it" in note for note in noted.notes)


def test_a_commit_that_never_shows_is_75_and_not_sent_again(
    hub: Hub, made: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_STALLED_S", 0.5)
    monkeypatch.setattr(client, "_COMMITTED_S", 0.0)
    hub.on["commit"] = lambda: time.sleep(12)

    error = refusal(made["huggingface"], HuggingFace(patience_s=2.0))

    assert "has not finished the commit" in str(error)
    assert [kind for kind, _ in hub.requests].count("commit") == 1


# ModelScope: the same with its client


@pytest.mark.parametrize(
    ("kind", "status"), [("GET", 503), ("POST", 429), ("batch", 503), ("PUT", 503), ("commit", 429)]
)
def test_modelscope_is_not_waited_for_beyond_the_patience(
    scope: ModelScopeServer, made: dict[str, Bundle], kind: str, status: int
) -> None:
    scope.faults[kind] = [(status, 600)] * 20

    error = refusal(made["modelscope"], ModelScope(patience_s=5.0))

    assert f"answers {status} and asks to wait 600 s" in str(error)
    assert len(scope.faults[kind]) >= 10


@pytest.mark.parametrize("kind", ["PUT", "commit"])
def test_modelscope_is_waited_for_within_it(scope: ModelScopeServer, made: dict[str, Bundle], kind: str) -> None:
    scope.faults[kind] = [(429, 1)]

    noted = publish(made["modelscope"], ModelScope(patience_s=20.0))

    assert [note for note in noted.notes if note.startswith("ModelScope answers 429: again in")]
    assert len(scope.repositories[REPO].commits) == 1


def commits_sent(scope: ModelScopeServer) -> int:
    return sum("/commit/" in request for request in scope.requests)


def test_a_commit_that_modelscope_takes_long_for_is_looked_for_and_not_sent_again(
    scope: ModelScopeServer, made: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signin, "_COMMITTED_S", 0.5)
    scope.before["commit"] = lambda: time.sleep(4)

    noted = publish(made["modelscope"], ModelScope(patience_s=60.0))

    assert (commits_sent(scope), len(scope.repositories[REPO].commits)) == (1, 1)
    assert any("ModelScope gave no answer to a commit" in note for note in noted.notes)


def test_a_commit_that_modelscope_never_shows_is_75_and_not_sent_again(
    scope: ModelScopeServer, made: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signin, "_COMMITTED_S", 0.5)
    scope.before["commit"] = lambda: time.sleep(12)

    error = refusal(made["modelscope"], ModelScope(patience_s=2.0))

    assert "has not finished the commit" in str(error)
    assert commits_sent(scope) <= 1  # it is written down when it is done


def test_a_commit_whose_answer_modelscope_loses_is_recognised(scope: ModelScopeServer, made: dict[str, Bundle]) -> None:
    scope.loses_answer.add("commit")

    publish(made["modelscope"], ModelScope(patience_s=20.0))

    assert (commits_sent(scope), len(scope.repositories[REPO].commits)) == (1, 1)


# OpenXLab: git says no time, LFS does


@pytest.mark.parametrize(("kind", "status"), [("GET", 429), ("batch", 503), ("PUT", 429), ("push", 503), ("push", 429)])
def test_openxlab_is_not_waited_for_beyond_the_patience(
    git_hub: Any, made: dict[str, Bundle], kind: str, status: int
) -> None:
    git_hub.faults[kind] = [(status, 600)] * 20

    error = refusal(made["openxlab"], OpenXLab(patience_s=5.0))

    assert "and asks to wait 600 s" in str(error)
    assert len(git_hub.faults[kind]) >= 10


@pytest.mark.parametrize("kind", ["GET", "batch", "PUT", "push"])
def test_openxlab_is_waited_for_within_it(git_hub: Any, made: dict[str, Bundle], kind: str) -> None:
    by_git = kind in ("GET", "push")  # and our look at what it does not say
    git_hub.faults[kind] = [(429, 1)] * (2 if by_git else 1)

    noted = publish(made["openxlab"], OpenXLab(patience_s=20.0))

    assert [note for note in noted.notes if "answers 429" in note]


def pushes(git_hub: Any) -> int:
    return sum("POST" in request and request.endswith("/git-receive-pack") for request in git_hub.requests)


def test_a_push_that_takes_long_is_looked_for_and_not_sent_again(
    git_hub: Any, made: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploytk.publish.targets.openxlab.git._SILENT_S", 1)
    git_hub.faults["push"] = ["slow"]

    noted = publish(made["openxlab"], OpenXLab(patience_s=60.0))

    assert pushes(git_hub) == 1
    assert any("has the push and has not answered" in note for note in noted.notes)


def test_a_push_that_never_shows_is_75_and_not_sent_again(
    git_hub: Any, made: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploytk.publish.targets.openxlab.git._SILENT_S", 1)
    git_hub.faults["push"] = ["hang"]

    error = refusal(made["openxlab"], OpenXLab(patience_s=2.0))

    assert "has the push and has not answered" in str(error)
    assert pushes(git_hub) == 1


# Signals: the first one ends it, whatever is being done


WAITING = {
    "huggingface": ("HF_ENDPOINT", "HF_TOKEN"),
    "modelscope": ("MODELSCOPE_ENDPOINT", "MODELSCOPE_API_TOKEN"),
}


@pytest.fixture
def busy() -> Iterator[Stranger]:
    """Whatever it is asked it says 503, and to come again in a minute."""
    with stranger() as server:
        server.always = (503, {"Retry-After": "60"}, b"")
        yield server


@pytest.mark.parametrize(
    ("target", "number"), [("huggingface", signal.SIGTERM), ("modelscope", signal.SIGTERM), ("oci", signal.SIGINT)]
)
def test_the_first_signal_ends_a_run_that_waits(
    busy: Stranger, made: dict[str, Bundle], target: str, number: signal.Signals
) -> None:
    bundle = made[target]
    repo = f"{busy.host}/me/tiny:1" if target == "oci" else REPO
    environment = dict(os.environ)
    if target in WAITING:
        address, token = WAITING[target]
        environment |= {address: f"http://{busy.host}", token: "t" * 40}
    command = [sys.executable, "-m", "deploytk", "publish", str(bundle.path), "--target", target, "--repo", repo]

    code, took_s, said = ended(command, environment, number, r"answers 503")

    assert code == 128 + number
    assert took_s < 5  # 2 s, on a machine that may be busy
    assert "Traceback" not in said


def test_the_first_signal_ends_a_run_whose_threads_do_not_listen() -> None:
    """As clients do that send files from a pool of threads: to leave the pool is to wait for all of them."""
    program = """
import os, sys, time
from concurrent.futures import ThreadPoolExecutor
from deploytk.cli.ending import run_to_the_end

def run():
    with ThreadPoolExecutor(2) as threads:
        print("waiting", file=sys.stderr, flush=True)
        for waiting in [threads.submit(time.sleep, 60) for _ in range(2)]:
            waiting.result()

code = run_to_the_end(run, ["publish", "--json"])
sys.stdout.flush()
os._exit(code)  # as deploytk ends
"""
    code, took_s, said = ended([sys.executable, "-c", program], dict(os.environ), signal.SIGTERM, "waiting")

    assert code == 143
    assert took_s < 5
    assert '"exit_code": 143' in said


def ended(command: list[str], environment: dict[str, str], number: signal.Signals, when: str) -> tuple[int, float, str]:
    """Exit code of a command that gets a signal once it has said `when`, how long it took from then, what it said."""
    with ExitStack() as stack:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        assert process.stdout is not None
        stack.callback(process.stdout.close)
        stack.callback(process.wait)
        stack.callback(process.kill)
        said = ""
        while not re.search(when, said):
            line = process.stdout.readline().decode()
            assert line, said
            said += line
        started = time.monotonic()
        process.send_signal(number)
        said += process.stdout.read().decode()
        return process.wait(30), time.monotonic() - started, said
