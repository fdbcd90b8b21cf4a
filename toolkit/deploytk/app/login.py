"""Where a browser shows a key, once, and gets a session for it."""

from __future__ import annotations

from typing import Any, Mapping  # noqa: UP035 (Python 3.8 in old images)
from urllib.parse import parse_qs

from .identity import SESSION_S, TRIES_WITHIN_S, Attempts, Keys, Sessions
from .refused import RefusedError
from .relay import Send, send_whole

PATH = "/login"


class Login:
    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._sessions = Sessions()
        self._attempts = Attempts()

    def knows(self, scope: dict[str, Any], headers: Mapping[str, str]) -> bool:
        """Whether a request comes from a browser that has shown a key."""
        name, cookies = _cookie_name(scope), headers.get("cookie", "").split(";")
        pairs = [cookie.strip().partition("=") for cookie in cookies]
        return any(found == name and self._sessions.is_open(value) for found, _, value in pairs)

    async def take(self, scope: dict[str, Any], headers: Mapping[str, str], body: bytes, send: Send) -> None:
        """Open a session for the key in a form; raises RefusedError for a wrong one, and after too many of them."""
        address = (scope.get("client") or [""])[0]
        if not self._attempts.may_try(address):
            raise RefusedError(429, "too_many_tries", "too many wrong keys: wait a minute", int(TRIES_WITHIN_S))
        if not self._keys.fit(_key_in(headers, body)):
            self._attempts.note_failure(address)
            raise RefusedError(401, "invalid_api_key", "this is no key of this server")
        is_https = "https" in (scope.get("scheme"), headers.get("x-forwarded-proto", "").partition(",")[0].strip())
        cookie = f"{_cookie_name(scope)}={self._sessions.open()}; Path=/; Max-Age={int(SESSION_S)}; HttpOnly"
        cookie += "; SameSite=Lax" + ("; Secure" if is_https else "")
        await send_whole(
            send, 200, b"application/json", b"{}", [(b"cache-control", b"no-store"), (b"set-cookie", cookie.encode())]
        )


def _key_in(headers: Mapping[str, str], body: bytes) -> bytes:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise RefusedError(415, "unsupported_media_type", "send the form of this page")
    try:
        fields = parse_qs(body.decode("utf-8"), max_num_fields=4)
    except ValueError as error:
        raise RefusedError(400, "invalid_request_error", "the form cannot be read") from error
    return fields.get("key", [""])[0].strip().encode("utf-8", "surrogatepass")


def _cookie_name(scope: dict[str, Any]) -> str:
    """With the port: browsers share cookies between all ports of a host."""
    return f"deploytk_session_{(scope.get('server') or ('', 0))[1]}"
