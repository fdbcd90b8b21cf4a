"""The page on which a browser shows a key, once, and gets a session for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping  # noqa: UP035 (Python 3.8 in old images)
from urllib.parse import parse_qs

from .identity import SESSION_S, TRIES_WITHIN_S, Attempts, Keys, Sessions
from .relay import RefusedError, Send, send_whole

PATH = "/login"
WRONG = "This is no key of this server. 密钥不正确。"
TOO_OFTEN = "Too many tries: wait a minute. 尝试次数过多,请稍候。"
# The page needs nothing from anywhere, and no page of another site may lay itself over it.
HEADERS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"),
]


class Login:
    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._sessions = Sessions()
        self._attempts = Attempts()
        self._html = (Path(__file__).parent / "data" / "login.html").read_text(encoding="utf-8")

    def knows(self, scope: dict[str, Any], headers: Mapping[str, str]) -> bool:
        """Whether a request comes from a browser that has shown a key."""
        name, cookies = _cookie_name(scope), headers.get("cookie", "").split(";")
        pairs = [cookie.strip().partition("=") for cookie in cookies]
        return any(found == name and self._sessions.is_open(value) for found, _, value in pairs)

    async def show(self, send: Send, status: int = 401, trouble: str = "") -> None:
        html = self._html.replace("<!--trouble-->", trouble).encode()
        more = [(b"retry-after", str(int(TRIES_WITHIN_S)).encode())] if status == 429 else []
        await send_whole(send, status, b"text/html; charset=utf-8", html, [*HEADERS, *more])

    async def take(self, scope: dict[str, Any], headers: Mapping[str, str], body: bytes, send: Send) -> None:
        """Open a session for the key in a form, or show the form again."""
        address = (scope.get("client") or [""])[0]
        if not self._attempts.may_try(address):
            await self.show(send, 429, TOO_OFTEN)
        elif not self._keys.fit(_key_in(headers, body)):
            self._attempts.note_failure(address)
            await self.show(send, 401, WRONG)
        else:
            is_https = "https" in (scope.get("scheme"), headers.get("x-forwarded-proto", "").partition(",")[0].strip())
            cookie = f"{_cookie_name(scope)}={self._sessions.open()}; Path=/; Max-Age={int(SESSION_S)}; HttpOnly"
            cookie += "; SameSite=Lax" + ("; Secure" if is_https else "")
            # Relative: a proxy may have put the app below a path of its own.
            await send_whole(
                send, 303, b"text/plain", b"", [(b"location", b"./"), (b"set-cookie", cookie.encode()), *HEADERS]
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
