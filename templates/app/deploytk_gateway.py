"""The one door of the app: health, metrics, and the engine's OpenAI-style routes. Nothing else of the engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from deploytk_engine import Engine, request_head

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Headers = Sequence[tuple[bytes, bytes]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

ROUTES = {("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("POST", "/v1/completions")}
READ_BYTES = 65536


@dataclass(frozen=True)
class Limits:
    body_bytes: int = 4 * 2**20
    running: int = 8  # requests at the engine
    waiting: int = 64  # requests that wait for it
    request_s: float = 600.0  # from the first to the last byte

    @classmethod
    def of(cls, manifest: dict[str, Any]) -> Limits:
        return cls(running=max(1, int(manifest["plan"]["max_batch_size"])))


@dataclass
class Counters:
    requests: dict[tuple[str, int], int] = field(default_factory=dict)  # (path, status) -> count
    running: int = 0
    waiting: int = 0
    cancelled: int = 0


class RefusedError(Exception):
    def __init__(self, status: int, code: str, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after_s = status, code, message, retry_after_s


class Gateway:
    """An ASGI application; `page` is the one that gets every path which is not the gateway's own."""

    def __init__(self, engine: Engine, limits: Limits, keys: frozenset[str]) -> None:
        self.engine = engine
        self.limits = limits
        self.page: Any = None
        self._keys = keys
        self._counters = Counters()
        self._places: asyncio.Semaphore | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] == "http" and self._is_own(scope["path"]):
            await self._answer(scope, receive, send)
        elif self.page is not None:
            await self.page(scope, receive, send)
        elif scope["type"] == "http":
            await _send_json(send, 404, _error_body(404, "not_found", f"there is no {scope['path']}"))

    def _is_own(self, path: str) -> bool:
        return (
            path in ("/health", "/ready", "/metrics", "/v1")
            or path.startswith("/v1/")
            or (path == "/" and not self.page)
        )

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start and end with the server, and pass start and end on to the page."""
        self._places = asyncio.Semaphore(self.limits.running)

        async def watched_receive() -> dict[str, Any]:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.engine.start()
            else:
                await self.engine.stop()
            return message

        if self.page is not None:
            await self.page(scope, watched_receive, send)
            return
        await watched_receive()
        await send({"type": "lifespan.startup.complete"})
        await watched_receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        status = 500

        async def counted_send(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if path in ("/health", "/ready", "/metrics", "/"):
                await self._tell(path, counted_send)
            else:
                await self._pass(method, path, scope, receive, counted_send)
        except RefusedError as error:
            retry = [(b"retry-after", str(error.retry_after_s).encode())] if error.retry_after_s else []
            await _send_json(counted_send, error.status, _error_body(error.status, error.code, error.message), retry)
        known = path if path in ("/health", "/ready", "/metrics") or (method, path) in ROUTES else "other"
        self._counters.requests[known, status] = self._counters.requests.get((known, status), 0) + 1

    async def _tell(self, path: str, send: Send) -> None:
        engine = self.engine
        state = {"state": engine.state, "engine": engine.settings.name, "model": engine.model, "detail": engine.detail}
        if path == "/metrics":
            await _send(send, 200, b"text/plain; version=0.0.4", self._metrics().encode())
        elif path == "/ready":
            is_ready = engine.state == "ready"
            await _send_json(send, 200 if is_ready else 503, state, [] if is_ready else [(b"retry-after", b"1")])
        elif path == "/health":
            await _send_json(send, 200, {"status": "ok"})
        else:
            await _send_json(send, 200, {**state, "api": ["/v1/models", "/v1/chat/completions", "/v1/completions"]})

    async def _pass(self, method: str, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request to the engine and its answer back, unbuffered."""
        if (method, path) not in ROUTES:
            raise RefusedError(404, "not_found", f"there is no {method} {path}")
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if self._keys and headers.get("authorization", "").removeprefix("Bearer ") not in self._keys:
            raise RefusedError(401, "invalid_api_key", "an API key is needed: Authorization: Bearer KEY")
        body = await self._read_body(receive) if method == "POST" else b""
        if method == "POST":
            _check_json(body)
        if self.engine.state != "ready":
            raise RefusedError(
                503, "not_ready", f"the model is not ready: {self.engine.state}. {self.engine.detail}", 1
            )
        async with self._place():
            try:
                await asyncio.wait_for(self._relay(method, path, body, receive, send), self.limits.request_s)
            except asyncio.TimeoutError as error:
                raise RefusedError(504, "timeout", f"no end within {self.limits.request_s:.0f} s") from error

    @contextlib.asynccontextmanager
    async def _place(self) -> Any:
        assert self._places is not None  # noqa: S101 (made when the server starts)
        if self._places.locked() and self._counters.waiting >= self.limits.waiting:
            raise RefusedError(429, "too_many_requests", "too many requests are waiting", 2)
        self._counters.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._counters.waiting -= 1
        self._counters.running += 1
        try:
            yield
        finally:
            self._counters.running -= 1
            self._places.release()

    async def _read_body(self, receive: Receive) -> bytes:
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RefusedError(499, "client_closed", "the client went away")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.limits.body_bytes:
                raise RefusedError(413, "too_large", f"a request may have {self.limits.body_bytes} bytes")
            more = message.get("more_body", False)
        return b"".join(parts)

    async def _relay(self, method: str, path: str, body: bytes, receive: Receive, send: Send) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.engine.port)
        except OSError as error:
            raise RefusedError(503, "engine_lost", "the engine is restarting", 1) from error
        gone = asyncio.create_task(_until_disconnect(receive))
        try:
            writer.write(request_head(method, path, len(body)) + body)
            await self._relay_answer(reader, send, gone)
        finally:
            gone.cancel()
            writer.close()

    async def _relay_answer(self, reader: asyncio.StreamReader, send: Send, gone: asyncio.Task[None]) -> None:
        first = await _unless(gone, asyncio.create_task(reader.readuntil(b"\r\n\r\n")))
        if first is None:
            self._counters.cancelled += 1
            return
        status, kind = _parse_head(first)
        if status >= 400:
            body = await reader.read()
            await _send_json(send, status, _wrapped_error(status, body))
            return
        head = [(b"content-type", kind), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": status, "headers": head})
        while True:
            data = await _unless(gone, asyncio.create_task(reader.read(READ_BYTES)))
            if data is None:
                self._counters.cancelled += 1
                return
            await send({"type": "http.response.body", "body": data, "more_body": bool(data)})
            if not data:
                return

    def _metrics(self) -> str:
        counters, engine = self._counters, self.engine
        lines = ["# TYPE deploytk_requests_total counter"]
        for (path, status), count in sorted(counters.requests.items()):
            lines.append(f'deploytk_requests_total{{path="{path}",status="{status}"}} {count}')
        gauges = {
            "deploytk_requests_running": counters.running,
            "deploytk_requests_waiting": counters.waiting,
            "deploytk_ready": int(engine.state == "ready"),
            "deploytk_load_seconds": engine.ready_after_s or 0,
        }
        for name, value in gauges.items():
            lines += [f"# TYPE {name} gauge", f"{name} {value}"]
        for name, value in {"requests_cancelled": counters.cancelled, "engine_restarts": engine.restarts}.items():
            lines += [f"# TYPE deploytk_{name}_total counter", f"deploytk_{name}_total {value}"]
        return "\n".join(lines) + "\n"


async def _unless(gone: asyncio.Task[None], work: asyncio.Task[bytes]) -> bytes | None:
    """The result of `work`, None when the client went away first."""
    await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        work.cancel()
        return None
    try:
        return work.result()
    except (OSError, asyncio.IncompleteReadError) as error:
        raise RefusedError(502, "engine_lost", "the engine ended while it answered") from error


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _check_json(body: bytes) -> None:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, "invalid_request_error", "the body is not JSON") from error
    if not isinstance(parsed, dict):
        raise RefusedError(400, "invalid_request_error", "the body is not a JSON object")


def _parse_head(head: bytes) -> tuple[int, bytes]:
    lines = head.split(b"\r\n")
    try:
        status = int(lines[0].split(b" ")[1])
    except (IndexError, ValueError) as error:
        raise RefusedError(502, "engine_error", "the engine answers no HTTP") from error
    kinds = (line.partition(b":")[2].strip() for line in lines[1:] if line.lower().startswith(b"content-type:"))
    return status, next(kinds, b"application/json")


def _error_body(status: int, code: str, message: str) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _wrapped_error(status: int, body: bytes) -> dict[str, Any]:
    """An engine's error as OpenAI clients expect it; LMDeploy's own are flat."""
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = {}
    if isinstance(parsed, dict) and isinstance(parsed.get("error"), dict):
        return parsed
    message = parsed.get("message") if isinstance(parsed, dict) else None
    code = parsed.get("type") if isinstance(parsed, dict) else None
    return _error_body(status, str(code or "engine_error"), str(message or "the engine refused the request"))


async def _send_json(send: Send, status: int, body: dict[str, Any], headers: Headers = ()) -> None:
    await _send(send, status, b"application/json", json.dumps(body, ensure_ascii=False).encode(), headers)


async def _send(send: Send, status: int, kind: bytes, body: bytes, headers: Headers = ()) -> None:
    head = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
