"""An engine that hangs is noticed, ended and started again; one that is busy is left alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from apps import App, is_alive, make_app, running_app, wait_for

from deploytk.app.gateway import _work_of
from deploytk.app.limits import Limits
from deploytk.app.traffic import Traffic, Work
from deploytk.app.watchdog import Watchdog

SILENT_S = 1


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_app(tmp_path_factory.mktemp("app"))


@contextlib.contextmanager
def watched(bundle: Path, tmp_path: Path, **environment: str) -> Iterator[App]:
    with running_app(bundle, tmp_path / "app.log", {"DEPLOYTK_WATCHDOG": str(SILENT_S), **environment}) as app:
        app.wait("ready")
        yield app
        assert "Traceback" not in app.output


def asking(app: App, fields: dict[str, Any], answers: list[httpx.Response]) -> threading.Thread:
    """A client that waits for its answer in a thread of its own."""
    body = {"model": "tiny", "prompt": "x", **fields}
    thread = threading.Thread(target=lambda: answers.append(app.post("/v1/completions", body)))
    thread.start()
    return thread


def errors_in(answer: httpx.Response) -> list[str]:
    """The codes of the errors in an answer, whole or a stream."""
    lines = answer.text.replace("data: ", "").splitlines()
    parsed = [json.loads(line) for line in lines if line.startswith("{")]
    return [content["error"]["code"] for content in parsed if "error" in content]


def started_again(app: App, pid: int) -> None:
    wait_for(lambda: not is_alive(pid), 30, lambda: f"{app.state} {app.output}")
    wait_for(lambda: app.state["state"] == "ready" and app.engine[0] != pid, 30, lambda: str(app.state))
    assert app.chat(max_tokens=1).status_code == 200
    assert "deploytk_engine_restarts_total 1" in app.get("/metrics").text


def test_a_stopped_engine_is_started_again_and_nobody_waits_for_ever(bundle: Path, tmp_path: Path) -> None:
    with watched(bundle, tmp_path, DEPLOYTK_MAX_RUNNING="2") as app:
        pid, _ = app.engine
        answers: list[httpx.Response] = []
        slow = {"max_tokens": 1000, "stub_tokens_per_s": 20}
        # A stream, an answer that comes whole, and one that waits for a place.
        clients = [asking(app, {**slow, "stream": at == 0}, answers) for at in range(3)]
        wait_for(lambda: "deploytk_requests_waiting 1" in app.get("/metrics").text, 10)

        os.kill(pid, signal.SIGSTOP)
        seen = app.wait("starting", "verifying", "loading", within_s=20)
        for client in clients:
            client.join(30)

        assert [errors_in(answer) for answer in answers] == [["engine_lost"]] * 3
        assert "the engine answered nothing for" in seen["detail"] or seen["state"] == "loading"
        started_again(app, pid)


def test_an_idle_engine_that_is_stopped_is_noticed_too(bundle: Path, tmp_path: Path) -> None:
    with watched(bundle, tmp_path) as app:
        pid, _ = app.engine

        os.kill(pid, signal.SIGSTOP)

        started_again(app, pid)


def test_an_engine_that_answers_but_makes_no_tokens_is_started_again(bundle: Path, tmp_path: Path) -> None:
    with watched(bundle, tmp_path) as app:
        pid, _ = app.engine
        answers: list[httpx.Response] = []

        client = asking(app, {"stream": True, "max_tokens": 100, "stub_hangs": True}, answers)
        client.join(30)

        assert errors_in(answers[0]) == ["engine_lost"]
        started_again(app, pid)


@pytest.mark.parametrize(
    ("fields", "environment"),
    [
        # A prompt that takes 4 s before its first token, beside which other requests get theirs.
        ({"stream": True, "max_tokens": 4, "stub_first_token_s": 4}, {}),
        # An answer that comes whole, after 4 s, and takes all of the engine:
        # 80 tokens at the 5 per s that the slowest engine makes are 16 s.
        ({"max_tokens": 80, "stub_tokens_per_s": 20}, {"STUB_ONE_AT_A_TIME": "1"}),
        # A prompt of 20 kB that takes all of the engine for 4 s: at 2 kB per s it may take 10.
        (
            {"stream": True, "max_tokens": 4, "stub_first_token_s": 4, "prompt": "x" * 20_000},
            {"STUB_ONE_AT_A_TIME": "1"},
        ),
        # A full batch of streams, with a queue.
        ({"stream": True, "max_tokens": 40, "stub_tokens_per_s": 10}, {"DEPLOYTK_MAX_RUNNING": "1"}),
    ],
)
def test_a_busy_engine_is_left_alone(
    bundle: Path, tmp_path: Path, fields: dict[str, Any], environment: dict[str, str]
) -> None:
    with watched(bundle, tmp_path, **environment) as app:
        pid, _ = app.engine
        answers: list[httpx.Response] = []

        clients = [asking(app, fields, answers) for _ in range(2)]
        for client in clients:
            client.join(30)

        assert [(answer.status_code, errors_in(answer)) for answer in answers] == [(200, [])] * 2
        assert app.engine[0] == pid
        assert "deploytk_engine_restarts_total 0" in app.get("/metrics").text


def test_the_watchdog_can_be_switched_off(bundle: Path, tmp_path: Path) -> None:
    with watched(bundle, tmp_path, DEPLOYTK_WATCHDOG="0") as app:
        pid, _ = app.engine
        os.kill(pid, signal.SIGSTOP)
        time.sleep(4 * SILENT_S)

        assert app.state["state"] == "ready"
        assert is_alive(pid)
        # It ends with the app even so.
        app.process.terminate()
        app.process.wait(10)
        wait_for(lambda: not is_alive(pid), 5)


def test_what_an_engine_may_take_is_counted_by_hand() -> None:
    traffic = Traffic()
    traffic._open = {  # type: ignore[assignment]
        object(): Work(prompt_bytes=4000),
        object(): Work(prompt_bytes=2000, silent_tokens=100),
        object(): Work(silent_tokens=50),
    }

    assert traffic.allowance_s == 23.0  # 6000 bytes / 2000 per s + 100 tokens / 5 per s


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, 2048),  # the whole session
        ({"max_tokens": 5000}, 2048),
        ({"max_tokens": 10, "prompt": "three"}, 10),
        ({"max_tokens": 10, "max_completion_tokens": 7}, 7),
        ({"max_tokens": 10, "n": None}, 10),
        ({"max_tokens": 10, "n": 3}, 30),
        ({"max_tokens": 10, "n": 3, "prompt": ["a", "b"]}, 60),
        ({"max_tokens": 10, "n": 3, "stream": True}, 0),
    ],
)
def test_an_engine_may_be_silent_for_all_the_answers_that_come_whole(fields: dict[str, Any], tokens: int) -> None:
    assert _work_of(fields, 100, Limits()) == Work(prompt_bytes=100, silent_tokens=tokens)


def test_an_engine_is_looked_at_four_times_in_the_time_of_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    engine: Any = None  # it is not asked yet

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(Watchdog(engine, 8).run())

    assert pauses == [2]


@pytest.mark.engine
def test_a_stopped_cpu_engine_is_started_again(tmp_path: Path) -> None:
    bundle = make_app(tmp_path)
    with watched(bundle, tmp_path, DEPLOYTK_ENGINE="cpu", DEPLOYTK_WATCHDOG="3") as app:
        children = Path(f"/proc/{app.process.pid}/task/{app.process.pid}/children")
        pid = int(children.read_text().split()[0])
        before = app.chat(max_tokens=4, temperature=0).json()["choices"][0]["message"]["content"]

        os.kill(pid, signal.SIGSTOP)
        lost = app.chat(max_tokens=4)

        assert (lost.status_code, lost.json()["error"]["code"]) == (503, "engine_lost")
        wait_for(lambda: not is_alive(pid), 10)
        app.wait("ready", within_s=90)
        assert app.chat(max_tokens=4, temperature=0).json()["choices"][0]["message"]["content"] == before
