"""What the app has ready before it is asked, and the end of what takes too long."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest
from ports import free_port

from deploytk.app.deadline import Deadline
from deploytk.app.traffic import Traffic, Work


class Engine:
    """Answers one line on each connection; what it does with a new one is up to the test."""

    def __init__(self) -> None:
        self.accepted: list[asyncio.StreamWriter] = []
        self.greeting = b""
        self.came = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted.append(writer)
        self.came.set()
        writer.write(self.greeting)
        try:
            with contextlib.suppress(OSError):
                if line := await reader.readline():
                    writer.write(b"%d: %b" % (self.accepted.index(writer), line))
        finally:
            writer.close()


async def asked(traffic: Traffic, port: int) -> bytes:
    async with traffic.connect(port, Work()) as (reader, writer):
        writer.write(b"hello\n")
        return await asyncio.wait_for(reader.read(), 20)


def with_engine(test: Callable[[Engine, Traffic, int], Awaitable[None]]) -> None:
    async def run() -> None:
        engine, traffic = Engine(), Traffic()
        async with await asyncio.start_server(engine.serve, "127.0.0.1", free_port()) as server:
            await test(engine, traffic, server.sockets[0].getsockname()[1])
            traffic.end_spare()
            await asyncio.sleep(0.01)  # for the engine to see it

    asyncio.run(run())


async def until_accepted(engine: Engine, count: int) -> None:
    while len(engine.accepted) < count:
        engine.came.clear()
        await asyncio.wait_for(engine.came.wait(), 20)
    await asyncio.sleep(0.01)  # for our side to know it, too


def test_who_asks_finds_a_connection_that_is_open_already() -> None:
    async def test(engine: Engine, traffic: Traffic, port: int) -> None:
        traffic.prepare(port)
        traffic.prepare(port)
        await until_accepted(engine, 1)

        assert await asked(traffic, port) == b"0: hello\n"
        await until_accepted(engine, 2)  # for the next one
        assert await asked(traffic, port) == b"1: hello\n"
        await until_accepted(engine, 3)

    with_engine(test)


def test_two_at_once_have_a_connection_each() -> None:
    async def test(engine: Engine, traffic: Traffic, port: int) -> None:
        traffic.prepare(port)
        await until_accepted(engine, 1)

        both = await asyncio.gather(asked(traffic, port), asked(traffic, port))

        assert sorted(both) == [b"0: hello\n", b"1: hello\n"]
        assert not traffic.is_open

    with_engine(test)


@pytest.mark.parametrize("spoils", ["closes", "resets", "speaks"])
def test_a_connection_that_the_engine_has_ended_or_spoken_on_is_not_used(spoils: str) -> None:
    async def test(engine: Engine, traffic: Traffic, port: int) -> None:
        engine.greeting = b"HTTP/1.0 408 Request Timeout\r\n\r\n" if spoils == "speaks" else b""
        traffic.prepare(port)
        await until_accepted(engine, 1)
        if spoils == "closes":
            engine.accepted[0].close()
        if spoils == "resets":
            engine.accepted[0].transport.abort()
        engine.greeting = b""
        await asyncio.sleep(0.05)

        assert await asked(traffic, port) == b"1: hello\n"

    with_engine(test)


def test_a_connection_to_the_engine_before_is_not_used() -> None:
    async def test(engine: Engine, traffic: Traffic, port: int) -> None:
        async with await asyncio.start_server(engine.serve, "127.0.0.1", free_port()) as other:
            traffic.prepare(other.sockets[0].getsockname()[1])
            await until_accepted(engine, 1)

            assert await asked(traffic, port) == b"1: hello\n"

    with_engine(test)


def test_an_engine_that_is_given_up_keeps_no_connection() -> None:
    async def test(engine: Engine, traffic: Traffic, port: int) -> None:
        traffic.prepare(port)
        await until_accepted(engine, 1)

        traffic.abort()

        assert await asked(traffic, port) == b"1: hello\n"

    with_engine(test)


def test_without_an_engine_nothing_is_prepared_and_who_asks_is_told() -> None:
    async def test(engine: Engine, traffic: Traffic, port: int) -> None:
        async with await asyncio.start_server(engine.serve, "127.0.0.1", free_port()) as gone:
            port = gone.sockets[0].getsockname()[1]
        traffic.prepare(port)
        await asyncio.sleep(0.05)

        with pytest.raises(ConnectionRefusedError):
            await asked(traffic, port)

    with_engine(test)


def test_what_takes_too_long_is_ended_in_its_own_task() -> None:
    async def run() -> None:
        ended = []

        async def work() -> None:
            with Deadline(0.01):
                try:
                    await asyncio.sleep(60)
                finally:
                    await asyncio.sleep(0)
                    ended.append("cleaned up")

        with pytest.raises(asyncio.TimeoutError):
            await work()
        with Deadline(0.05):
            pass
        await asyncio.sleep(0.1)  # no deadline is left behind
        assert ended == ["cleaned up"]

    asyncio.run(run())


def test_whose_task_is_ended_by_others_is_not_late() -> None:
    async def work() -> None:
        with Deadline(60):
            await asyncio.sleep(60)

    async def run() -> None:
        task = asyncio.ensure_future(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def test_a_fault_is_handed_on_though_it_comes_late() -> None:
    async def work() -> None:
        with Deadline(0.01):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise ValueError("wrong") from None

    with pytest.raises(ValueError, match="wrong"):
        asyncio.run(work())
