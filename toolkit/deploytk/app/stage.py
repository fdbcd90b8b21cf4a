"""Keeps the Gradio of the app: built beside everything else, answering in time, let go of at the end."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Callable, Coroutine  # noqa: UP035 (Python 3.8 in old images)

from .refused import RefusedError
from .relay import Receive, Send, error_body, send_json

LONGEST_CALL_S = 24 * 3600.0  # what a client keeps open to hear of news ends then


class Stage:
    """`make` builds an ASGI application; that takes seconds, because it imports Gradio."""

    def __init__(self, make: Callable[[], Any], answer_within_s: float) -> None:
        self._make = make
        self._answer_within_s = answer_within_s
        self._application: Callable[..., Coroutine[Any, Any, None]] | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self._life: asyncio.Task[None] | None = None
        self.is_broken = False  # there will be none

    async def build(self) -> None:
        try:
            application = await asyncio.get_event_loop().run_in_executor(None, self._make)
        except ImportError as error:
            sys.stderr.write(f"no Gradio: {error}\n")
            self.is_broken = True
            return
        started = asyncio.Event()
        first: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        first.put_nowait({"type": "lifespan.startup"})

        async def note(message: dict[str, Any]) -> None:
            if message["type"] == "lifespan.startup.complete":
                started.set()

        self._life = asyncio.ensure_future(application({"type": "lifespan", "state": {}}, first.get, note))
        await started.wait()
        self._application = application

    def close(self) -> None:
        if self._life:
            self._life.cancel()

    def release(self) -> None:
        """Let go of the clients that listen for news."""
        for call in self._calls:
            call.cancel()

    async def show(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Raises RefusedError when Gradio is not there yet, does not begin to answer in time, or fails before that."""
        if self._application is None:
            raise RefusedError(503, "not_ready", "Gradio is not there yet", 1)
        begun = asyncio.Event()
        is_whole = False

        async def note(message: dict[str, Any]) -> None:
            nonlocal is_whole
            begun.set()
            await send(message)
            is_whole = message["type"] == "http.response.body" and not message.get("more_body", False)

        asks = scope["method"] in ("GET", "HEAD")
        call = asyncio.ensure_future(self._application(scope, receive, _in_our_shape(note) if asks else note))
        self._calls.add(call)
        try:
            await self._watch(call, begun)
        finally:
            self._calls.discard(call)
            call.cancel()
        error = None if call.cancelled() or not call.done() else call.exception()
        if isinstance(error, RefusedError):
            raise error
        if error:
            where = f"{scope['method']} {scope['path'][:200]!r}"
            sys.stderr.write(f"Gradio failed at {where}: {type(error).__name__}: {str(error)[:200]!r}\n")
        if not begun.is_set():
            raise RefusedError(502, "gradio_failed", "Gradio has no answer to that")
        if not is_whole:
            await send({"type": "http.response.body", "body": b""})

    async def _watch(self, call: asyncio.Task[None], begun: asyncio.Event) -> None:
        first = asyncio.ensure_future(begun.wait())
        try:
            either: set[asyncio.Future[Any]] = {call, first}
            await asyncio.wait(either, timeout=self._answer_within_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            first.cancel()
        if begun.is_set():
            await asyncio.wait({call}, timeout=LONGEST_CALL_S)
        elif not call.done():
            raise RefusedError(504, "timeout", f"no answer within {self._answer_within_s:.0f} s")


def _in_our_shape(send: Send) -> Send:
    """Errors of Gradio like those of every other path; what its clients post stays as they read it."""
    refused = 0

    async def translate(message: dict[str, Any]) -> None:
        nonlocal refused
        if message["type"] == "http.response.start" and message["status"] >= 400:
            refused = message["status"]
        elif not refused:
            await send(message)
        elif not message.get("more_body", False):
            await send_json(send, refused, error_body(refused, "gradio_error", "Gradio has no answer to that"))

    return translate
