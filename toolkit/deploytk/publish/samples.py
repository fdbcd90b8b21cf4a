"""Reads samples of a release back from a hub, as a stranger to its word would: from where it really hands files out."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urljoin

import httpx

from deploytk.base.bound import keep_at_home
from deploytk.base.errors import ReleaseError
from deploytk.base.net import describe, trusted
from deploytk.base.origin import Origin, origin_of
from deploytk.base.readback import SPANS, WHOLE_BYTES, NoRangesError, Remembered, file_bytes, is_same
from deploytk.base.retry import BUSY, Retry, retry_after_s

_AT_ONCE = 8
_MOST_READS = 256  # hubs count requests, and each takes their time
_MOST_REDIRECTS = 5
_TIMEOUT_S = 60.0
_MOST_SKIPPED_BYTES = 8 * 2**20  # that are read to get to a sample, from a server which knows no ranges

Result = TypeVar("Result", bytes, str)


@dataclass(frozen=True, slots=True)
class Sent:
    """A file that a hub should have, and where it hands it out."""

    path: str
    source: Path
    size: int
    sha256: str
    url: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)  # for the origin of `url` alone
    anew: Callable[[], Sent] | None = field(default=None, repr=False)  # asks where it is now, if addresses run out


class _NotHandedOutError(ReleaseError):
    """Whatever is said to be at an address, is not: another one may be good."""


class Samples:
    """Reads from one hub; a context."""

    def __init__(self, home: Origin, retry: Callable[[], Retry]) -> None:
        self._home = home
        self._retry = retry
        self._at: dict[str, str] = {}  # address of a file -> where it was sent on to: hubs count who asks them for that

    def check(self, place: str, files: Collection[Sent]) -> None:
        """Raises ReleaseError unless samples of the files are what was sent; read once per place and content.

        Of thousands of small files some are read, others each time; of large ones fewer samples where they are many.
        """
        remembered = Remembered(place)
        known = remembered.load()
        doubtful, spans = _chosen([file for file in files if file.sha256 not in known and file.size])
        with self._client() as client, ThreadPoolExecutor(_AT_ONCE) as threads:
            is_right = partial(self._is_right, client, spans)
            for file, is_it in zip(doubtful, threads.map(is_right, doubtful), strict=True):
                if not is_it:
                    raise ReleaseError(
                        f"{self._home.netloc} hands out {file.path} with other bytes than were sent",
                        hint="run again; if it stays so, the hub loses or changes data: tell its administrator",
                    )
        remembered.add(file.sha256 for file in doubtful)

    @contextmanager
    def _client(self) -> Iterator[httpx.Client]:
        # A proxy of the environment does not know this machine's loopback.
        trust = not self._home.is_loopback
        headers = {"Accept-Encoding": "identity"}
        with httpx.Client(
            timeout=_TIMEOUT_S, verify=trusted(), trust_env=trust, follow_redirects=False, headers=headers
        ) as client:
            yield client

    def _is_right(self, client: httpx.Client, spans: int, file: Sent) -> bool:
        try:
            return self._is_there(client, spans, file)
        except _NotHandedOutError:
            if file.anew is None:
                raise
            return self._is_there(client, spans, file.anew())

    def _is_there(self, client: httpx.Client, spans: int, file: Sent) -> bool:
        try:
            return is_same(file.size, file_bytes(file.source), partial(self._fetch, client, file), spans)
        except NoRangesError:
            return self._insist(lambda: self._digest(client, file)) == file.sha256

    def _fetch(self, client: httpx.Client, file: Sent, start: int, end: int) -> bytes:
        return self._insist(lambda: self._span(client, file, start, end))

    def _insist(self, get: Callable[[], Result | httpx.Response]) -> Result:
        retry = self._retry()
        while True:
            try:
                found = get()
            except httpx.TransportError as error:  # noqa: PERF203 (it waits anyway)
                retry.wait(f"does not answer: {describe(error)}")
            else:
                if not isinstance(found, httpx.Response):
                    return found
                retry.wait(f"answers {found.status_code}", retry_after_s(found.headers.get("Retry-After")))

    def _span(self, client: httpx.Client, file: Sent, start: int, end: int) -> bytes | httpx.Response:
        """Those bytes, or the answer of a hub that is busy."""
        with self._opened(client, file, {"Range": f"bytes={start}-{end - 1}"}) as response:
            if response.status_code in BUSY:
                return response
            skipped = start if response.status_code == 200 else 0
            if skipped > _MOST_SKIPPED_BYTES:
                raise NoRangesError
            return b"".join(_limited(response, skipped + end - start))[skipped:]

    def _digest(self, client: httpx.Client, file: Sent) -> str | httpx.Response:
        """The SHA-256 of the whole file, or the answer of a hub that is busy."""
        digest = hashlib.sha256()
        with self._opened(client, file, {}) as response:
            if response.status_code in BUSY:
                return response
            for chunk in _limited(response, file.size + 1):
                digest.update(chunk)
        return digest.hexdigest()

    @contextmanager
    def _opened(self, client: httpx.Client, file: Sent, wanted: dict[str, str]) -> Iterator[httpx.Response]:
        remembered, home = self._at.pop(file.url, None), Origin.of(file.url)
        url = remembered or file.url
        for _ in range(_MOST_REDIRECTS):
            origin = origin_of(url)
            headers = {**(file.headers if origin == home else {}), **wanted}
            keep_at_home(url, headers, self._home, () if origin != home else (home,))
            with client.stream("GET", url, headers=headers) as response:
                if response.is_redirect:
                    url = _joined(url, response.headers["Location"])
                    continue
                if response.status_code in (200, 206):
                    self._at[file.url] = url
                elif url == remembered:  # such addresses run out
                    url, remembered = file.url, None
                    continue
                elif response.status_code not in BUSY:
                    raise _NotHandedOutError(
                        f"{self._home.netloc} says that it has {file.path}, and answers {response.status_code} for it",
                        hint="run again; if it stays so, the hub loses data: tell its administrator",
                    )
                yield response
                return
        raise ReleaseError(f"{self._home.netloc} redirects {file.path} in a circle", hint="tell its administrator")


def _chosen(files: Sequence[Sent]) -> tuple[list[Sent], int]:
    """The files to look at, and how many samples of each: all large ones, and at least two of each."""
    large = [file for file in files if file.size > WHOLE_BYTES]
    small = [file for file in files if file.size <= WHOLE_BYTES]
    spans = _MOST_READS // max(1, len(large))
    return large + random.sample(small, min(len(small), _MOST_READS)), min(SPANS, max(2, spans))


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        return ""


def _limited(response: httpx.Response, size: int) -> Iterator[bytes]:
    """So much of the body at most."""
    for chunk in response.iter_raw():
        yield chunk[:size]
        size -= len(chunk)
        if size <= 0:
            return
