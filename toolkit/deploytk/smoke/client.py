"""A measuring HTTP client: one open connection, and a stamp at every read of the socket.

The stamp is taken before anything is parsed, and the connection is open before a request is timed, so that neither
the client's own work nor the handshake is counted.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from deploytk.errors import EndpointError

_READ_BYTES = 65536
_LARGEST_HEAD_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Received:
    """One answer as it came: what was said, and when. Times are `time.perf_counter_ns`."""

    status: int
    sent_ns: int  # just before the first byte of the request
    events: tuple[tuple[int, dict[str, Any]], ...]  # (when its last byte was read, the parsed event)
    done_ns: int  # when the last byte was read
    is_complete: bool  # a stream ended with [DONE], a plain answer with its last byte
    error: str  # what the server said went wrong, "" when nothing


class Connection:
    """A connection to one server, opened before it is needed and used for one request after the other."""

    def __init__(self, url: str, key: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise EndpointError(f"{url} is no address of a server", hint="it looks like http://127.0.0.1:7860")
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._path = parts.path.rstrip("/")
        self._authorization = f"Authorization: Bearer {key}\r\n" if key else ""
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        """Connect unless that is done already."""
        if self._writer is None or self._writer.is_closing():
            opening = asyncio.open_connection(self._host, self._port, ssl=self._tls, limit=2**22)
            self._reader, self._writer = await asyncio.wait_for(opening, 10)

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def post(self, path: str, body: dict[str, Any]) -> Received:
        """Send `body`, read the answer to its end; raises OSError when the connection breaks before an answer."""
        content = json.dumps(body, ensure_ascii=False).encode()
        await self.open()
        assert self._reader is not None  # noqa: S101 (open sets both)
        assert self._writer is not None  # noqa: S101
        head = (
            f"POST {self._path}{path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n{self._authorization}"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        sent_ns = time.perf_counter_ns()
        self._writer.write(head.encode() + content)
        answer = _Answer(self._reader)
        try:
            return await answer.read(sent_ns)
        finally:
            if not answer.is_reusable:
                await self.close()


class _Answer:
    """Reads one HTTP/1.1 answer: plain, chunked or until the end of the connection."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self.is_reusable = False

    async def read(self, sent_ns: int) -> Received:
        status, headers = await self._head()
        chunks = _Chunks() if headers.get("transfer-encoding", "").lower() == "chunked" else None
        length = int(headers["content-length"]) if "content-length" in headers else None
        is_stream = headers.get("content-type", "").startswith("text/event-stream")
        parser, body = _Events(), bytearray()
        events: list[tuple[int, dict[str, Any]]] = []
        done_ns, is_whole = time.perf_counter_ns(), length == 0
        while not is_whole:
            data = await self._reader.read(_READ_BYTES)
            now = time.perf_counter_ns()
            if not data:
                is_whole = chunks is None and length is None
                break
            done_ns = now
            piece = chunks.feed(data) if chunks else data
            if is_stream:
                events += [(now, event) for event in parser.feed(piece)]
            body += b"" if is_stream else piece
            is_whole = chunks.is_done if chunks else (length is not None and len(body) >= length)
            if is_stream and parser.is_done and chunks is None:
                is_whole = True
        self.is_reusable = is_whole and (chunks is not None or length is not None)
        self.is_reusable &= headers.get("connection", "").lower() != "close"
        if not is_stream:
            events = _plain_event(bytes(body), done_ns)
        error = _error_in([event for _, event in events], status)
        is_complete = parser.is_done if is_stream else is_whole
        return Received(status, sent_ns, tuple(events), done_ns, is_complete, error)

    async def _head(self) -> tuple[int, dict[str, str]]:
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise ConnectionError("the server closed the connection without an answer") from error
        lines = head.decode("latin-1").split("\r\n")
        parts = lines[0].split(" ", 2)
        if len(parts) < 2 or not parts[0].startswith("HTTP/") or not parts[1].isdigit():
            raise ConnectionError("the server does not speak HTTP")
        pairs = (line.partition(":") for line in lines[1:] if ":" in line)
        return int(parts[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


class _Chunks:
    """Takes the chunks of a transfer encoding apart, wherever reads cut them."""

    def __init__(self) -> None:
        self._rest = b""
        self._left = 0  # bytes of the current chunk, its line end included
        self.is_done = False

    def feed(self, data: bytes) -> bytes:
        """The content in `data`; what is not whole yet waits."""
        self._rest += data
        found = bytearray()
        while self._rest and not self.is_done:
            if self._left:
                piece, self._rest = self._rest[: self._left], self._rest[self._left :]
                self._left -= len(piece)
                # The last two bytes of a chunk are its line end.
                end = max(0, len(piece) - max(0, 2 - self._left))
                found += piece[:end]
                continue
            line, separator, after = self._rest.partition(b"\r\n")
            if not separator:
                break
            self._rest = after
            size = int(line.partition(b";")[0], 16)
            self._left = size + 2
            self.is_done = size == 0
        return bytes(found)


class _Events:
    """Takes server-sent events apart, wherever reads cut them."""

    def __init__(self) -> None:
        self._rest = b""
        self.is_done = False

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The events that are whole now."""
        self._rest += data.replace(b"\r\n", b"\n") if b"\r" in data else data
        *lines, self._rest = self._rest.split(b"\n")
        found = []
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            content = line[5:].strip()
            if content == b"[DONE]":
                self.is_done = True
            elif content:
                found.append(_parsed(content))
        return found


def _plain_event(body: bytes, done_ns: int) -> list[tuple[int, dict[str, Any]]]:
    return [(done_ns, _parsed(body))] if body else []


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError:
        return {"error": {"message": "the server sent something that is not JSON"}}
    return value if isinstance(value, dict) else {"error": {"message": "the server sent something unexpected"}}


def _error_in(events: list[dict[str, Any]], status: int) -> str:
    for event in events:
        error = event.get("error")
        message = error.get("message") if isinstance(error, dict) else error
        if message or event.get("object") == "error":
            return str(message or event.get("message"))[:300]
    return "" if status < 400 else f"HTTP status {status}"
