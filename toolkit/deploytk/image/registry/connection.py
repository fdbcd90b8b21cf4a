"""Requests to a repository: signed, tried again when that can help, bounded, and never in the clear."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from types import TracebackType
from urllib.parse import urljoin, urlsplit, urlunsplit

import httpx

from deploytk import __version__
from deploytk.base.errors import ImageError
from deploytk.base.net import describe, trusted
from deploytk.base.origin import Origin, origin_of
from deploytk.base.retry import BUSY, Retry, RetryPolicy, retry_after_s
from deploytk.image.reference import Reference
from deploytk.image.registry.authorization import Authorization
from deploytk.image.registry.logins import Login
from deploytk.image.registry.refusals import refusal

# A registry that moves a large blob to its place may be silent for minutes.
_TIMEOUT = httpx.Timeout(connect=10, read=300, write=60, pool=None)
_LARGEST_ANSWER_BYTES = 16 * 2**20  # but for blobs, which are streamed
_POLICY = RetryPolicy(attempts=6, total_s=180.0, first_s=0.5, longest_s=30.0)

Body = bytes | Iterable[bytes] | None
Note = Callable[[str], None]


class Connection:
    """One repository of a registry; may be used by several threads."""

    def __init__(
        self,
        reference: Reference,
        login: Login | None,
        policy: RetryPolicy | None = None,
        *,
        mounts_from: str = "",  # another repository, whose blobs it will want to mount
        note: Note | None = None,  # told when it has to wait
    ) -> None:
        self.reference = reference
        self.policy = policy or _POLICY
        self._origin = Origin.of(reference.url)
        self._login = login
        self._note = note
        # A proxy of the environment does not know this machine's loopback.
        self._client = httpx.Client(
            timeout=_TIMEOUT,
            verify=trusted(),
            trust_env=not reference.is_loopback,
            follow_redirects=False,
            headers={"User-Agent": f"deploytk/{__version__}", "Accept-Encoding": "identity"},
            limits=httpx.Limits(max_connections=8),
        )
        self._authorization = Authorization(reference, login, self._client, self._insist, mounts_from)

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
        signed = {**(headers or {}), **self._authorization.headers(url)}
        with self._client.stream(method, url, headers=signed, content=content) as response:
            return self._read(response)

    @contextlib.contextmanager
    def stream(self, url: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """The answer to a GET, its body still to be read."""
        signed = {**headers, **self._authorization.headers(url)}
        with self._client.stream("GET", url, headers=signed) as response:
            yield response

    def retry(self, host: str = "") -> Retry:
        """For one request, its failures and the pauses between them."""
        return Retry(self.policy, host or self.reference.host, self._note)

    def follow(self, response: httpx.Response) -> str:
        """The absolute address in Location; never one to which anything would travel in the clear."""
        host = self.reference.host
        try:
            address: str = urljoin(str(response.request.url), response.headers.get("Location", ""))
            parts = urlsplit(address)
        except ValueError:
            address, parts = "", urlsplit("")
        # Behind a proxy, registries often forget that they speak https.
        if parts.netloc == urlsplit(self.reference.url).netloc and parts.scheme in ("http", "https"):
            return str(urlunsplit(parts._replace(scheme=self._origin.scheme)))
        origin = origin_of(address)
        if not origin:
            raise ImageError(f"{host} sends us to no web address", hint="check that it is a registry")
        if origin.scheme != "https" and not (origin.is_loopback and self._origin.is_loopback):
            hint = "its administrator must set its external address to https"
            raise ImageError(f"{host} sends uploads to {origin.netloc} without encryption", hint=hint)
        return address

    def renew(self, response: httpx.Response) -> None:
        """Log in as the 401 `response` asks; raises ImageError when that is refused."""
        self._authorization.renew(response)

    def refusal(self, response: httpx.Response) -> ImageError:
        """What a final answer means for the user."""
        return refusal(self.reference, self._login, response)

    def _insist(self, host: str, attempt: Callable[[], httpx.Response]) -> httpx.Response:
        """The first answer that another attempt would not change."""
        retry = self.retry(host)
        while True:
            try:
                response = attempt()
            except httpx.TransportError as error:  # noqa: PERF203 (it waits anyway)
                retry.wait(f"does not answer: {describe(error)}")
            else:
                if response.status_code not in BUSY:
                    return response
                retry.wait(f"answers {response.status_code}", asked_s(response))

    def _read(self, response: httpx.Response) -> httpx.Response:
        """The same answer with its body, which is neither endless nor packed."""
        content = bytearray()
        for piece in response.iter_raw():
            content += piece
            if len(content) > _LARGEST_ANSWER_BYTES:
                hint = "check that it is a registry"
                raise ImageError(f"{self.reference.host} answers more than 16 MiB where that cannot be", hint=hint)
        kept = [(name, value) for name, value in response.headers.items() if name.lower() not in _OF_THE_BODY]
        whole = httpx.Response(response.status_code, headers=kept, content=bytes(content), request=response.request)
        if "Content-Length" in response.headers:  # of a HEAD as well, which has no body
            whole.headers["Content-Length"] = response.headers["Content-Length"]
        return whole


_OF_THE_BODY = ("content-encoding", "transfer-encoding", "content-length")


def asked_s(response: httpx.Response | None) -> float | None:
    """How long the registry asks to wait."""
    return retry_after_s(response.headers.get("Retry-After")) if response is not None else None
