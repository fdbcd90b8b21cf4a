"""The one door of the app: every request, on every route, is looked at here before anything else sees it."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from .deadline import Deadline
from .gateway import IS_KNOWN, Gateway, Scope
from .identity import Keys
from .limits import Limits
from .login import PATH as LOGIN
from .login import Login
from .origins import SAFE, Hosts, is_cross_site
from .refused import RefusedError
from .relay import MOST_DIGITS, Receive, Send, send_refusal

OPEN = ("/health", "/ready")  # whoever starts the app may ask how it is
STRANGERS_BYTES = 2**16  # of a body: a form with a key. Of more, strangers could fill the room of those who may ask


class Door:
    """An ASGI application that lets requests through to the gateway: whole, not too large, from who may ask."""

    def __init__(self, gateway: Gateway, keys: Keys, hosts: Hosts, limits: Limits) -> None:
        self._gateway = gateway
        self._keys = keys
        self._hosts = hosts
        self._limits = limits
        self._login = Login(keys)
        self._held_bytes = 0  # bodies of all requests that are being answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._gateway(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            await self._answer_whatever_happens(scope, receive, send)

    async def _answer_whatever_happens(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A fault of ours gets an answer too, in the shape of all errors; the server logs it."""
        is_answered = False

        async def noted_send(message: dict[str, Any]) -> None:
            nonlocal is_answered
            is_answered = True
            await send(message)

        try:
            await self._answer(scope, receive, noted_send)
        finally:
            if not is_answered and isinstance(sys.exc_info()[1], Exception):
                await send_refusal(send, RefusedError(500, "server_error", "the app failed at this request"))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        try:
            headers = headers_of(scope)
            self._check(scope["method"], headers)
            scope[IS_KNOWN] = not self._keys or self._is_known(scope, headers)
            is_login = scope["path"] == LOGIN and bool(self._keys) and self._gateway.has_page
            if not (scope[IS_KNOWN] or is_login or self._is_open(scope)):
                raise RefusedError(401, "invalid_api_key", "an API key is needed: Authorization: Bearer KEY")
            largest = self._limits.body_bytes if scope[IS_KNOWN] else min(STRANGERS_BYTES, self._limits.body_bytes)
            body = await self._read_body(headers, receive, largest)
            if is_login:
                await self._log_in(scope, headers, body, send)
            else:
                await self._gateway(scope, _given(body, receive), send)
        except RefusedError as error:
            self._gateway.count(scope, error.status)
            await send_refusal(send, error)
        except asyncio.CancelledError:
            # The server has waited long enough for its last answers, and says that itself.
            if not self._gateway.is_ending:
                raise
        finally:
            self._held_bytes -= len(body)

    # What is refused whoever asks

    def _check(self, method: str, headers: dict[str, str]) -> None:
        if "content-length" in headers and "transfer-encoding" in headers:
            raise RefusedError(400, "bad_request", "a request has a length or comes in chunks, not both", closes=True)
        if not self._hosts.know(headers.get("host", "")):
            name = headers["host"][:100]
            hint = "name it in DEPLOYTK_ALLOWED_HOSTS if it is this server's"
            raise RefusedError(403, "unknown_host", f"this server is not called {name!r}: {hint}")
        if is_cross_site(method, headers, self._hosts):
            raise RefusedError(403, "cross_site", "the page of another site cannot use this server")

    # Who asks

    def _is_known(self, scope: Scope, headers: dict[str, str]) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._keys.fit(key.strip().encode("latin-1"))
        return self._login.knows(scope, headers)

    def _is_open(self, scope: Scope) -> bool:
        return scope["method"] in SAFE and (scope["path"] in OPEN or self._gateway.is_open(scope["path"]))

    async def _log_in(self, scope: Scope, headers: dict[str, str], body: bytes, send: Send) -> None:
        if scope["method"] != "POST":
            raise RefusedError(404, "not_found", f"there is no {scope['method']} {LOGIN}")
        await self._login.take(scope, headers, body, send)

    # What it sends

    async def _read_body(self, headers: dict[str, str], receive: Receive, largest_bytes: int) -> bytes:
        length = headers.get("content-length", "0")
        is_length = length.isascii() and length.isdigit() and len(length) < MOST_DIGITS
        if not is_length or int(length) > largest_bytes:
            raise _too_large(largest_bytes)
        try:
            with Deadline(self._limits.body_s):
                return await self._whole_body(receive, largest_bytes)
        except asyncio.TimeoutError as error:
            late = f"the request did not arrive in {self._limits.body_s:.0f} s"
            raise RefusedError(408, "too_slow", late) from error

    async def _whole_body(self, receive: Receive, largest_bytes: int) -> bytes:
        parts, size, more = [], 0, True
        try:
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RefusedError(499, "client_closed", "the client went away")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                self._held_bytes += len(parts[-1])
                if size > largest_bytes:
                    raise _too_large(largest_bytes)
                if self._held_bytes > self._limits.held_bytes:
                    raise RefusedError(503, "busy", "too many large requests are being answered", 1)
                more = message.get("more_body", False)
        except BaseException:
            self._held_bytes -= size
            raise
        return b"".join(parts)


def headers_of(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _too_large(largest_bytes: int) -> RefusedError:
    return RefusedError(413, "too_large", f"a request may have {largest_bytes} bytes")


def _given(body: bytes, receive: Receive) -> Receive:
    """A `receive` that hands over the body that has been read, and then waits for the client to go."""
    is_given = False

    async def give() -> dict[str, Any]:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return give
