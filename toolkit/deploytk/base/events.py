"""Reads a stream of events (SSE) of a server that nobody vouches for: bounded in size and time, nothing unpacked."""

from __future__ import annotations

import codecs
import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx

from deploytk.base.net import Key, describe, trusted
from deploytk.base.origin import Origin
from deploytk.base.retry import retry_after_s

_CONNECT_WITHIN_S = 10.0
_WHOLE_WITHIN_S = 3600.0
_LARGEST_BYTES = 2**26
_LARGEST_LINE = 2**20
_LARGEST_REFUSAL_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Stream:
    """What came: `events` one by one while they come, or, of a refusal and of an answer that is whole, the `body`."""

    status: int
    events: Iterator[str]
    body: bytes
    retry_after_s: float | None


@contextmanager
def post_for_events(url: str, body: Mapping[str, object], key: Key | None, silent_s: float) -> Iterator[Stream]:
    """POST `body` and read what comes; leaving the context closes the connection, and the server can stop its work.

    Raises ConnectionError, which says why, when the server cannot be reached, is silent for `silent_s`, goes on for
    more than an hour, or sends what is no stream of events.
    """
    # A proxy of the environment does not know this machine's loopback.
    is_near = Origin.of(url).is_loopback
    headers = {"Accept-Encoding": "identity", **(key.headers(url) if key else {})}
    timeout = httpx.Timeout(silent_s, connect=_CONNECT_WITHIN_S)
    with _Alarm() as alarm:
        alarm.set(_CONNECT_WITHIN_S + silent_s)  # a head that comes byte by byte is never silent
        try:
            with (
                httpx.Client(timeout=timeout, verify=trusted(), trust_env=not is_near) as client,
                client.stream("POST", url, json=dict(body), headers=headers, extensions=alarm.watches) as response,
            ):
                alarm.set(_WHOLE_WITHIN_S)
                yield _stream(response)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise _reason(error, alarm, silent_s) from error


def _stream(response: httpx.Response) -> Stream:
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise ConnectionError("its answer is packed, which nobody asked for")
    is_stream = response.status_code == 200 and "event-stream" in response.headers.get("content-type", "")
    content = b"" if is_stream else _start(response)
    events = _events(response) if is_stream else iter(())
    return Stream(response.status_code, events, content, retry_after_s(response.headers.get("retry-after")))


def _reason(error: Exception, alarm: _Alarm, silent_s: float) -> ConnectionError:
    if alarm.has_rung:
        return ConnectionError(f"no whole answer within {alarm.within_s:.0f} s")
    if type(error) is ConnectionError:  # what is said here already
        return error
    if isinstance(error, httpx.ReadTimeout):
        return ConnectionError(f"nothing came for {silent_s:.0f} s")
    if isinstance(error, httpx.RemoteProtocolError):
        return ConnectionError("it does not speak HTTP, or broke off")
    return ConnectionError(describe(error))


class _Alarm:
    """Ends a connection when its time is over, also while it is read from: httpx has limits for single reads alone."""

    def __init__(self) -> None:
        self.has_rung = False
        self.within_s = 0.0
        self.watches = {"trace": self._trace}
        self._timer = threading.Timer(0, self._ring)
        self._socket: socket.socket | None = None

    def __enter__(self) -> _Alarm:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._timer.cancel()

    def set(self, within_s: float) -> None:
        self._timer.cancel()
        self.within_s = within_s
        self._timer = threading.Timer(within_s, self._ring)
        self._timer.daemon = True
        self._timer.start()

    def _trace(self, name: str, info: Mapping[str, Any]) -> None:
        if name in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._socket = info["return_value"].get_extra_info("socket")

    def _ring(self) -> None:
        self.has_rung = True
        if self._socket is not None:
            with contextlib.suppress(OSError):  # it is closed already
                self._socket.shutdown(socket.SHUT_RDWR)


def _start(response: httpx.Response) -> bytes:
    content = bytearray()
    for piece in response.iter_raw():
        content += piece
        if len(content) > _LARGEST_REFUSAL_BYTES:
            raise ConnectionError(f"its answer is larger than {_LARGEST_REFUSAL_BYTES} bytes")
    return bytes(content)


def _events(response: httpx.Response) -> Iterator[str]:
    """The data of each event that is on one line, as every server of this API writes them."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    begun: list[str] = []  # the line whose end has not come
    size = length = 0
    for piece in response.iter_raw():
        size += len(piece)
        text = decoder.decode(piece)
        if size > _LARGEST_BYTES or length + len(text) > _LARGEST_LINE + len(piece):
            raise ConnectionError(f"its answer is larger than {_LARGEST_BYTES} bytes, or has a line without end")
        if "\n" not in text:
            begun.append(text)
            length += len(text)
            continue
        *lines, rest = ("".join(begun) + text).split("\n")
        begun, length = [rest], len(rest)
        yield from (line[5:].strip() for line in lines if line.startswith("data:"))
