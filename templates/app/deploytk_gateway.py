"""The one door of the app: health, metrics, and the engine's OpenAI-style routes. Nothing else of the engine."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import sys
import time
from pathlib import Path
from typing import Any, AsyncIterator, Callable, Dict  # noqa: UP035 (Python 3.8 in old images)

from deploytk_engine import Engine
from deploytk_limits import Limits
from deploytk_metrics import Metrics
from deploytk_relay import Client, Receive, RefusedError, Relay, Send, error_body, send_json, send_whole
from deploytk_requests import check_request

Scope = Dict[str, Any]  # noqa: UP006

HERE = Path(__file__).resolve().parent
ROUTES = {("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("POST", "/v1/completions")}
OWN = ("/health", "/ready", "/metrics", "/openapi.json")


class Gateway:
    """An ASGI application around one engine.

    `make_page` builds the application that gets every path which is not the gateway's own; it is called beside
    everything else, because importing a user interface takes seconds. None: there is no page.
    """

    def __init__(
        self, engine: Engine, limits: Limits, keys: frozenset[str], make_page: Callable[[Gateway], Any] | None
    ) -> None:
        self.engine = engine
        self.limits = limits
        self.has_keys = bool(keys)
        self._keys = [key.encode() for key in keys]
        self._make_page = make_page
        self._page: Any = None
        self._page_calls: set[asyncio.Task[Any]] = set()
        self._metrics = Metrics()
        self._places: asyncio.Semaphore | None = None
        self._tasks: list[asyncio.Task[Any]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            path = scope["path"]
            if path in OWN or path == "/v1" or path.startswith("/v1/"):
                await self._answer(scope, receive, send)
            elif self._make_page is None:
                await self._answer_without_page(path, send)
            else:
                await self._show_page(scope, receive, send)

    # The app's life

    async def _live(self, receive: Receive, send: Send) -> None:
        """Start the engine and build the page, without waiting for either; end both with the server."""
        self._places = asyncio.Semaphore(self.limits.running)
        await receive()
        self.engine.start()
        if self._make_page is not None:
            self._tasks.append(asyncio.ensure_future(self._build_page(self._make_page)))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.engine.stop()
        for task in self._tasks:
            task.cancel()
        await send({"type": "lifespan.shutdown.complete"})

    async def _build_page(self, make_page: Callable[[Gateway], Any]) -> None:
        try:
            page = await asyncio.get_event_loop().run_in_executor(None, make_page, self)
        except ImportError as error:
            sys.stderr.write(f"no chat page: {error}\n")
            self._make_page = None
            return
        started = asyncio.Event()
        first = asyncio.Queue()  # type: ignore[var-annotated]
        first.put_nowait({"type": "lifespan.startup"})

        async def note(message: dict[str, Any]) -> None:
            if message["type"] == "lifespan.startup.complete":
                started.set()

        self._tasks.append(asyncio.ensure_future(page({"type": "lifespan", "state": {}}, first.get, note)))
        await started.wait()
        self._page = page

    def drain(self) -> None:
        """Refuse new requests; once the running ones are done, let go of the pages that are open in browsers."""
        self.engine.drain()
        self._tasks.append(asyncio.ensure_future(self._release_pages()))

    async def _release_pages(self) -> None:
        while self._metrics.running:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)  # for the last words to reach the browser
        for call in self._page_calls:
            call.cancel()

    # The page

    async def _show_page(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._page is None or (self.engine.ready_after_s is None and scope["path"] == "/"):
            if scope["path"] != "/":
                error = error_body(503, "not_ready", "the page is not built yet")
                await send_json(send, 503, error, [(b"retry-after", b"1")])
                return
            html = (HERE / "chat_loading.html").read_bytes()
            await send_whole(send, 200, b"text/html; charset=utf-8", html, [(b"cache-control", b"no-store")])
            return
        call = asyncio.current_task()
        assert call is not None  # noqa: S101 (we run in one)
        self._page_calls.add(call)
        try:
            await self._page(scope, receive, send)
        except asyncio.CancelledError:
            if self.engine.state not in ("draining", "stopped"):
                raise
        finally:
            self._page_calls.discard(call)

    async def _answer_without_page(self, path: str, send: Send) -> None:
        if path == "/":
            routes = [route for _, route in sorted(ROUTES)]
            await send_json(send, 200, {**self._state(), "api": [*routes, *OWN]})
        else:
            await send_json(send, 404, error_body(404, "not_found", f"there is no {path}"))

    # The API

    def _state(self) -> dict[str, Any]:
        engine = self.engine
        facts = {"state": engine.state, "engine": engine.settings.name, "model": engine.model, "detail": engine.detail}
        return {**facts, "page": self._page is not None}

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        started = time.monotonic()
        status = 499

        async def counted_send(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if path.startswith("/v1/c"):
                    self._metrics.first_byte.add(time.monotonic() - started)
            await send(message)

        try:
            if path in OWN and method in ("GET", "HEAD"):
                await self._tell(path, scope, counted_send)
            elif (method, path) in ROUTES:
                await self._pass(method, path, scope, receive, counted_send)
            else:
                raise RefusedError(404, "not_found", f"there is no {method} {path}")
        except RefusedError as error:
            retry = [(b"retry-after", str(error.retry_after_s).encode())] if error.retry_after_s else []
            await send_json(counted_send, error.status, error_body(error.status, error.code, error.message), retry)
        is_known = path in OWN or (method, path) in ROUTES
        self._metrics.count(path if is_known else "other", status)
        if (method, path) in ROUTES and method == "POST":
            self._metrics.whole.add(time.monotonic() - started)

    async def _tell(self, path: str, scope: Scope, send: Send) -> None:
        if path == "/health":
            await send_json(send, 200, {"status": "ok"})
        elif path == "/ready":
            is_ready = self.engine.state == "ready"
            await send_json(send, 200 if is_ready else 503, self._state(), [] if is_ready else [(b"retry-after", b"1")])
        elif path == "/openapi.json":
            await send_whole(send, 200, b"application/json", (HERE / "deploytk_openapi.json").read_bytes())
        else:
            self._check_key(_headers(scope))
            engine = self.engine
            own = self._metrics.text(engine.state == "ready", engine.ready_after_s or 0.0, engine.restarts)
            body = own.encode() + await engine.metrics()
            await send_whole(send, 200, b"text/plain; version=0.0.4; charset=utf-8", body)

    async def _pass(self, method: str, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _headers(scope)
        self._check_key(headers)
        body = b""
        if method == "POST":
            self._check_head(headers)
            body = await self._read_body(receive)
        if self.engine.state != "ready":
            detail = f"the model is not ready: {self.engine.state}. {self.engine.detail}".strip()
            raise RefusedError(503, "not_ready", detail, 5 if self.engine.state == "failed" else 1)
        if method == "POST":
            check_request(path, body, self.engine.model)
        client = Client(receive)
        try:
            if method == "GET":
                await Relay(self.engine.port, client, send).run(method, path, body)
            elif await self._take_place(client):
                await self._run(Relay(self.engine.port, client, send), method, path, body)
            self._metrics.cancelled += client.is_gone
        finally:
            client.forget()

    def _check_key(self, headers: dict[str, str]) -> None:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip().encode() if scheme.lower() == "bearer" else b""
        # Every key is compared, each in constant time: how long it takes says nothing about them.
        if self._keys and not sum(hmac.compare_digest(given, known) for known in self._keys):
            raise RefusedError(401, "invalid_api_key", "an API key is needed: Authorization: Bearer KEY")

    def _check_head(self, headers: dict[str, str]) -> None:
        # Pages of other sites can send plain text here without asking first, JSON they cannot.
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RefusedError(415, "unsupported_media_type", "send JSON, with Content-Type: application/json")
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self.limits.body_bytes:
            raise self._too_large()

    def _too_large(self) -> RefusedError:
        return RefusedError(413, "too_large", f"a request may have {self.limits.body_bytes} bytes")

    async def _read_body(self, receive: Receive) -> bytes:
        try:
            return await asyncio.wait_for(self._whole_body(receive), self.limits.body_s)
        except asyncio.TimeoutError as error:
            raise RefusedError(408, "too_slow", f"the request did not arrive in {self.limits.body_s:.0f} s") from error

    async def _whole_body(self, receive: Receive) -> bytes:
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RefusedError(499, "client_closed", "the client went away")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.limits.body_bytes:
                raise self._too_large()
            more = message.get("more_body", False)
        return b"".join(parts)

    async def _take_place(self, client: Client) -> bool:
        """Wait for a free place at the engine; False when the client went away first."""
        places, metrics = self._places, self._metrics
        assert places is not None  # noqa: S101 (made when the server starts)
        if not places.locked():
            await places.acquire()
            return True
        if metrics.waiting >= self.limits.waiting:
            raise RefusedError(429, "too_many_requests", "too many requests are waiting", 2)
        metrics.waiting += 1
        waiting = asyncio.ensure_future(places.acquire())
        try:
            await asyncio.wait({waiting, client.gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            metrics.waiting -= 1
            has_place = waiting.done() and not waiting.cancelled()
            waiting.cancel()
        if has_place and client.is_gone:
            places.release()
        return has_place and not client.is_gone

    async def _run(self, relay: Relay, method: str, path: str, body: bytes) -> None:
        """Relay within the time limit, and give the place back."""
        assert self._places is not None  # noqa: S101
        self._metrics.running += 1
        try:
            await asyncio.wait_for(relay.run(method, path, body), self.limits.request_s)
        except asyncio.TimeoutError as error:
            late = RefusedError(504, "timeout", f"no end within {self.limits.request_s:.0f} s")
            if not relay.has_started:
                raise late from error
            await relay.end_late(late)
        finally:
            self._metrics.running -= 1
            self._places.release()

    async def ask(self, path: str, fields: dict[str, Any], key: str) -> AsyncIterator[bytes]:
        """What this gateway answers to a request of the page, as it comes; raises RefusedError for an error."""
        answer: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        request: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        request.put_nowait({"type": "http.request", "body": json.dumps(fields).encode(), "more_body": False})
        headers = [(b"content-type", b"application/json"), (b"authorization", f"Bearer {key}".encode())]
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
        call = asyncio.ensure_future(self(scope, request.get, answer.put))
        try:
            status = (await answer.get())["status"]
            more = True
            while more:
                message = await answer.get()
                more = message.get("more_body", False)
                if status != 200:
                    raise RefusedError(status, "refused", str(json.loads(message["body"])["error"]["message"]))
                yield message["body"]
        finally:
            request.put_nowait({"type": "http.disconnect"})
            with contextlib.suppress(asyncio.CancelledError):
                await call


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
