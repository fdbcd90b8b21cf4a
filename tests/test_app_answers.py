"""What the gateway answers, and places at the engine: with an engine of its own, all in one process. None is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from ports import free_port

from deploytk.app import relay
from deploytk.app.gateway import IS_KNOWN, Gateway
from deploytk.app.journey import Journey
from deploytk.app.limits import Limits
from deploytk.app.traffic import Traffic

LIMITS = Limits(running=1, waiting=1, request_s=30.0)
GOOD = b'{"text": "good"}'


class Engine:
    """One that answers when it is let, on a port of loopback."""

    def __init__(self) -> None:
        self.state, self.detail, self.model, self.restarts = "ready", "", "m", 0
        self.ready_after_s = 2.5
        self.journey = Journey()
        self.settings = SimpleNamespace(name="turbomind", features=())
        self.traffic = Traffic()
        self.port = 0
        self.asked, self.is_asked = 0, asyncio.Event()
        self._open = set[asyncio.StreamWriter]()
        self.may_answer = asyncio.Event()
        self.answer = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n" + GOOD

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                self.asked += 1
                self.is_asked.set()
                await self.may_answer.wait()
                for piece in self.answer.partition(b"\r\n\r\n"):
                    writer.write(piece)
                    await writer.drain()
        finally:
            writer.close()

    async def hang_up(self) -> None:
        """On everybody, those who were only connected for the next request too."""
        for writer in self._open:
            writer.transport.abort()
        await asyncio.sleep(0)  # the sockets are closed in the next turn

    def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def metrics(self) -> bytes:
        return b""


class Asked:
    """A client with one request under way."""

    def __init__(self, gateway: Gateway, path: str, fields: dict[str, Any] | None) -> None:
        self._said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._said.put_nowait({"type": "http.request", "body": json.dumps(fields).encode() if fields else b""})
        self.status, self.headers, self.body = 0, dict[bytes, bytes](), b""
        scope = {"type": "http", "method": "POST" if fields else "GET", "path": path, IS_KNOWN: True}
        scope["headers"] = [(b"content-type", b"application/json")]
        self._task = asyncio.ensure_future(gateway(scope, self._said.get, self._hear))

    async def _hear(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        self.body += message.get("body", b"")

    def leave(self) -> None:
        self._said.put_nowait({"type": "http.disconnect"})

    async def end(self) -> Asked:
        await asyncio.wait_for(self._task, 20)
        return self


class House:
    def __init__(self, gateway: Gateway, engine: Engine) -> None:
        self.gateway, self.engine = gateway, engine

    def ask(self, **fields: Any) -> Asked:
        return Asked(self.gateway, "/v1/completions", {"model": "m", "prompt": "x", **fields})

    @property
    def places(self) -> asyncio.Semaphore:
        return self.gateway._places._free

    async def counted(self) -> dict[str, float]:
        """The figures of /metrics by their names without what all have in front, labels left out."""
        text = (await Asked(self.gateway, "/metrics", None).end()).body.decode()
        found = re.findall(r"^deploytk_(?:requests_)?(\w+) ([\d.]+)$", text, re.MULTILINE)
        return {name: float(value) for name, value in found}

    async def until(self, **wanted: float) -> None:
        """Returns once /metrics says that."""
        for _ in range(2000):
            counted = await self.counted()
            if {name: counted[name] for name in wanted} == wanted:
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"{wanted} is not what {counted} says")

    async def is_free(self) -> None:
        """Nobody is there, who comes is served, and there is one place as before."""
        self.gateway.limits = LIMITS
        self.engine.may_answer.set()
        await self.until(running=0, waiting=0)
        assert (await self.ask().end()).status == 200
        self.engine.may_answer.clear()
        both = [self.ask(), self.ask()]
        await self.until(running=1, waiting=1)
        self.engine.may_answer.set()
        assert [(await one.end()).status for one in both] == [200, 200]


@contextlib.asynccontextmanager
async def house(limits: Limits) -> AsyncIterator[House]:
    engine = Engine()
    gateway = Gateway(engine, limits, None)  # type: ignore[arg-type]  # a stand-in of the engine
    life: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    life.put_nowait({"type": "lifespan.startup"})
    started = asyncio.Event()

    async def hear(_: dict[str, Any]) -> None:
        started.set()

    living = asyncio.ensure_future(gateway({"type": "lifespan"}, life.get, hear))
    async with await asyncio.start_server(engine.serve, "127.0.0.1", free_port()) as server:
        engine.port = server.sockets[0].getsockname()[1]
        await started.wait()
        try:
            yield House(gateway, engine)
        finally:
            life.put_nowait({"type": "lifespan.shutdown"})
            await living
            await engine.hang_up()


def in_house(limits: Limits, test: Callable[[House], Awaitable[None]]) -> None:
    async def run() -> None:
        async with house(replace(limits, watchdog_s=0)) as opened:
            await test(opened)

    asyncio.run(run())


def test_one_runs_one_waits_and_the_third_is_sent_away() -> None:
    async def test(house: House) -> None:
        first = house.ask()
        await house.until(running=1, waiting=0)
        second = house.ask()
        await house.until(running=1, waiting=1)
        third = await house.ask().end()
        await house.engine.is_asked.wait()
        asked_meanwhile = house.engine.asked
        house.engine.may_answer.set()

        assert (third.status, third.headers[b"retry-after"]) == (429, b"2")
        assert json.loads(third.body)["error"]["code"] == "too_many_requests"
        assert asked_meanwhile == 1
        assert [(await one.end()).body for one in (first, second)] == [GOOD, GOOD]
        await house.is_free()

    in_house(LIMITS, test)


def test_as_many_run_as_may() -> None:
    async def test(house: House) -> None:
        several = [house.ask() for _ in range(3)]
        await house.until(running=3, waiting=0)
        fourth = house.ask()
        await house.until(running=3, waiting=1)
        house.engine.may_answer.set()

        assert [(await one.end()).status for one in (*several, fourth)] == [200] * 4

    in_house(replace(LIMITS, running=3), test)


def test_who_goes_while_waiting_leaves_the_queue() -> None:
    async def test(house: House) -> None:
        first = house.ask()
        await house.until(running=1)
        second = house.ask()
        await house.until(waiting=1)
        second.leave()
        await second.end()
        await house.until(running=1, waiting=0, cancelled_total=1)
        house.engine.may_answer.set()
        await first.end()

        assert second.body == b""
        assert house.engine.asked == 1
        await house.is_free()

    in_house(LIMITS, test)


def test_who_goes_just_as_a_place_comes_free_does_not_keep_it() -> None:
    async def test(house: House) -> None:
        first = house.ask()
        await house.until(running=1)
        second = house.ask()
        await house.until(waiting=1)
        # Both in one turn of the loop: the place is given to a client that has just gone.
        house.places.release()
        second.leave()
        await second.end()
        await asyncio.wait_for(house.places.acquire(), 5)
        house.engine.may_answer.set()
        await first.end()

        assert second.body == b""
        await house.is_free()

    in_house(LIMITS, test)


def test_who_waits_too_long_is_told_so() -> None:
    async def test(house: House) -> None:
        await house.places.acquire()
        late = await house.ask().end()
        house.places.release()

        assert (late.status, late.headers[b"retry-after"]) == (503, b"2")
        assert json.loads(late.body)["error"]["code"] == "busy"
        assert house.engine.asked == 0
        await house.is_free()

    in_house(replace(LIMITS, request_s=0.05), test)


def test_who_runs_too_long_is_ended() -> None:
    async def test(house: House) -> None:
        late = await house.ask().end()

        assert (late.status, json.loads(late.body)["error"]["code"]) == (504, "timeout")
        await house.is_free()

    in_house(replace(LIMITS, request_s=0.05), test)


def test_a_client_that_goes_ends_its_request_at_the_engine() -> None:
    async def test(house: House) -> None:
        first = house.ask()
        await house.until(running=1)
        first.leave()
        await first.end()
        await house.until(running=0, cancelled_total=1)

        assert first.body == b""
        await house.is_free()

    in_house(LIMITS, test)


@pytest.mark.parametrize("state", ["loading", "failed"])
def test_who_comes_too_early_is_told_when_to_come_back(state: str) -> None:
    async def test(house: House) -> None:
        house.engine.state, house.engine.detail = state, "so it is."
        early = await house.ask().end()

        assert (early.status, early.headers[b"retry-after"]) == (503, b"5" if state == "failed" else b"1")
        assert json.loads(early.body)["error"]["message"] == f"the model is not ready: {state}. so it is."
        assert (await Asked(house.gateway, "/ready", None).end()).status == 503
        assert (await house.counted())["ready"] == 0

    in_house(LIMITS, test)


def test_what_was_counted_is_what_was_asked() -> None:
    async def test(house: House) -> None:
        house.engine.may_answer.set()
        for _ in range(2):
            await house.ask().end()
        await house.ask(n=17).end()  # refused
        await Asked(house.gateway, "/v2/nothing", None).end()
        text = (await Asked(house.gateway, "/metrics", None).end()).body.decode()

        assert 'deploytk_requests_total{path="/v1/completions",status="200"} 2\n' in text
        assert 'deploytk_requests_total{path="/v1/completions",status="400"} 1\n' in text
        assert "deploytk_ready 1\n" in text
        assert "deploytk_load_seconds 2.5\n" in text
        # Three answers of completions, those refused included; the last bucket holds all.
        for name in ("first_byte", "request"):
            assert f'deploytk_{name}_seconds_bucket{{le="+Inf"}} 3\n' in text
            assert f"deploytk_{name}_seconds_count 3\n" in text

    in_house(LIMITS, test)


@pytest.mark.parametrize("says_length", [True, False])
@pytest.mark.parametrize("size", [0, 1000, 100_000])
def test_an_answer_comes_whole_whether_it_says_its_length_or_not(size: int, says_length: bool) -> None:
    async def test(house: House) -> None:
        length = f"Content-Length: {size}\r\n" if says_length else ""
        head = f"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n{length}\r\n"
        house.engine.answer = head.encode() + b"x" * size
        house.engine.may_answer.set()

        answer = await house.ask().end()

        assert (answer.status, answer.headers[b"content-type"], answer.body) == (200, b"text/plain", b"x" * size)

    in_house(LIMITS, test)


@pytest.mark.parametrize("says_length", [True, False])
@pytest.mark.parametrize(("size", "status"), [(1000, 200), (1001, 502)])
def test_an_answer_without_end_is_refused(
    size: int, status: int, says_length: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "LARGEST_ANSWER_BYTES", 1000)

    async def test(house: House) -> None:
        length = f"Content-Length: {size}\r\n" if says_length else ""
        house.engine.answer = f"HTTP/1.0 200 OK\r\n{length}\r\n".encode() + b"x" * size
        house.engine.may_answer.set()

        answer = await house.ask().end()

        assert answer.status == status
        assert status == 200 or "too large" in json.loads(answer.body)["error"]["message"]

    in_house(LIMITS, test)


@pytest.mark.parametrize(
    ("status", "body", "retry", "said"),
    [
        (429, b'{"message": "busy"}', b"1", "busy"),
        (503, b"no JSON", b"1", "the engine refused the request"),
        (400, b'{"message": "no"}', None, "no"),
    ],
)
def test_a_refusal_of_the_engine_has_the_shape_of_openai(
    status: int, body: bytes, retry: bytes | None, said: str
) -> None:
    async def test(house: House) -> None:
        house.engine.answer = f"HTTP/1.0 {status} No\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        house.engine.may_answer.set()

        answer = await house.ask().end()

        assert (answer.status, answer.headers.get(b"retry-after")) == (status, retry)
        assert json.loads(answer.body)["error"]["message"] == said
        kind = "invalid_request_error" if status < 500 else "server_error"
        assert json.loads(answer.body)["error"]["type"] == kind

    in_house(LIMITS, test)


def test_a_stream_that_breaks_off_is_not_taken_for_a_whole_one() -> None:
    async def test(house: House) -> None:
        head = b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        house.engine.answer = head + b'data: {"a": 1}\n\n'
        house.engine.may_answer.set()
        cut = await house.ask(stream=True).end()
        house.engine.answer = head + b'data: {"a": 1}\n\ndata: [DONE]\n\n'
        whole = await house.ask(stream=True).end()

        assert b'"code": "engine_lost"' in cut.body
        assert whole.body == b'data: {"a": 1}\n\ndata: [DONE]\n\n'
        assert whole.headers == {
            b"content-type": b"text/event-stream",
            b"cache-control": b"no-store",
            b"x-accel-buffering": b"no",
        }

    in_house(LIMITS, test)


def test_an_engine_that_is_gone_is_said_to_restart() -> None:
    async def test(house: House) -> None:
        house.engine.port = 1  # nobody listens there
        answer = await house.ask().end()

        assert (answer.status, answer.headers[b"retry-after"]) == (503, b"1")
        assert json.loads(answer.body)["error"]["message"] == "the engine is restarting"

    in_house(LIMITS, test)
