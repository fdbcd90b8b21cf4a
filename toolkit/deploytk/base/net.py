"""Asks a server that nobody vouches for: bounded in time and size, nothing unpacked, no redirect to elsewhere.

Everything that deploytk asks of an app, an engine or a hub's page goes through `ask`; a credential goes with it
only as a `Key`, which is bound to the scheme, host and port that it was given for.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from urllib.parse import urljoin

import httpx

from deploytk.app.deadline import Deadline
from deploytk.base.event_loop import run
from deploytk.base.json import parse_json
from deploytk.base.origin import Origin

LARGEST_ANSWER_BYTES = 2**20
_MOST_REDIRECTS = 3


@dataclass(frozen=True, slots=True)
class Key:
    """A bearer token and the only origin that ever sees it."""

    origin: Origin
    token: str = dataclasses.field(repr=False)

    def __post_init__(self) -> None:
        # Whatever refused it later would say what it refused.
        if not self.token or not all("!" <= character <= "~" for character in self.token):
            raise ValueError("a key has printable ASCII characters alone, and no spaces")

    @classmethod
    def bound_to(cls, url: str, token: str) -> Key:
        """Raises ValueError when `url` is none of a web server, or `token` none that a header can hold."""
        return cls(Origin.of(url), token)

    def headers(self, url: str) -> dict[str, str]:
        """What a request to `url` carries: nothing, when it goes to another scheme, host or port."""
        return {"Authorization": f"Bearer {self.token}"} if Origin.of(url) == self.origin else {}


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    is_whole: bool = True  # False only where the start of an answer was enough
    next_url: str = ""  # of the next page of a list, where the answer names one (Link, rel="next")

    def json(self) -> object:
        """The JSON in the body; raises ValueError for anything else, NaN and numbers without end included."""
        return parse_json(self.body)


def ask(
    url: str,
    within_s: float,
    *,
    body: Mapping[str, object] | None = None,
    method: str = "POST",
    key: Key | None = None,
    largest_bytes: int = LARGEST_ANSWER_BYTES,
    takes_start: bool = False,
    asks_start: bool = False,
    may_leave: bool = False,
) -> Answer:
    """What the server at `url` answers to a GET, or to a POST (or another `method`) of `body` as JSON.

    `within_s` is for everything together, from the name's look-up to the last byte. Raises ConnectionError, which says
    why, when no whole answer of at most `largest_bytes` comes in that time; with `takes_start`, what came until then is
    the answer, and with `asks_start` no more is asked for. Redirects are followed within the origin alone; with
    `may_leave` also to other servers over TLS, as hubs do for large files, and without the key.
    """
    exchange = _Exchange(url, body, method, key, largest_bytes, takes_start or asks_start, asks_start, may_leave)
    return run(exchange.run(within_s))


@dataclass(slots=True)
class _Exchange:
    url: str
    body: Mapping[str, object] | None
    method: str  # of a body
    key: Key | None
    largest_bytes: int
    takes_start: bool
    asks_start: bool
    may_leave: bool
    status: int = 0  # of the answer that is being read
    start: bytearray = dataclasses.field(default_factory=bytearray)  # what came of it

    async def run(self, within_s: float) -> Answer:
        try:
            with Deadline(within_s):
                return await self._answer()
        except asyncio.TimeoutError as error:
            if self.takes_start and self.status:
                return Answer(self.status, bytes(self.start), is_whole=False)
            raise ConnectionError(f"no whole answer within {within_s:g} s") from error
        # ImportError: a SOCKS proxy of the environment needs a package of its own.
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, ImportError) as error:
            raise ConnectionError(_reason(error)) from error

    async def _answer(self) -> Answer:
        url, origin = self.url, Origin.of(self.url)
        # A proxy of the environment does not know this machine's loopback.
        client = httpx.AsyncClient(timeout=None, verify=trusted(), trust_env=not origin.is_loopback)  # noqa: S113
        async with client:
            for _ in range(_MOST_REDIRECTS + 1):
                answer, location = await self._once(client, url)
                if not location:
                    return answer
                url = urljoin(url, location)
                if Origin.of(url) != origin and not self._may_go_to(Origin.of(url)):
                    raise ConnectionError("it sends us to another server")
        raise ConnectionError("it sends us in a circle")

    def _may_go_to(self, origin: Origin) -> bool:
        return self.may_leave and origin.scheme == "https" and not origin.is_loopback

    async def _once(self, client: httpx.AsyncClient, url: str) -> tuple[Answer, str]:
        headers = {"Accept-Encoding": "identity", **(self.key.headers(url) if self.key else {})}
        if self.asks_start:
            headers["Range"] = f"bytes=0-{self.largest_bytes - 1}"
        method = "GET" if self.body is None else self.method
        async with client.stream(method, url, headers=headers, json=self.body) as response:
            location = response.headers.get("location", "") if response.is_redirect else ""
            if location:
                return Answer(response.status_code, b""), location
            if not self.takes_start and response.headers.get("content-encoding", "identity").strip().lower() not in (
                "",
                "identity",
            ):
                raise ConnectionError("its answer is packed, which nobody asked for")
            self.status = response.status_code
            answer = await self._read(response)
            following = response.links.get("next", {}).get("url", "")
            return dataclasses.replace(answer, next_url=urljoin(url, following) if following else ""), ""

    async def _read(self, response: httpx.Response) -> Answer:
        self.start.clear()
        async for piece in response.aiter_raw():
            self.start += piece
            if len(self.start) > self.largest_bytes and self.takes_start:
                return Answer(self.status, bytes(self.start[: self.largest_bytes]), is_whole=False)
            if len(self.start) > self.largest_bytes:
                raise ConnectionError(f"its answer is larger than {self.largest_bytes} bytes")
        return Answer(self.status, bytes(self.start))


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.ConnectError):
        return f"no connection: {describe(error)}"
    if isinstance(error, httpx.RemoteProtocolError):
        return "it does not speak HTTP, or broke off"
    return str(error) or type(error).__name__


def describe(error: BaseException) -> str:
    """Why a request got no answer, for the errors of every HTTP client: httpx, requests and what is built on them."""
    chain = list(_causes(error))
    for kind, words in _KINDS:
        if any(isinstance(one, kind) for one in chain):
            return words
    names = " ".join([*(type(one).__name__ for one in chain), str(error)])
    return next((words for sign, words in _SIGNS if re.search(sign, names)), "the connection broke")


REDIRECTS = "it redirects in a circle"

# The first that fits counts. Errors of clients that need not be installed are told by their names.
_KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (socket.gaierror, "its name cannot be resolved (DNS)"),
    (ssl.SSLCertVerificationError, "its certificate is not trusted"),
    (ssl.SSLError, "it does not speak TLS as expected"),
    (ConnectionRefusedError, "the connection is refused"),
)
_SIGNS = (
    (r"NameResolutionError|Failed to resolve|Name or service not known", "its name cannot be resolved (DNS)"),
    (r"TooManyRedirects|Exceeded \d+ redirects", REDIRECTS),
    (r"ProxyError", "the proxy of the environment does not let it through"),
    (r"ConnectTimeout|ReadTimeout|WriteTimeout|PoolTimeout|TimeoutError", "it does not answer in time"),
    (r"Connection refused", "the connection is refused"),
    (r"ConnectError|NewConnectionError", "no connection"),
    (r"UnsupportedProtocol|InvalidURL|LocalProtocolError", "its address is no web address"),
)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it came from, as far as is known."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        # A group of errors, or requests, which keep the cause among their arguments.
        more = [
            *getattr(one, "exceptions", ()),
            *one.args,
            getattr(one, "reason", None),
            one.__cause__,
            one.__context__,
        ]
        waiting += [cause for cause in more if isinstance(cause, BaseException)]


def trusted() -> ssl.SSLContext:
    """Whom TLS believes: the system, SSL_CERT_FILE, and the list that comes with httpx."""
    return _trusting(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache
def _trusting(*_certificates: str | None) -> ssl.SSLContext:
    """Made once for what the environment says: it takes a while."""
    context = httpx.create_ssl_context()
    context.load_default_certs()
    return context
