"""A measuring HTTP client: connections that are open before they are needed, and a stamp at every read.

The stamp is taken in `data_received`, when the bytes come from the socket and before anything is parsed; answers are
taken apart when the measurement is over. So neither the client's own work nor the handshake is counted. An answer
that is larger than any to that request, or takes longer, ends the request there.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from deploytk.app.deadline import Deadline
from deploytk.base.errors import EndpointError
from deploytk.base.net import Key, trusted
from deploytk.smoke.received import Answer, Exchange, Head, split

_CONNECT_WITHIN_S = 10.0
_LARGEST_ANSWER_BYTES = 2**26  # without a limit of its own
_LARGEST_HEAD_BYTES = 2**15
_LAST_CHUNK = b"0\r\n\r\n"
_READ_BYTES = 128  # what a read takes beside its bytes
_MOST_FALSE_ENDS = 100  # reads that end like the last chunk and are not: in text of a model there is none


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
        if not host or parts.scheme not in ("http", "https") or not (host + parts.path).isprintable():
            raise EndpointError(f"{url} is no address of a server", hint="it looks like http://127.0.0.1:7860")
        is_secure = parts.scheme == "https"
        return cls(host, port or (443 if is_secure else 80), is_secure, parts.path.rstrip("/"))

    def head(self, path: str, size: int, headers: dict[str, str]) -> bytes:
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [f"POST {self.path}{path} HTTP/1.1", f"Host: {host}:{self.port}", "Accept: */*"]
        lines += ["Accept-Encoding: identity", *(f"{name}: {value}" for name, value in headers.items())]
        lines += ["Content-Type: application/json", f"Content-Length: {size}"]
        return "\r\n".join([*lines, "", ""]).encode()


class Connection:
    """A connection to one server, opened before it is needed and used for one request after the other."""

    def __init__(self, url: str, key: Key | None = None) -> None:
        self._address = Address.of(url)
        self._headers = key.headers(url) if key else {}
        self._wire: _Wire | None = None
        self.connect_ms: float | None = None  # TCP and TLS, of the last time it was opened

    async def open(self) -> None:
        """Connect unless that is done already; raises OSError."""
        if self._wire is not None and not self._wire.is_closed:
            return
        loop = asyncio.get_running_loop()
        tls = trusted() if self._address.is_secure else None
        started = time.perf_counter_ns()
        try:
            with Deadline(_CONNECT_WITHIN_S):
                _, self._wire = await loop.create_connection(_Wire, self._address.host, self._address.port, ssl=tls)
        except asyncio.TimeoutError as error:
            raise ConnectionError(f"no connection within {_CONNECT_WITHIN_S:.0f} s") from error
        self.connect_ms = (time.perf_counter_ns() - started) / 1e6

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
        self._wire = None

    async def post(
        self, path: str, body: dict[str, Any], within_s: float, largest_bytes: int = _LARGEST_ANSWER_BYTES
    ) -> Exchange:
        """Send `body` and collect the answer; raises OSError when none comes, none in time, or one without end."""
        content = json.dumps(body, ensure_ascii=False).encode()
        head = self._address.head(path, len(content), self._headers)
        await self.open()
        wire = self._wire
        assert wire is not None  # noqa: S101 (open sets it)
        answered = wire.expect(largest_bytes)
        sent_ns = time.perf_counter_ns()
        wire.send(head + content)
        try:
            with Deadline(within_s):
                await answered
        except asyncio.TimeoutError as error:
            self.close()
            raise ConnectionError(f"no end within {within_s:g} s") from error
        except BaseException:
            self.close()
            raise
        reads = () if wire.answer else tuple(wire.reads)
        exchange = Exchange(sent_ns, reads, wire.is_closed, wire.answer)
        problem = wire.problem
        if not wire.is_reusable:
            self.close()
        if problem:
            raise ConnectionError(problem)
        if not (reads or wire.answer):
            raise ConnectionError("the server closed the connection without an answer")
        return exchange


class _Wire(asyncio.Protocol):
    """Keeps what is read and when, and notices the end of an answer."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, bytes]] = []
        self.answer: Answer | None = None
        self.is_closed = False
        self.is_reusable = False
        self.problem = ""  # why there will be no whole answer
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[None] | None = None
        self._head: Head | None = None
        self._start = bytearray()
        self._body_bytes = 0
        self._end = b""
        self._false_ends = 0
        self._allowed_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def expect(self, largest_bytes: int) -> asyncio.Future[None]:
        """A future that is done with the answer to the request that is sent next."""
        self.reads, self.answer = [], None
        self._head, self._start, self._end, self._body_bytes = None, bytearray(), b"", 0
        self.is_reusable, self.problem, self._false_ends = False, "", 0
        self._allowed_bytes = largest_bytes
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
        self._allowed_bytes -= len(data) + _READ_BYTES
        if self._allowed_bytes < 0:
            self._give_up("the answer is larger than any to that request")
        elif self._head is None:
            self._take_head(data)
        else:
            self._look_for_end(self._head, data)

    def eof_received(self) -> None:
        self.is_closed = True

    def connection_lost(self, _error: Exception | None) -> None:
        self.is_closed = True
        self._finish(is_reusable=False)

    def _look_for_end(self, head: Head, data: bytes) -> None:
        if head.is_chunked:
            # Almost always this is enough; whether the five bytes are the last chunk or text is looked at then.
            self._end = data if len(data) >= len(_LAST_CHUNK) else self._end[-4:] + data
            if self._end.endswith(_LAST_CHUNK):
                self._finish_chunked()
        elif head.length is not None:
            self._body_bytes += len(data)
            if self._body_bytes >= head.length:
                self._finish(is_reusable=True)
        elif b"data: [DONE]" in (self._end[-16:] + data):
            self._finish(is_reusable=False)
        else:
            self._end = data[-16:]

    def _take_head(self, data: bytes) -> None:
        """Add to the head, and look for the end of the answer once it is whole."""
        self._start += data
        if b"\r\n\r\n" not in self._start[-len(data) - 3 :]:
            if len(self._start) > _LARGEST_HEAD_BYTES:
                self._give_up("the server does not speak HTTP")
            return
        start, _, body = bytes(self._start).partition(b"\r\n\r\n")
        head = self._head = Head.of(start)
        if head is None:
            self._give_up("the server does not speak HTTP")
        elif head.has_no_body:
            self._finish(is_reusable=head.status >= 200)
        else:
            self._look_for_end(head, body)

    def _finish_chunked(self) -> None:
        self._false_ends += 1
        if self._false_ends > _MOST_FALSE_ENDS:
            self._give_up("the server sends chunks that are none")
            return
        try:
            answer = split(self.reads, is_closed=False)
        except ConnectionError as error:
            self._give_up(str(error))
            return
        if answer.is_whole:
            self.answer, self.reads = answer, []
            self._finish(is_reusable=not answer.head.closes)

    def _give_up(self, problem: str) -> None:
        self.problem = self.problem or problem
        self.close()
        self._finish(is_reusable=False)

    def _finish(self, *, is_reusable: bool) -> None:
        self.is_reusable = is_reusable and not self.is_closed and self._head is not None and not self._head.closes
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)
