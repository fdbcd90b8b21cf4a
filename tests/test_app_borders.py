"""Where the app does otherwise: pauses before a restart, open files, what is left of a body, counters from nothing."""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h11
import pytest
from lying_server import Asked, lying, plain

from deploytk.app import server
from deploytk.app.chunks import Unchunked
from deploytk.app.connections import GuardedProtocol
from deploytk.app.engine import Engine
from deploytk.app.metrics import Histogram, Metrics
from deploytk.app.settings import EngineSettings
from deploytk.app.traffic import Traffic

FOREVER = resource.RLIM_INFINITY


def _pauses(monkeypatch: pytest.MonkeyPatch, runs_s: list[float]) -> list[float]:
    """How long an app that once answered waits after each of these runs of its engine, before it starts it again."""
    now_s, pauses = 1000.0, list[float]()
    engine: Any = Engine(EngineSettings("turbomind", (sys.executable,), Path(), {}, None))
    engine.ready_after_s = 1.0

    async def run_once() -> None:
        nonlocal now_s
        now_s += runs_s[len(pauses)]

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == len(runs_s):
            engine.drain()

    monkeypatch.setattr("deploytk.app.engine.time", SimpleNamespace(monotonic=lambda: now_s))
    monkeypatch.setattr(engine, "_run_once", run_once)
    monkeypatch.setattr(engine, "_end_process", lambda: asyncio.get_running_loop().run_in_executor(None, int))
    monkeypatch.setattr(asyncio, "sleep", sleep)
    asyncio.run(engine._keep_running())
    return pauses


def test_an_engine_that_ends_again_and_again_is_waited_for_twice_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to a minute; one that ran for more than a minute is started again soon."""
    assert _pauses(monkeypatch, [3.0] * 8) == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert _pauses(monkeypatch, [3.0, 3.0, 60.0, 60.5, 3.0]) == [1.0, 2.0, 4.0, 0.5, 1.0]


def test_an_engine_that_has_ended_is_not_ready_while_its_last_words_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child of it may hold its output open."""
    engine: Any = Engine(EngineSettings("turbomind", ("sh", "-c", "sleep 0.2; exit 1"), Path(), {}, None))
    seen: list[str] = []

    async def become_ready() -> None:
        if engine.state == "loading":
            engine.state = "ready"

    async def read_log(process: asyncio.subprocess.Process) -> None:
        await process.wait()
        for _ in range(5):  # whoever else waits for the end has seen it too
            await asyncio.sleep(0)
        seen.append(engine.state)

    monkeypatch.setattr("deploytk.app.engine.WORK", Path())
    monkeypatch.setattr(engine, "_wait_until_ready", become_ready)
    monkeypatch.setattr(engine, "_read_log", read_log)
    asyncio.run(engine._run_once())

    assert seen == ["starting"]


def test_the_engine_of_somebody_else_on_that_port_is_not_taken_for_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that was free may be taken before the engine has it: by the engine of another app."""
    engine: Any = Engine(EngineSettings("turbomind", ("sh", "-c", "sleep 2; exit 1"), Path(), {}, None))
    asked = []

    def answer(request: Asked, send: Callable[[bytes], None]) -> None:
        asked.append(request.path)
        send(plain(b'{"data": [{"id": "other"}], "usage": {"completion_tokens": 1}}'))

    with lying(answer) as url:
        port = int(url.rpartition(":")[2])
        monkeypatch.setattr("deploytk.app.engine.WORK", Path())
        monkeypatch.setattr("deploytk.app.engine._free_port", lambda: port)
        asyncio.run(engine._run_once())

    assert "/v1/completions" in asked
    assert engine.ready_after_s is None
    assert engine.state == "starting"


@pytest.mark.parametrize(
    ("soft", "hard", "allowed"),
    [
        (1024, 4096, 2000),
        (1999, 2000, 2000),
        (1024, 1500, 1500),  # more nobody can have
        (1024, FOREVER, 2000),
        (2000, 4096, None),
        (4096, 4096, None),
        (FOREVER, FOREVER, None),
    ],
)
def test_as_many_files_as_connections_may_be_open_where_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, allowed: int | None
) -> None:
    """What is enough already is left as it is."""
    told: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: told.append((kind, limits)))

    server._allow_files(2000)

    assert told == ([] if allowed is None else [(resource.RLIMIT_NOFILE, (allowed, hard))])


@pytest.mark.parametrize("first", range(1, 15))
def test_what_is_not_asked_for_of_chunks_is_left_there(first: int) -> None:
    async def read() -> tuple[bytes, bytes]:
        reader = asyncio.StreamReader()
        reader.feed_data(b"5\r\nabcde\r\n6\r\nfghijk\r\n4\r\nlmno\r\n0\r\n\r\n")
        reader.feed_eof()
        body = Unchunked(reader)
        return await body.readexactly(first), await body.readexactly(15 - first)

    assert asyncio.run(read()) == (b"abcdefghijklmno"[:first], b"abcdefghijklmno"[first:])


def test_an_app_that_was_asked_nothing_has_counted_nothing() -> None:
    text = Metrics().text(is_ready=False, load_s=0.0, restarts=0)

    values = {line.partition(" ")[0]: float(line.partition(" ")[2]) for line in text.splitlines() if line[0] != "#"}
    assert len(values) == 6 + 2 * 17  # six numbers, and 15 buckets, a sum and a count of two histograms
    assert set(values.values()) == {0.0}


def test_times_are_counted_up_to_the_bounds_that_dashboards_know() -> None:
    """Prometheus' own default buckets, and longer ones: answers take minutes."""
    bounds = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
    histogram = Histogram("x", "")

    for seconds in (*bounds, 300.1):
        histogram.add(seconds)

    counted = [f'x_bucket{{le="{bound}"}} {number}' for number, bound in enumerate((*bounds, "+Inf"), 1)]
    assert [*histogram.lines()][2:17] == counted


@pytest.mark.parametrize("answered", [None, True, False])
def test_a_request_that_is_none_ends_the_one_before_it_only_where_that_is_unanswered(answered: bool | None) -> None:
    """The first that comes over a connection has none before it."""
    written: list[bytes] = []
    event = asyncio.Event()
    protocol: Any = GuardedProtocol.__new__(GuardedProtocol)
    protocol.conn = h11.Connection(h11.SERVER)
    protocol.transport = SimpleNamespace(write=written.append, close=lambda: written.append(b"closed"))
    cycle = SimpleNamespace(response_complete=answered, disconnected=False, message_event=event)
    protocol.cycle = None if answered is None else cycle

    protocol.send_400_response("no request")

    assert b"".join(written).startswith(b"HTTP/1.1 400")
    assert b'"no request"' in b"".join(written)
    assert written[-1] == b"closed"
    assert cycle.disconnected == event.is_set() == (answered is False)


def test_silence_is_counted_from_the_last_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 10.0
    monkeypatch.setattr("deploytk.app.traffic.time", SimpleNamespace(monotonic=lambda: now_s))
    traffic = Traffic()

    now_s = 12.5
    assert traffic.silent_s == 2.5
    now_s = 25.0  # more than twice what the clock said first
    assert traffic.silent_s == 15.0
    traffic.note_sign()
    assert traffic.silent_s == 0.0


@pytest.mark.parametrize(
    ("is_closing", "answered", "is_asking", "is_idle"),
    [
        (False, None, False, True),  # nothing has come yet
        (False, True, False, True),
        (False, False, False, False),  # it waits for its answer
        (False, False, True, True),  # its request is not there as a whole
        (True, None, False, False),
        (True, True, True, False),
    ],
)
def test_a_connection_without_a_whole_request_can_make_room_for_another(
    is_closing: bool, answered: bool | None, is_asking: bool, is_idle: bool
) -> None:
    protocol: Any = GuardedProtocol.__new__(GuardedProtocol)
    protocol.transport = SimpleNamespace(is_closing=lambda: is_closing)
    protocol.cycle = None if answered is None else SimpleNamespace(response_complete=answered)
    protocol.conn = SimpleNamespace(their_state=h11.SEND_BODY if is_asking else h11.DONE)

    assert protocol._is_idle() == is_idle
