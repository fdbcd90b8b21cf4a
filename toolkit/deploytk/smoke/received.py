"""Takes answers apart, once nothing is timed any more: HTTP, chunks, server-sent events, JSON.

The server is not trusted: whatever it sends comes out as values of the right shape, or as the reason why it does not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deploytk.base.json import parse_json
from deploytk.base.terminal import one_line

_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,15}")
_LONGEST_LINE_BYTES = 4096  # the one with a chunk's size
_STATUS = re.compile(r"HTTP/\d\.\d")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and the reads in which its answer came. Times are `time.perf_counter_ns`."""

    sent_ns: int  # just before the first byte of the request
    reads: tuple[tuple[int, bytes], ...]  # when, and what
    is_closed: bool  # the server closed the connection after the last read
    answer: Answer | None = None  # instead of `reads`, where its end was looked for


@dataclass(frozen=True, slots=True)
class Received:
    """One answer, taken apart."""

    status: int
    sent_ns: int
    head_ns: int  # when the last byte of its head was read
    events: tuple[tuple[int, dict[str, Any]], ...]  # (when its last byte was read, the parsed event)
    done_ns: int  # when the last byte was read
    is_complete: bool  # a stream was ended by the server on purpose, a plain answer has all its bytes
    error: str  # what went wrong, in the server's words where it has some; "" when nothing


@dataclass(frozen=True, slots=True)
class Head:
    status: int
    is_chunked: bool
    length: int | None
    is_stream: bool  # server-sent events
    is_packed: bool
    closes: bool

    @classmethod
    def of(cls, data: bytes) -> Head | None:
        """None when this is not HTTP."""
        lines = data.decode("latin-1").split("\r\n")
        parts = lines[0].split(" ", 2)
        if len(parts) < 2 or not _STATUS.fullmatch(parts[0]) or not re.fullmatch(r"[0-9]{3}", parts[1]):
            return None
        pairs = (line.partition(":") for line in lines[1:] if ":" in line)
        headers = {name.strip().lower(): value.strip().lower() for name, _, value in pairs}
        length = headers.get("content-length", "")
        return cls(
            status=int(parts[1]),
            is_chunked=headers.get("transfer-encoding", "") == "chunked",
            length=int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None,
            is_stream=headers.get("content-type", "").startswith("text/event-stream"),
            is_packed=headers.get("content-encoding", "identity") not in ("", "identity"),
            closes=headers.get("connection", "") == "close" or parts[0] == "HTTP/1.0",
        )

    @property
    def has_no_body(self) -> bool:
        """Whether nothing more is waited for; an answer of 1xx is none that was asked for."""
        return self.status < 200 or self.status in (204, 304)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer whose chunks are taken apart, and nothing else."""

    head: Head
    head_ns: int  # when its last byte was read
    is_whole: bool
    pieces: Sequence[tuple[int, bytes]]  # of the body, with the times of their reads
    done_ns: int


def receive(exchange: Exchange) -> Received:
    """Take the answer of `exchange` apart; raises ConnectionError when it is not HTTP."""
    answer = exchange.answer or split(exchange.reads, is_closed=exchange.is_closed)
    head, done_ns = answer.head, answer.done_ns
    if head.is_packed:
        error = "the answer is packed, which nobody asked for"
        return Received(head.status, exchange.sent_ns, answer.head_ns, (), done_ns, False, error)
    if head.is_stream:
        parser = Events()
        events = [(when, event) for when, data in answer.pieces for event in parser.feed(data)]
        # Not every server says [DONE]; one that ends its last chunk has meant to end.
        is_complete = parser.is_done or (answer.is_whole and head.is_chunked)
    else:
        body = b"".join(data for _, data in answer.pieces)
        events, is_complete = ([(done_ns, _parsed(body))] if body else []), answer.is_whole
    error = _error_in([event for _, event in events], head.status)
    return Received(head.status, exchange.sent_ns, answer.head_ns, tuple(events), done_ns, is_complete, error)


def split(reads: Sequence[tuple[int, bytes]], *, is_closed: bool) -> Answer:
    """The head and the pieces of the body; raises ConnectionError when it is not HTTP."""
    start, count, head_ns = bytearray(), 0, 0
    for when, data in reads:
        start += data
        count, head_ns = count + 1, when
        if b"\r\n\r\n" in start[-len(data) - 3 :]:
            break
    head_bytes, separator, rest = bytes(start).partition(b"\r\n\r\n")
    head = Head.of(head_bytes) if separator else None
    if head is None:
        reason = "does not speak HTTP" if start else "closed the connection without an answer"
        raise ConnectionError(f"the server {reason}")
    pieces = [(head_ns, rest)] * bool(rest) + list(reads[count:])
    done_ns = reads[-1][0]
    if head.is_chunked:
        chunks = Chunks()
        try:
            pieces = [(when, chunks.feed(data)) for when, data in pieces]
        except ValueError as error:
            raise ConnectionError("the server sends chunks that are none") from error
        return Answer(head, head_ns, chunks.is_done, pieces, done_ns)
    if head.length is not None:
        return Answer(head, head_ns, sum(len(data) for _, data in pieces) >= head.length, pieces, done_ns)
    return Answer(head, head_ns, is_closed or head.has_no_body, pieces, done_ns)


class Chunks:
    """Takes the chunks of a transfer encoding apart, wherever reads cut them."""

    def __init__(self) -> None:
        self._rest = b""
        self._left = 0  # bytes of the current chunk, its line end included
        self._is_last = False
        self.is_done = False

    def feed(self, data: bytes) -> bytes:
        """The content in `data`; what is not whole yet waits. Raises ValueError for what is no chunk."""
        data, at, found = (self._rest + data if self._rest else data), 0, []
        self._rest = b""
        while at < len(data) and not self.is_done:
            if not self._left:
                line_end = data.find(b"\r\n", at)
                if line_end < 0:
                    self._keep(data[at:])
                    break
                self._begin(data[at:line_end])
                at = line_end + 2
            if self._left:
                stop = min(at + self._left, len(data))
                self._left -= stop - at
                # The last two bytes of a chunk are its line end.
                found.append(data[at : max(at, stop - max(0, 2 - self._left))])
                at = stop
        return found[0] if len(found) == 1 else b"".join(found)

    def _keep(self, rest: bytes) -> None:
        self._rest = rest
        if len(rest) > _LONGEST_LINE_BYTES:
            raise ValueError("the size of a chunk is missing")

    def _begin(self, line: bytes) -> None:
        """Take the line before a chunk, or one behind the last: trailers, and the empty one that ends them."""
        if self._is_last:
            self.is_done = not line
            return
        size = _size(line)
        self._left = size + 2 if size else 0
        self._is_last = size == 0


def _size(line: bytes) -> int:
    if not _CHUNK_SIZE.fullmatch(line):  # int() would take a sign, a prefix and underscores
        line = line.partition(b";")[0].strip()
        if not _CHUNK_SIZE.fullmatch(line):
            raise ValueError("the size of a chunk is none")
    return int(line, 16)


class Events:
    """Takes server-sent events apart, wherever reads cut them."""

    def __init__(self) -> None:
        self._rest = b""
        self.is_done = False

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The events that are whole now."""
        *lines, self._rest = (self._rest + data if self._rest else data).split(b"\n")
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
        value = parse_json(content)
    except ValueError:
        return {"error": {"message": "the server sent something that is not JSON"}}
    return value if isinstance(value, dict) else {"error": {"message": "the server sent something unexpected"}}


def _error_in(events: Sequence[dict[str, Any]], status: int) -> str:
    said = next((words for event in events if (words := _said(event))), "")
    if 200 <= status < 300 or (said and status >= 400 and status != 401):
        return said
    if status == 401:
        return f"{said or 'HTTP status 401'}: it wants a key, name its variable with --api-key-env"
    return f"HTTP status {status}" + (", which leads elsewhere" if 300 <= status < 400 else "")


def _said(event: dict[str, Any]) -> str:
    error = event.get("error")
    message = error.get("message") if isinstance(error, dict) else error
    if not message and event.get("object") != "error":
        return ""
    message = message or event.get("message")
    return (one_line(message) if isinstance(message, str) else "") or "the server reports an error without a word"
