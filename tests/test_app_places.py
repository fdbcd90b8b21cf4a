"""What the app takes on at once, without a server: bodies that are held, and places at the engine. Nothing leaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from deploytk.app.door import Door
from deploytk.app.gateway import IS_KNOWN, Gateway
from deploytk.app.identity import Keys
from deploytk.app.limits import Limits
from deploytk.app.metrics import Metrics
from deploytk.app.origins import Hosts
from deploytk.app.places import Places
from deploytk.app.refused import RefusedError
from deploytk.app.relay import Client

Message = dict[str, Any]
LIMITS = Limits(body_bytes=10, running=1, waiting=1, body_s=0.2, request_s=0.3)
# 10 bytes each for one that runs, one that waits, and 8 more
HELD_BYTES = 100


class Behind:
    """Stands for the gateway: notes what comes through, and holds it until it is let go."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes, bool]] = []
        self.go = asyncio.Event()
        self.has_page, self.is_ending = True, False

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        self.seen.append((scope["path"], body, scope[IS_KNOWN]))
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    def count(self, scope: Message, status: int) -> None: ...

    def is_open(self, path: str) -> bool:
        return False


def in_pieces(*pieces: bytes, ends: bool = True) -> list[Message]:
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    return [*messages, {"type": "http.request", "body": b"", "more_body": False}] if ends else messages


async def knock(door: Door, messages: list[Message], path: str = "/v1/x", method: str = "POST", **headers: str) -> int:
    """The status that a request gets; one whose messages are at an end sends no more."""
    statuses: list[int] = []
    waiting = list(messages)

    async def receive() -> Message:
        if waiting:
            return waiting.pop(0)
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    scope = {"type": "http", "method": method, "path": path, "headers": _raw(headers), "server": ("127.0.0.1", 1)}
    await door(scope, receive, send)
    return statuses[0]


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]


def through(test: Callable[[Door, Behind], Coroutine[Any, Any, None]], keys: tuple[str, ...] = ()) -> None:
    async def run() -> None:
        behind = Behind()
        await test(Door(behind, Keys(keys), Hosts("127.0.0.1", frozenset()), LIMITS), behind)  # type: ignore[arg-type]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("messages", "headers", "status"),
    [
        (in_pieces(b"x" * 10), {}, 200),
        (in_pieces(b"x" * 5, b"x" * 5), {}, 200),
        (in_pieces(b"x" * 11), {}, 413),  # nothing says how much comes: chunks
        (in_pieces(*[b"x"] * 11), {}, 413),
        (in_pieces(b"x" * 11, ends=False), {}, 413),  # at once, not at the end
        (in_pieces(ends=False), {"content_length": "11"}, 413),  # before anything comes
        (in_pieces(ends=False), {"content_length": "9" * 30}, 413),
        (in_pieces(ends=False), {"content_length": "-1"}, 413),
        (in_pieces(b"x", ends=False), {}, 408),
        ([{"type": "http.disconnect"}], {}, 499),
        (in_pieces(b"x"), {"content_length": "1", "transfer_encoding": "chunked"}, 400),
        (in_pieces(b"x"), {"host": "evil.example"}, 403),
        (in_pieces(b"x"), {"origin": "http://evil.example"}, 403),
    ],
)
def test_a_body_comes_whole_in_time_and_small_or_not_at_all(
    messages: list[Message], headers: dict[str, str], status: int
) -> None:
    async def test(door: Door, behind: Behind) -> None:
        behind.go.set()

        assert await knock(door, messages, **headers) == status
        assert (len(behind.seen) == 1) == (status == 200)
        assert door._held_bytes == 0

    through(test)


def test_so_many_bodies_are_held_at_once_and_each_is_given_back() -> None:
    async def test(door: Door, behind: Behind) -> None:
        held = [asyncio.ensure_future(knock(door, in_pieces(b"x" * 10))) for _ in range(10)]
        while len(behind.seen) < 10:
            await asyncio.sleep(0.001)

        assert door._held_bytes == LIMITS.held_bytes == HELD_BYTES
        assert await knock(door, in_pieces(b"x")) == 503
        assert door._held_bytes == HELD_BYTES  # what was refused is not held
        behind.go.set()
        assert await asyncio.gather(*held) == [200] * 10
        assert door._held_bytes == 0
        assert await knock(door, in_pieces(b"x")) == 200

    through(test)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/health", {}, 200),
        ("HEAD", "/ready", {}, 200),
        ("POST", "/health", {}, 401),
        ("DELETE", "/ready", {}, 401),
        ("GET", "/metrics", {}, 401),
        ("GET", "/openapi.json", {}, 401),
        ("GET", "/v1/models", {}, 401),
        ("GET", "/health/", {}, 401),
        ("GET", "/v1/models", {"authorization": "Bearer right"}, 200),
        ("GET", "/v1/models", {"authorization": "bearer  right "}, 200),
        ("GET", "/v1/models", {"authorization": "Basic right"}, 401),
        ("GET", "/v1/models", {"authorization": "Bearer righ"}, 401),
        ("GET", "/v1/models", {"authorization": "Bearer "}, 401),
        ("GET", "/v1/models", {"authorization": ""}, 401),
        ("GET", "/v1/models", {"cookie": "deploytk_session_1=right"}, 401),
        ("GET", "/v1/models", {"cookie": "deploytk_session_1="}, 401),
        ("GET", "/login", {}, 404),
        ("PUT", "/login", {}, 404),
    ],
)
def test_what_is_open_without_a_key(method: str, path: str, headers: dict[str, str], status: int) -> None:
    async def test(door: Door, behind: Behind) -> None:
        behind.go.set()

        assert await knock(door, in_pieces(), path, method, **headers) == status
        assert all(is_known == ("authorization" in headers) for _, _, is_known in behind.seen)

    through(test, ("right",))


def test_a_login_counts_only_its_failures_and_ends_tries() -> None:
    async def test(door: Door, behind: Behind) -> None:
        form = {"content_type": "application/x-www-form-urlencoded"}
        tries = [await knock(door, in_pieces(b"key=w"), "/login", **form) for _ in range(10)]

        assert tries == [401] * 10
        assert await knock(door, in_pieces(b"key=right"), "/login", **form) == 429
        assert await knock(door, in_pieces(), "/v1/x", "GET", authorization="Bearer right") == 200
        assert behind.seen == [("/v1/x", b"", True)]

    async def let_go(door: Door, behind: Behind) -> None:
        behind.go.set()
        await test(door, behind)

    through(let_go, ("right",))


# Places at the engine


class Asker:
    """A client of the gateway, which can go away."""

    def __init__(self, gateway: Gateway) -> None:
        self.leave = asyncio.Event()
        self.client = Client(self._receive)
        self.place = asyncio.ensure_future(gateway._places.take(self.client))

    async def _receive(self) -> Message:
        await self.leave.wait()
        return {"type": "http.disconnect"}


def with_places(test: Callable[[Gateway, Metrics, Places], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        gateway = Gateway(SimpleNamespace(), LIMITS, None)  # type: ignore[arg-type]
        gateway._made_places = Places(LIMITS, gateway._metrics)
        await test(gateway, gateway._metrics, gateway._places)
        assert gateway._metrics.waiting == gateway._metrics.running == 0

    asyncio.run(run())


async def _is_free(gateway: Gateway) -> bool:
    """Whether somebody who comes now gets a place."""
    asker = Asker(gateway)
    return await asyncio.wait_for(asker.place, 5)


def test_a_place_is_taken_waited_for_and_refused_in_this_order() -> None:
    async def test(gateway: Gateway, metrics: Metrics, places: Places) -> None:
        first, second = Asker(gateway), Asker(gateway)
        assert await first.place
        await asyncio.sleep(0)
        assert metrics.waiting == 1
        with pytest.raises(RefusedError) as refused:
            await Asker(gateway).place
        assert refused.value.status == 429

        places.release()
        assert await second.place
        places.release()
        assert await _is_free(gateway)

    with_places(test)


def test_who_waits_in_vain_is_told_and_leaves_no_trace() -> None:
    async def test(gateway: Gateway, metrics: Metrics, places: Places) -> None:
        assert await Asker(gateway).place
        with pytest.raises(RefusedError) as refused:
            await Asker(gateway).place
        assert (refused.value.status, refused.value.code) == (503, "busy")

        places.release()
        assert await _is_free(gateway)

    with_places(test)


def test_who_goes_while_waiting_gets_no_place_and_keeps_none() -> None:
    async def test(gateway: Gateway, metrics: Metrics, places: Places) -> None:
        assert await Asker(gateway).place
        gone = Asker(gateway)
        await asyncio.sleep(0)
        gone.leave.set()
        assert not await gone.place

        places.release()
        await asyncio.sleep(0)
        assert await _is_free(gateway)

    with_places(test)


def test_who_goes_at_the_moment_when_a_place_comes_free_gives_it_back() -> None:
    async def test(gateway: Gateway, metrics: Metrics, places: Places) -> None:
        assert await Asker(gateway).place
        gone = Asker(gateway)
        await asyncio.sleep(0)
        gone.leave.set()
        places.release()
        assert not await gone.place

        assert await _is_free(gateway)

    with_places(test)


@pytest.mark.parametrize("ending", ["well", "refused", "too late", "cancelled"])
def test_however_a_request_ends_its_place_is_given_back(ending: str) -> None:
    async def test(gateway: Gateway, metrics: Metrics, places: Places) -> None:
        class Relay:
            has_started = False

            async def run(self, *_: object) -> None:
                if ending == "refused":
                    raise RefusedError(502, "engine_lost", "x")
                await asyncio.sleep(0 if ending == "well" else 60)

        assert await Asker(gateway).place
        running = asyncio.ensure_future(gateway._run(Relay(), "POST", "/x", b"", None))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        if ending == "cancelled":
            await asyncio.sleep(0.05)
            running.cancel()
        await asyncio.wait({running}, timeout=5)

        assert running.done()
        assert not places._free.locked()
        assert await _is_free(gateway)
        if ending != "well" and ending != "cancelled":
            assert isinstance(running.exception(), RefusedError)

    with_places(test)


def test_a_ticket_tells_how_many_are_before_it() -> None:
    limits = Limits(running=1, waiting=3, request_s=5)

    async def run() -> list[object]:
        places = Places(limits, Metrics())
        stay = asyncio.Event()

        async def receive() -> Message:
            await stay.wait()
            return {"type": "http.disconnect"}

        taken = [asyncio.ensure_future(places.take(Client(receive), ticket)) for ticket in (b"a", b"b", b"c")]
        await asyncio.sleep(0.01)
        told = [places.tell(ticket)["ahead"] for ticket in (b"a", b"b", b"c", b"", b"x")]
        places.release()
        await taken[1]
        told.append(places.tell(b"c")["ahead"])
        stay.set()
        await asyncio.wait(taken)
        return told

    assert asyncio.run(run()) == [None, 0, 1, None, None, 0]
