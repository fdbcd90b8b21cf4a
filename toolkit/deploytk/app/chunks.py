"""Takes chunks apart: uvicorn with httptools sends them to who speaks HTTP/1.0, too, which has no such thing."""

from __future__ import annotations

import asyncio

_LONGEST_SIZE_LINE = 100


def are_chunks(head: bytes) -> bool:
    """Whether the body behind this head of an answer comes in chunks."""
    lines = (line.partition(b":") for line in head.lower().split(b"\r\n")[1:])
    return any(name.strip() == b"transfer-encoding" and b"chunked" in value for name, _, value in lines)


class Unchunked:
    """The body of an answer as it was before it was put into chunks. One that breaks off ends there."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._left = 0  # of the chunk that is being read
        self._is_over = False

    async def read(self, most: int) -> bytes:
        """Some bytes, b"" at the end."""
        if not self._left and not self._is_over:
            self._left = await self._next_size()
            self._is_over = not self._left
        if self._is_over:
            return b""
        data = await self._reader.read(min(most, self._left))
        self._left -= len(data)
        if not data:
            self._is_over = True
        elif not self._left:
            await self._reader.readline()
        return data

    async def readexactly(self, size: int) -> bytes:
        """So many bytes; raises IncompleteReadError where there are fewer."""
        body = b""
        while len(body) < size:
            data = await self.read(size - len(body))
            if not data:
                raise asyncio.IncompleteReadError(body, size)
            body += data
        return body

    async def _next_size(self) -> int:
        """0 for the last chunk, and for what is none."""
        line = (await self._reader.readline())[:_LONGEST_SIZE_LINE]
        try:
            return max(0, int(line.split(b";")[0].strip(), 16))
        except ValueError:
            return 0
