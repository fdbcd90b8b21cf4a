"""The connections of the app: a request arrives in time, an answer is read in time, and there are so many at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .limits import Limits
from .relay import error_body

LARGEST_HEAD_BYTES = 32 * 1024
GRACE_S = 5.0  # for the answer that says what was too slow
DISCARDED_BYTES = 64 * 2**20  # of a body that is refused, before the connection is cut
FULL = json.dumps(error_body(503, "busy", "too many connections are open")).encode()
FULL_HEAD = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(FULL)
)


class GuardedProtocol(H11Protocol):
    """Uvicorn's strict HTTP/1.1, which by itself waits for ever for a request that does not come whole.

    h11 in any case, whatever else is installed: it refuses two lengths that differ, and takes no line for a header
    that is none.
    """

    limits = Limits()

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._late: asyncio.TimerHandle | None = None  # ends a request that does not arrive
        self._stuck: asyncio.TimerHandle | None = None  # ends a client that does not read
        self._received_bytes = 0  # of the request that arrives
        self._since_s = self.loop.time()

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._start_clock()
        if len(self.connections) > self.limits.connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        self.resume_writing()
        self._unset_keepalive_if_required()
        with contextlib.suppress(h11.LocalProtocolError):
            super().connection_lost(exc)

    # A request that does not arrive

    def data_received(self, data: bytes) -> None:
        self._received_bytes += len(data)
        super().data_received(data)
        if self._received_bytes > max(DISCARDED_BYTES, 8 * self.limits.body_bytes):
            self.transport.abort()
        self._follow()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._start_clock()

    def _follow(self) -> None:
        """Let the clock run while a request is arriving: from its first byte, on every one of a connection."""
        state = self.conn.their_state
        if state is h11.SEND_BODY or (state is h11.IDLE and self.conn.trailing_data[0]):
            self._start_clock()
            return
        self._stop_clock()
        if state is h11.IDLE and self.timeout_keep_alive_task is None and not self.transport.is_closing():
            # What came was the rest of a request that has got its answer.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _start_clock(self) -> None:
        if self._late is None:
            self._since_s = self.loop.time()
            self._late = self.loop.call_later(self.limits.body_s, self._end_late)

    def _stop_clock(self) -> None:
        if self._late is not None:
            self._late.cancel()
        self._late, self._received_bytes = None, 0

    def _end_late(self) -> None:
        if self.conn.their_state is h11.SEND_BODY and self.loop.time() - self._since_s < self.limits.body_s + GRACE_S:
            self._late = self.loop.call_later(GRACE_S, self._end_late)
        else:
            self.transport.abort()

    # A head that another server might read differently

    def handle_events(self) -> None:
        """Refuse what h11 bears with: what stands before us may have found other requests in it."""
        if self.conn.their_state is h11.IDLE and not _is_strict(self.conn.trailing_data[0]):
            self.send_400_response("Invalid HTTP request received.")
            return
        super().handle_events()

    # A client that does not read

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stuck is None:
            self._stuck = self.loop.call_later(self.limits.body_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    # Too many clients

    def _make_room(self) -> None:
        """Close the connection that has been without a whole request for longest; the new one when all have one."""
        idle = [other for other in self.connections if other is not self and other._is_idle()]  # type: ignore[union-attr]
        if idle:
            min(idle, key=lambda other: other._since_s).transport.abort()  # type: ignore[union-attr]
        else:
            self.transport.write(FULL_HEAD + FULL)
            self.transport.close()

    def _is_idle(self) -> bool:
        has_answered = self.cycle is None or self.cycle.response_complete
        return not self.transport.is_closing() and (has_answered or self.conn.their_state is h11.SEND_BODY)

    # What uvicorn would answer in plain text, or end with a traceback

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps(error_body(400, "bad_request", msg)).encode()
            head = [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(body)),
                (b"connection", b"close"),
            ]
            for event in (h11.Response(status_code=400, headers=head), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
            self.transport.close()
        else:
            self.transport.abort()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def shutdown(self) -> None:
        self._close_by(super().shutdown)

    def timeout_keep_alive_handler(self) -> None:
        self._close_by(super().timeout_keep_alive_handler)

    def _close_by(self, close: Callable[[], None]) -> None:
        """Where h11 has nothing left to say, the connection is closed all the same: an app that ends waits for it."""
        try:
            close()
        except h11.LocalProtocolError:
            self.transport.close()


def _is_strict(data: bytes) -> bool:
    """Whether the head with which `data` begins is short and clear: whole lines, not folded, one length, our version.

    A head that has not come whole is strict so far.
    """
    head, end, _ = data.partition(b"\r\n\r\n")
    if len(head) > LARGEST_HEAD_BYTES or b"\n" in head.replace(b"\r\n", b"") or b"\n " in head or b"\n\t" in head:
        return False
    lines = head.split(b"\r\n")
    lengths = sum(line.lower().startswith(b"content-length:") for line in lines)
    return not end or (lengths < 2 and lines[0].endswith((b" HTTP/1.1", b" HTTP/1.0")))
