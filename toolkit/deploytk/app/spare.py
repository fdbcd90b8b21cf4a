"""One connection to the engine more than is needed, so that who asks next need not wait until it is accepted."""

from __future__ import annotations

import asyncio
from typing import Any, Tuple  # noqa: UP035 (Python 3.8 in old images)

READ_BYTES = 65536

Connection = Tuple[asyncio.StreamReader, asyncio.StreamWriter]  # noqa: UP006


async def connected(port: int) -> Connection:
    """A connection to the engine; raises OSError when there is none."""
    return await asyncio.open_connection("127.0.0.1", port, limit=READ_BYTES)


class Spare:
    """The connection that waits, once there was a reason to open it."""

    def __init__(self) -> None:
        self._waiting: _Waiting | None = None
        self._opening: asyncio.Task[None] | None = None

    def take(self, port: int) -> Connection | None:
        """The connection, when it is there and leads to `port`."""
        waiting, self._waiting = self._waiting, None
        if waiting and not (waiting.port == port and waiting.is_usable):
            waiting.transport.abort()
            return None
        return waiting.taken() if waiting else None

    def prepare(self, port: int) -> None:
        """Open the connection for who asks next, unless it is there."""
        there = self._waiting is not None and self._waiting.port == port and self._waiting.is_usable
        if self._opening is None and not there:
            self._opening = asyncio.ensure_future(self._open(port))

    def drop(self) -> None:
        if self._opening:
            self._opening.cancel()
        if self._waiting:
            self._waiting.transport.abort()
        self._waiting = self._opening = None

    async def _open(self, port: int) -> None:
        try:
            loop = asyncio.get_event_loop()
            _, waiting = await loop.create_connection(lambda: _Waiting(port), "127.0.0.1", port)
        except OSError:
            return  # who asks next is told
        finally:
            if self._opening is asyncio.current_task():
                self._opening = None
        if self._waiting:
            self._waiting.transport.abort()
        self._waiting = waiting


class _Waiting(asyncio.Protocol):
    """Nobody has asked for anything here: when the engine says something, or ends it, it is of no use."""

    transport: Any  # asyncio.Transport; uvloop's are none by their type

    def __init__(self, port: int) -> None:
        self.port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, _data: bytes) -> None:
        self.transport.abort()

    @property
    def is_usable(self) -> bool:
        return not self.transport.is_closing()

    def taken(self) -> Connection:
        loop = asyncio.get_event_loop()
        reader = asyncio.StreamReader(limit=READ_BYTES, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        return reader, asyncio.StreamWriter(self.transport, protocol, reader, loop)
