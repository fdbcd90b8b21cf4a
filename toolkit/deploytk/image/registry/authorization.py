"""The login of a registry and its tokens: who gets which.

The registry gets the token, or the login where it asks for Basic. The token server that its challenge names gets the
login, as Docker does it, when nobody on the way can read it: over https, or on this machine for a registry that is
there as well. Nobody else gets anything: not the storage that blobs lie in, nor whoever a redirect names.
"""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx

from deploytk.base.errors import ImageError
from deploytk.base.origin import Origin, origin_of
from deploytk.image.reference import Reference
from deploytk.image.registry.logins import Login
from deploytk.image.registry.refusals import refusal, refused_login

_RENEW_EARLY_S = 10.0

Insist = Callable[[str, Callable[[], httpx.Response]], httpx.Response]
"""Asks the server of that name until it answers."""


class Authorization:
    """What requests to one repository carry; may be used by several threads."""

    def __init__(
        self, reference: Reference, login: Login | None, client: httpx.Client, insist: Insist, mounts_from: str
    ) -> None:
        self._reference = reference
        self._origin = Origin.of(reference.url)
        self._login = login
        self._client = client
        self._insist = insist
        self._mounts_from = mounts_from  # another repository, whose blobs it will want to mount
        self._lock = threading.Lock()
        self._value: str | None = None
        self._valid_until = 0.0
        self._challenge: httpx.Response | None = None

    def headers(self, url: str) -> dict[str, str]:
        """For a request to `url`: nothing when that is another scheme, host or port than the registry's."""
        if origin_of(url) != self._origin:
            return {}
        with self._lock:
            if self._challenge is not None and time.monotonic() > self._valid_until:
                self._fetch_token(self._challenge)
            return {"Authorization": self._value} if self._value else {}

    def renew(self, response: httpx.Response) -> None:
        """Log in as the 401 `response` asks; raises ImageError when that is refused, or asked by somebody else."""
        if origin_of(str(response.request.url)) != self._origin:
            raise ImageError(
                f"{response.request.url.host}, where {self._reference.host} sends us, asks for a login",
                hint="logins go to the registry alone: tell its administrator",
            )
        with self._lock:
            used = response.request.headers.get("Authorization")
            if used != self._value and self._value:
                return  # another thread has just done it
            challenges = response.headers.get("WWW-Authenticate", "")
            if re.search(r"(?i)\bbearer\b", challenges):
                self._fetch_token(response)
            elif self._login and not used and not self._login.is_identity_token:
                pair = f"{self._login.user}:{self._login.secret}".encode()
                self._value = f"Basic {base64.b64encode(pair).decode()}"
                self._valid_until = float("inf")
            else:
                raise refused_login(self._reference, self._login)

    def _fetch_token(self, challenge: httpx.Response) -> None:
        """A token as the challenge describes it (https://distribution.github.io/distribution/spec/auth/token/)."""
        asked = dict(re.findall(r'(\w+)="([^"]*)"', challenge.headers["WWW-Authenticate"]))
        realm = asked.get("realm", "")
        server = self._token_server(realm)
        scopes = [asked.get("scope") or f"repository:{self._reference.repository}:pull,push"]
        scopes += [f"repository:{self._mounts_from}:pull"] if self._mounts_from else []
        query = {"service": asked["service"]} if asked.get("service") else {}
        if self._login and self._login.is_identity_token:
            form = query | {"grant_type": "refresh_token", "refresh_token": self._login.secret}
            form |= {"client_id": "deploytk", "scope": " ".join(scopes)}
            ask = partial(self._client.post, realm, data=form)
        else:
            auth = httpx.BasicAuth(self._login.user, self._login.secret) if self._login else httpx.Auth()
            pairs = [*query.items(), *(("scope", scope) for scope in scopes)]
            ask = partial(self._client.get, realm, params=pairs, auth=auth)
        token = _token(self._insist(server.netloc, ask))
        if not token:
            raise refused_login(self._reference, self._login)
        # The same token again would be refused again.
        if challenge.request.headers.get("Authorization") == f"Bearer {token[0]}":
            raise refusal(self._reference, self._login, challenge)
        self._value = f"Bearer {token[0]}"
        self._valid_until = time.monotonic() + max(token[1] - _RENEW_EARLY_S, 1.0)
        self._challenge = challenge

    def _token_server(self, realm: str) -> Origin:
        origin, host = origin_of(realm), self._reference.host
        if origin and (origin.scheme == "https" or (origin.is_loopback and self._origin.is_loopback)):
            return origin
        if origin:
            hint = "its administrator must set it up with https"
            raise ImageError(f"{host} wants logins to be sent to {origin} without encryption", hint=hint)
        raise ImageError(f"{host} names no address where to log in", hint="check that it is a registry")


def _token(answer: httpx.Response) -> tuple[str, float] | None:
    """The token and how many seconds it is good for; None when the server gives none."""
    if answer.status_code != 200:
        return None
    try:
        content: dict[str, Any] = answer.json()
        token, lifetime_s = str(content.get("token") or content["access_token"]), float(content.get("expires_in") or 60)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None
    return (token, lifetime_s) if re.fullmatch(r"[!-~]+", token) else None  # what a header can hold
