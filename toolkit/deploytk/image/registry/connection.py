"""Requests to a repository: signed, tried again when that can help, and refusals said in words."""

from __future__ import annotations

import base64
import contextlib
import random
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

import httpx

from deploytk import __version__
from deploytk.base.errors import ImageError, TryAgainError
from deploytk.image.reference import Reference
from deploytk.image.registry.logins import PASSWORD_VARIABLE, USER_VARIABLE, Login

MOMENTARY = (408, 425, 429, 500, 502, 503, 504)

# A registry that moves a large blob to its place may be silent for minutes.
_TIMEOUT = httpx.Timeout(connect=10, read=300, write=60, pool=None)
_RENEW_EARLY_S = 10.0
_LONGEST_WAIT_S = 120.0  # that a registry may ask for

Body = bytes | Iterable[bytes] | None


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long something is tried again."""

    attempts: int = 6
    first_s: float = 0.5
    longest_s: float = 30.0

    def pause_s(self, failures: int, response: httpx.Response | None) -> float:
        """How long to wait after so many failures: what the registry asks for, else ever longer, with jitter."""
        with contextlib.suppress(KeyError, ValueError):
            if response is not None:
                return min(float(response.headers["Retry-After"]), _LONGEST_WAIT_S)
        longest_s = min(self.first_s * 2.0 ** (failures - 1), self.longest_s)
        return random.uniform(0.5, 1.0) * longest_s  # noqa: S311


class Connection:
    """One repository of a registry; may be used by several threads."""

    def __init__(
        self,
        reference: Reference,
        login: Login | None,
        patience: Patience | None = None,
        *,
        mounts_from: str = "",  # another repository, whose blobs it will want to mount
    ) -> None:
        self.reference = reference
        self.patience = patience or Patience()
        self._mounts_from = mounts_from
        self._login = login
        # A proxy of the environment does not know this machine's loopback.
        self._client = httpx.Client(
            timeout=_TIMEOUT,
            trust_env=not reference.is_loopback,
            headers={"User-Agent": f"deploytk/{__version__}"},
            limits=httpx.Limits(max_connections=8),
        )
        self._lock = threading.Lock()
        self._authorization: str | None = None
        self._valid_until = 0.0
        self._challenge: httpx.Response | None = None

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    @property
    def root(self) -> str:
        return f"{self.reference.url}/v2/{self.reference.repository}"

    def ask(
        self, method: str, url: str, expect: Collection[int], *, headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> httpx.Response:  # fmt: skip
        """The answer to a request that does no harm when it is sent twice; raises ImageError for any other status.

        A registry that does not answer is waited for; after that TryAgainError is raised.
        """
        renewed = False
        while True:
            response = self._insist(self.reference.host, partial(self.attempt, method, url, headers, content))
            if response.status_code in expect:
                return response
            if response.status_code != 401 or renewed:
                raise self.refusal(response)
            self.renew(response)
            renewed = True

    def attempt(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, content: Body = None
    ) -> httpx.Response:
        """One attempt, its answer whatever it says; raises httpx.TransportError."""
        request = self._client.build_request(method, url, headers=self._signed(url, headers), content=content)
        return self._client.send(request, follow_redirects=False)

    def stream(self, url: str, headers: Mapping[str, str]) -> contextlib.AbstractContextManager[httpx.Response]:
        """The answer to a GET, its body still to be read."""
        return self._client.stream("GET", url, headers=self._signed(url, headers), follow_redirects=False)

    def wait(self, failures: int, problem: str, response: httpx.Response | None = None, host: str = "") -> None:
        """Pause before the next attempt; raises TryAgainError after too many."""
        if failures >= self.patience.attempts:
            hint = "check its name and the network, then run again: what has arrived is not sent again"
            times = f", {failures} times" if failures > 1 else ""
            raise TryAgainError(f"{host or self.reference.host} cannot be used: {problem}{times}", hint=hint)
        time.sleep(self.patience.pause_s(failures, response))

    def follow(self, response: httpx.Response) -> str:
        """The absolute address in Location; never one to which a login would travel in the clear."""
        address: str = urljoin(str(response.request.url), response.headers.get("Location", ""))
        own, parts = urlsplit(self.reference.url), urlsplit(address)
        if parts.netloc == own.netloc:  # behind a proxy, registries often forget that they speak https
            return str(urlunsplit(parts._replace(scheme=own.scheme)))
        if parts.scheme != "https" and not self.reference.is_loopback:
            hint = "its administrator must set its external address to https"
            raise ImageError(f"{self.reference.host} sends uploads to {parts.netloc} without encryption", hint=hint)
        return address

    def renew(self, response: httpx.Response) -> None:
        """Log in as the 401 `response` asks; raises ImageError when that is refused."""
        with self._lock:
            used = response.request.headers.get("Authorization")
            if used != self._authorization and self._authorization:
                return  # another thread has just done it
            challenges = response.headers.get("WWW-Authenticate", "")
            if re.search(r"(?i)\bbearer\b", challenges):
                self._fetch_token(response)
            elif self._login and not used:
                pair = f"{self._login.user}:{self._login.secret}".encode()
                self._authorization = f"Basic {base64.b64encode(pair).decode()}"
                self._valid_until = float("inf")
            else:
                raise self._refused_login()

    def refusal(self, response: httpx.Response) -> ImageError:
        """What a final answer means for the user."""
        host, repository, status = self.reference.host, self.reference.repository, response.status_code
        said = _reason(response)
        # A token that is good, but not for this: https://www.rfc-editor.org/rfc/rfc6750#section-3.1
        lacks_right = "insufficient_scope" in response.headers.get("WWW-Authenticate", "")
        if status == 401 and not (self._login and lacks_right):
            return self._refused_login()
        if status in (401, 403):
            hint = f"ask for the right to push to {repository}, or log in as somebody who has it: docker login {host}"
            return ImageError(f"{host} does not allow this for {repository}{said}", hint=hint)
        if status == 404:
            return ImageError(f"{host} has no {repository}{said}", hint="create the repository, or check its name")
        if status == 413:
            return ImageError(f"{host} takes no blobs of this size{said}", hint="raise the limit of the registry")
        return ImageError(f"{host} answers {status}{said}", hint="check that it is a registry and takes pushes")

    def _insist(self, host: str, attempt: Callable[[], httpx.Response]) -> httpx.Response:
        """The first answer that another attempt would not change."""
        failures = 0
        while True:
            response: httpx.Response | None = None
            try:
                response = attempt()
            except httpx.TransportError as error:
                problem = describe(error)
            else:
                if response.status_code not in MOMENTARY:
                    return response
                problem = f"it answers {response.status_code}"
            failures += 1
            self.wait(failures, problem, response, host)

    def _signed(self, url: str, headers: Mapping[str, str] | None) -> dict[str, str]:
        signed = dict(headers or {})
        if urlsplit(url).netloc == urlsplit(self.reference.url).netloc:
            with self._lock:
                if self._challenge is not None and time.monotonic() > self._valid_until:
                    self._fetch_token(self._challenge)
                if self._authorization:
                    signed["Authorization"] = self._authorization
        return signed

    def _fetch_token(self, challenge: httpx.Response) -> None:
        """A token as the challenge describes it (https://distribution.github.io/distribution/spec/auth/token/)."""
        asked = dict(re.findall(r'(\w+)="([^"]*)"', challenge.headers["WWW-Authenticate"]))
        realm = asked.get("realm", "")
        parts = urlsplit(realm)
        if parts.scheme != "https" and not Reference(parts.netloc, "x", "x").is_loopback:
            hint = "its administrator must set it up with https"
            raise ImageError(f"{self.reference.host} wants logins to be sent without encryption", hint=hint)
        scopes = [asked.get("scope") or f"repository:{self.reference.repository}:pull,push"]
        scopes += [f"repository:{self._mounts_from}:pull"] if self._mounts_from else []
        query = {"service": asked["service"]} if asked.get("service") else {}
        if self._login and self._login.is_identity_token:
            form = query | {"grant_type": "refresh_token", "refresh_token": self._login.secret}
            form |= {"client_id": "deploytk", "scope": " ".join(scopes)}
            ask = partial(self._client.post, realm, data=form)
        else:
            auth = (self._login.user, self._login.secret) if self._login else None
            pairs = [*query.items(), *(("scope", scope) for scope in scopes)]
            ask = partial(self._client.get, realm, params=pairs, auth=auth)
        token = _token(self._insist(parts.netloc, ask))
        if not token:
            raise self._refused_login()
        # The same token again would be refused again.
        if challenge.request.headers.get("Authorization") == f"Bearer {token[0]}":
            raise self.refusal(challenge)
        self._authorization = f"Bearer {token[0]}"
        self._valid_until = time.monotonic() + max(token[1] - _RENEW_EARLY_S, 1.0)
        self._challenge = challenge

    def _refused_login(self) -> ImageError:
        host = self.reference.host
        variables = f"{USER_VARIABLE} and {PASSWORD_VARIABLE}"
        if self._login:
            hint = f"run: docker login {host}   or correct {variables}, which come first"
            return ImageError(f"{host} does not accept the login", hint=hint)
        return ImageError(f"{host} asks for a login", hint=f"run: docker login {host}   or set {variables}")


def describe(error: httpx.TransportError) -> str:
    """A broken connection in words."""
    kinds = {httpx.ConnectError: "no connection", httpx.ConnectTimeout: "no answer", httpx.ReadTimeout: "no answer"}
    return next((words for kind, words in kinds.items() if isinstance(error, kind)), "the connection broke")


def _token(answer: httpx.Response) -> tuple[str, float] | None:
    """The token and how many seconds it is good for; None when the server gives none."""
    if answer.status_code != 200:
        return None
    try:
        content: dict[str, Any] = answer.json()
        return str(content.get("token") or content["access_token"]), float(content.get("expires_in") or 60)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _reason(response: httpx.Response) -> str:
    """What the registry says itself, in brackets."""
    try:
        message = response.json()["errors"][0]["message"]
    except (ValueError, LookupError, TypeError, httpx.ResponseNotRead):
        return ""
    words = "".join(letter for letter in str(message)[:200] if letter.isprintable())
    return f" ({words})" if words else ""
