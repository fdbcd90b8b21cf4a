"""What bytes cost that are only counted or handed on, in Python, without a look at them: no client and no gateway
can cost less.

    python -m benchmarks.floors PORT [--uvloop]        a relay in front of PORT; it prints its own port
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import selectors
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar, cast

LAST_CHUNK = b"0\r\n\r\n"
HAS_UVLOOP = importlib.util.find_spec("uvloop") is not None

_T = TypeVar("_T")
_READ_BYTES = 65536


def on_uvloop(work: Coroutine[Any, Any, _T]) -> _T:
    import uvloop

    found: _T = uvloop.run(work)
    return found


def on_asyncio(work: Coroutine[Any, Any, _T]) -> _T:
    return asyncio.run(work)


class _Counting(asyncio.Protocol):
    """Counts what comes, to the end of an answer in chunks."""

    def __init__(self) -> None:
        self.bytes = 0
        self.ended = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.bytes += len(data)
        if data.endswith(LAST_CHUNK):
            self.ended.set_result(self.bytes)


async def count_in_protocols(port: int, requests: list[bytes]) -> int:
    """Bytes of all answers, each read by a protocol of a loop."""

    async def read(request: bytes) -> int:
        transport, counting = await asyncio.get_running_loop().create_connection(_Counting, "127.0.0.1", port)
        transport.write(request)
        count: int = await counting.ended
        transport.abort()
        return count

    return sum(await asyncio.gather(*map(read, requests)))


def count_in_selector(port: int, requests: list[bytes]) -> int:
    """Bytes of all answers, read by a loop of `select` and `recv` alone."""
    count, left = 0, len(requests)
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for request in requests:
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(request)
            selector.register(client, selectors.EVENT_READ, client.recv)
        while left:
            for key, _ in selector.select():
                data = key.data(_READ_BYTES)
                count += len(data)
                left -= data.endswith(LAST_CHUNK)
    return count


class _Engine(asyncio.Protocol):
    """The side of the relay towards the engine."""

    def __init__(self, client: asyncio.Transport, request: bytes) -> None:
        self._client, self._request = client, request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.WriteTransport, transport).write(self._request)  # uvloop's are none by their type

    def data_received(self, data: bytes) -> None:
        self._client.write(data)

    def connection_lost(self, _error: Exception | None) -> None:
        self._client.close()


class _Client(asyncio.Protocol):
    """The side towards the client: its request comes in one piece here, and there is one on a connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connecting: asyncio.Task[Any] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        engine = _Engine(self._transport, data)
        self._connecting = loop.create_task(loop.create_connection(lambda: engine, "127.0.0.1", self._port))


async def _relay(port: int) -> None:
    listener = await asyncio.get_running_loop().create_server(lambda: _Client(port), "127.0.0.1", 0)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await listener.serve_forever()


@contextlib.contextmanager
def relay(port: int, *options: str) -> Iterator[int]:
    """The port of a relay of bytes in front of `port`, a process of its own."""
    command = [sys.executable, "-m", "benchmarks.floors", str(port), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def main() -> None:
    run: Callable[[Coroutine[Any, Any, None]], None] = on_uvloop if "--uvloop" in sys.argv else on_asyncio
    run(_relay(int(sys.argv[1])))


if __name__ == "__main__":
    main()
