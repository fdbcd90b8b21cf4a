"""A measuring HTTP client: connections that are open before they are needed, and a stamp at every read.

The stamp is taken in `data_received`, when the bytes come from the socket and before anything is parsed; answers are
taken apart when the measurement is over. So neither the client's own work nor the handshake is counted.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from deploytk.base.errors import EndpointError

_CONNECT_WITHIN_S = 10.0
_LARGEST_ANSWER_BYTES = 2**26


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and the reads in which its answer came. Times are `time.perf_counter_ns`."""

    sent_ns: int  # just before the first byte of the request
    reads: tuple[tuple[int, bytes], ...]  # when, and what
    is_closed: bool  # the server closed the connection after the last read


@dataclass(frozen=True, slots=True)
class Received:
    """One answer, taken apart."""

    status: int
    sent_ns: int
    head_ns: int  # when the last byte of its head was read
    events: tuple[tuple[int, dict[str, Any]], ...]  # (when its last byte was read, the parsed event)
    done_ns: int  # when the last byte was read
    is_complete: bool  # a stream was ended by the server on purpose, a plain answer has all its bytes
    error: str  # what the server said went wrong, "" when nothing


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, taken from its URL."""

    host: str
    port: int
    is_secure: bool
    path: str  # before every path of a request

    @classmethod
    def of(cls, url: str) -> Address:
        """Raises EndpointError when `url` is none of a server."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or parts.scheme not in ("http", "https"):
            raise EndpointError(f"{url} is no address of a server", hint="it looks like http://127.0.0.1:7860")
        is_secure = parts.scheme == "https"
        return cls(host, port or (443 if is_secure else 80), is_secure, parts.path.rstrip("/"))

    def head(self, method: str, path: str, size: int, key: str | None) -> bytes:
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [f"{method} {self.path}{path} HTTP/1.1", f"Host: {host}:{self.port}", "Accept: */*"]
        lines += [f"Authorization: Bearer {key}"] if key else []
        lines += ["Content-Type: application/json", f"Content-Length: {size}"] if method == "POST" else []
        return "\r\n".join([*lines, "", ""]).encode()


class Connection:
    """A connection to one server, opened before it is needed and used for one request after the other."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self._address = Address.of(url)
        self._key = key
        self._wire: _Wire | None = None
        self.connect_ms: float | None = None  # TCP and TLS, of the last time it was opened

    async def open(self) -> None:
        """Connect unless that is done already; raises OSError."""
        if self._wire is not None and not self._wire.is_closed:
            return
        loop = asyncio.get_running_loop()
        tls = ssl.create_default_context() if self._address.is_secure else None
        started = time.perf_counter_ns()
        opening = loop.create_connection(_Wire, self._address.host, self._address.port, ssl=tls)
        try:
            _, self._wire = await asyncio.wait_for(opening, _CONNECT_WITHIN_S)
        except asyncio.TimeoutError as error:
            raise ConnectionError(f"no connection within {_CONNECT_WITHIN_S:.0f} s") from error
        self.connect_ms = (time.perf_counter_ns() - started) / 1e6

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
        self._wire = None

    async def post(self, path: str, body: dict[str, Any], within_s: float) -> Exchange:
        """Send `body` and collect the answer; raises OSError when none comes, or none in time."""
        return await self._ask("POST", path, json.dumps(body, ensure_ascii=False).encode(), within_s)

    async def get(self, path: str, within_s: float) -> tuple[int, bytes]:
        """The status and body of an answer; raises OSError when none comes."""
        exchange = await self._ask("GET", path, b"", within_s)
        head, _, _, pieces = _split(exchange)
        return head.status, b"".join(data for _, data in pieces)

    async def _ask(self, method: str, path: str, content: bytes, within_s: float) -> Exchange:
        head = self._address.head(method, path, len(content), self._key)
        await self.open()
        wire = self._wire
        assert wire is not None  # noqa: S101 (open sets it)
        answered = wire.expect()
        sent_ns = time.perf_counter_ns()
        wire.send(head + content)
        try:
            await asyncio.wait_for(answered, within_s)
        except asyncio.TimeoutError as error:
            self.close()
            raise ConnectionError(f"no end within {within_s:g} s") from error
        except BaseException:
            self.close()
            raise
        exchange = Exchange(sent_ns, tuple(wire.reads), wire.is_closed)
        if not wire.is_reusable:
            self.close()
        if not exchange.reads:
            raise ConnectionError("the server closed the connection without an answer")
        return exchange


class _Wire(asyncio.Protocol):
    """Keeps what is read and when, and notices the end of an answer."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, bytes]] = []
        self.is_closed = False
        self.is_reusable = False
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[None] | None = None
        self._head: _Head | None = None
        self._start = b""
        self._body_bytes = 0
        self._end = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def expect(self) -> asyncio.Future[None]:
        """A future that is done with the answer to the request that is sent next."""
        self.reads, self._head, self._start, self._end, self._body_bytes = [], None, b"", b"", 0
        self.is_reusable = False
        self._answered = asyncio.get_running_loop().create_future()
        if self.is_closed:
            self._answered.set_result(None)
        return self._answered

    def send(self, data: bytes) -> None:
        if self._transport is not None and not self.is_closed:
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        self.is_closed = True

    def data_received(self, data: bytes) -> None:
        self.reads.append((time.perf_counter_ns(), data))
        if self._head is not None:
            self._body_bytes += len(data)
        elif not self._has_head(data):
            return
        if self._head is not None and self._head.is_chunked:
            # Almost always this is enough; whether the five bytes are the last chunk or text is looked at then.
            self._end = self._end[-4:] + data[-5:]
            if self._end.endswith(b"0\r\n\r\n") or self._body_bytes > _LARGEST_ANSWER_BYTES:
                self._finish_chunked()
        elif self._head is not None and self._head.length is not None:
            if self._body_bytes >= self._head.length:
                self._finish(is_reusable=True)
        elif b"data: [DONE]" in (self._end[-16:] + data):
            self._finish(is_reusable=False)
        else:
            self._end = data[-16:]

    def eof_received(self) -> None:
        self.is_closed = True

    def connection_lost(self, _error: Exception | None) -> None:
        self.is_closed = True
        self._finish(is_reusable=False)

    def _has_head(self, data: bytes) -> bool:
        """Whether the head is whole now; counts what comes after it."""
        self._start += data
        head, separator, body = self._start.partition(b"\r\n\r\n")
        if not separator:
            if len(self._start) > 65536:
                self.close()
                self._finish(is_reusable=False)
            return False
        self._head = _Head.of(head)
        self._body_bytes = len(body)
        if self._head is None:
            self.close()
            self._finish(is_reusable=False)
            return False
        return True

    def _finish_chunked(self) -> None:
        head, _, is_whole, _ = _split(Exchange(0, tuple(self.reads), is_closed=False))
        if is_whole or self._body_bytes > _LARGEST_ANSWER_BYTES:
            self._finish(is_reusable=is_whole and not head.closes)

    def _finish(self, *, is_reusable: bool) -> None:
        self.is_reusable = is_reusable and not self.is_closed and self._head is not None and not self._head.closes
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)


@dataclass(frozen=True, slots=True)
class _Head:
    status: int
    is_chunked: bool
    length: int | None
    is_stream: bool  # server-sent events
    closes: bool

    @classmethod
    def of(cls, data: bytes) -> _Head | None:
        """None when this is not HTTP."""
        lines = data.decode("latin-1").split("\r\n")
        parts = lines[0].split(" ", 2)
        if len(parts) < 2 or not parts[0].startswith("HTTP/") or not parts[1].isdigit():
            return None
        pairs = (line.partition(":") for line in lines[1:] if ":" in line)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        length = headers.get("content-length", "")
        return cls(
            status=int(parts[1]),
            is_chunked=headers.get("transfer-encoding", "").lower() == "chunked",
            length=int(length) if length.isdigit() else None,
            is_stream=headers.get("content-type", "").startswith("text/event-stream"),
            closes=headers.get("connection", "").lower() == "close" or parts[0] == "HTTP/1.0",
        )


def receive(exchange: Exchange) -> Received:
    """Take the answer of `exchange` apart; raises ConnectionError when it is not HTTP."""
    head, head_ns, is_whole, pieces = _split(exchange)
    done_ns = exchange.reads[-1][0]
    if head.is_stream:
        parser = Events()
        events = [(when, event) for when, data in pieces for event in parser.feed(data)]
        # Not every server says [DONE]; one that ends its last chunk has meant to end.
        is_complete = parser.is_done or (is_whole and head.is_chunked)
    else:
        body = b"".join(data for _, data in pieces)
        events, is_complete = ([(done_ns, _parsed(body))] if body else []), is_whole
    error = _error_in([event for _, event in events], head.status)
    return Received(head.status, exchange.sent_ns, head_ns, tuple(events), done_ns, is_complete, error)


def _split(exchange: Exchange) -> tuple[_Head, int, bool, list[tuple[int, bytes]]]:
    """Head, when it was read, whether the body is whole, and the pieces of the body with their times."""
    start, count, head_ns = b"", 0, 0
    for when, data in exchange.reads:
        start += data
        count, head_ns = count + 1, when
        if b"\r\n\r\n" in start:
            break
    head_bytes, separator, rest = start.partition(b"\r\n\r\n")
    head = _Head.of(head_bytes) if separator else None
    if head is None:
        reason = "does not speak HTTP" if start else "closed the connection without an answer"
        raise ConnectionError(f"the server {reason}")
    pieces = [(head_ns, rest)] * bool(rest) + list(exchange.reads[count:])
    if head.is_chunked:
        chunks = Chunks()
        try:
            pieces = [(when, chunks.feed(data)) for when, data in pieces]
        except ValueError as error:
            raise ConnectionError("the server sends chunks that are none") from error
        return head, head_ns, chunks.is_done, pieces
    if head.length is not None:
        return head, head_ns, sum(len(data) for _, data in pieces) >= head.length, pieces
    return head, head_ns, exchange.is_closed, pieces


class Chunks:
    """Takes the chunks of a transfer encoding apart, wherever reads cut them."""

    def __init__(self) -> None:
        self._rest = b""
        self._left = 0  # bytes of the current chunk, its line end included
        self._is_last = False
        self.is_done = False

    def feed(self, data: bytes) -> bytes:
        """The content in `data`; what is not whole yet waits. Raises ValueError for what is no chunk."""
        data, at, found = self._rest + data, 0, []
        self._rest = b""
        while at < len(data) and not self.is_done:
            if self._left:
                stop = min(at + self._left, len(data))
                self._left -= stop - at
                # The last two bytes of a chunk are its line end.
                found.append(data[at : max(at, stop - max(0, 2 - self._left))])
                at = stop
                continue
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                self._rest = data[at:]
                if len(self._rest) > 4096:
                    raise ValueError("the size of a chunk is missing")
                break
            line = data[at:line_end]
            at = line_end + 2
            if self._is_last:
                self.is_done = not line  # lines before the empty one are trailers
                continue
            size = int(line.partition(b";")[0], 16)
            self._left = size + 2 if size else 0
            self._is_last = size == 0
        return b"".join(found)


class Events:
    """Takes server-sent events apart, wherever reads cut them."""

    def __init__(self) -> None:
        self._rest = b""
        self.is_done = False

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The events that are whole now."""
        self._rest += data
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


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content.decode())  # of bytes it would guess the encoding
    except (ValueError, RecursionError):
        return {"error": {"message": "the server sent something that is not JSON"}}
    return value if isinstance(value, dict) else {"error": {"message": "the server sent something unexpected"}}


def _error_in(events: Sequence[dict[str, Any]], status: int) -> str:
    for event in events:
        error = event.get("error")
        message = error.get("message") if isinstance(error, dict) else error
        if message or event.get("object") == "error":
            return str(message or event.get("message"))[:300]
    return "" if status < 400 else f"HTTP status {status}"
