"""What a registry really has: the manifest byte for byte, every blob by digest and size, and samples of the bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx

from deploytk.base.digits import whole_number
from deploytk.base.errors import ImageError
from deploytk.base.net import describe
from deploytk.base.readback import Fetch, NoRangesError, Remembered, is_same
from deploytk.base.retry import BUSY
from deploytk.image.media_types import MANIFEST_TYPE
from deploytk.image.registry.connection import Connection, asked_s
from deploytk.image.value import ImagePlan, Layer

AT_ONCE = 3
_ELSEWHERE = (301, 302, 303, 307, 308)
_HINT = "run again; if it happens again, the registry loses or changes data"
_MOST_RENEWALS = 3  # of the login, for one sample
_MOST_SKIPPED_BYTES = 8 * 2**20  # that are read to get to a sample, from a server which knows no ranges


def is_there(connection: Connection, blob: Layer) -> bool:
    """Whether the repository has a blob, as it says itself; raises ImageError when it has it with another size."""
    answer = connection.ask("HEAD", f"{connection.root}/blobs/{blob.digest}", (200, 404, *_ELSEWHERE))
    if answer.status_code == 404:
        return False
    size = whole_number(answer.headers.get("Content-Length"))
    # 0 is what a proxy says that has no body at hand.
    if answer.status_code == 200 and size not in (None, 0, blob.size):
        raise ImageError(
            f"{connection.reference.host} has {blob.digest[:19]} with {size} bytes instead of {blob.size}", hint=_HINT
        )
    return True


def missing_blobs(connection: Connection, blobs: Iterable[Layer]) -> tuple[Layer, ...]:
    """Those that the repository has not, as it says itself."""
    blobs = tuple(blobs)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        there = list(threads.map(partial(is_there, connection), blobs))
    return tuple(blob for blob, is_known in zip(blobs, there, strict=True) if not is_known)


def shows(connection: Connection, name: str, plan: ImagePlan) -> bool:
    """Whether the manifest under a tag or digest is this image's, byte for byte."""
    url, accept = f"{connection.root}/manifests/{name}", {"Accept": MANIFEST_TYPE}
    answer = connection.ask("GET", url, (200, 404), headers=accept)
    return answer.status_code == 200 and answer.content == plan.manifest


def verify_image(connection: Connection, plan: ImagePlan, blobs: tuple[Layer, ...], sent: tuple[Layer, ...]) -> None:
    """Raises ImageError unless the registry shows the image under its tag and its digest, with what was sent of it."""
    host = connection.reference.host
    lost = missing_blobs(connection, blobs)
    if lost:
        raise ImageError(f"{host} took {len(lost)} blobs but does not show them", hint=_HINT)
    for name in (plan.digest, connection.reference.tag):
        if not shows(connection, name, plan):
            raise ImageError(f"{host} took the manifest but does not show it under {name}", hint=_HINT)
    remembered = Remembered(f"{connection.reference.url}/{connection.reference.repository}")
    known, ours = remembered.load(), {blob.digest for blob in sent}
    # Layers of a base that the registry had before are not here to compare them with.
    doubtful = [blob for blob in blobs if blob.digest not in known and (blob.digest in ours or blob.kind != "base")]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for blob, is_right in zip(doubtful, threads.map(partial(_is_right, connection), doubtful), strict=True):
            if not is_right:
                raise ImageError(f"{host} has other bytes under {blob.digest[:19]} than were sent", hint=_HINT)
    remembered.add(blob.digest for blob in doubtful)


def _is_right(connection: Connection, blob: Layer) -> bool:
    url = f"{connection.root}/blobs/{blob.digest}"

    def there(start: int, end: int) -> bytes:
        wanted = {"Range": f"bytes={start}-{end - 1}"}
        return _insist(connection, lambda: _get(connection, url, wanted, partial(_span, start=start, end=end)))

    try:
        return is_same(blob.size, _local(blob), there)
    except NoRangesError:  # what is handed out as a whole is read as a whole
        digest = _insist(connection, lambda: _get(connection, url, {}, partial(_digest, size=blob.size)))
        return digest.decode() == blob.digest


def _local(blob: Layer) -> Fetch:
    def fetch(start: int, end: int) -> bytes:
        return b"".join(_limited(blob.read(start), end - start))

    return fetch


def _span(response: httpx.Response, start: int, end: int) -> bytes:
    skipped = start if response.status_code == 200 else 0
    if skipped > _MOST_SKIPPED_BYTES:
        raise NoRangesError
    return b"".join(_limited(response.iter_raw(), skipped + end - start))[skipped:]


def _digest(response: httpx.Response, size: int) -> bytes:
    digest = hashlib.sha256()
    for chunk in _limited(response.iter_raw(), size + 1):
        digest.update(chunk)
    return f"sha256:{digest.hexdigest()}".encode()


Use = Callable[[httpx.Response], bytes]


def _get(connection: Connection, url: str, wanted: dict[str, str], use: Use) -> bytes | httpx.Response:
    """What `use` makes of a blob, wherever it lies; or the answer of who is busy or wants a login."""
    with connection.stream(url, wanted) as response:
        if response.status_code not in _ELSEWHERE:
            return _used(connection, response, use)
    with connection.stream(connection.follow(response), wanted) as response:
        return _used(connection, response, use)


def _used(connection: Connection, response: httpx.Response, use: Use) -> bytes | httpx.Response:
    if response.status_code in (401, *BUSY):
        return response
    if response.status_code not in (200, 206):
        raise connection.refusal(response)
    return use(response)


def _insist(connection: Connection, get: Callable[[], bytes | httpx.Response]) -> bytes:
    retry, renewals = connection.retry(), 0
    while True:
        try:
            found = get()
        except httpx.TransportError as error:  # noqa: PERF203 (it waits anyway)
            retry.wait(f"does not answer: {describe(error)}")
        else:
            if isinstance(found, bytes):
                return found
            if found.status_code == 401 and renewals < _MOST_RENEWALS:
                renewals += 1
                connection.renew(found)
            elif found.status_code == 401:
                raise connection.refusal(found)
            else:
                retry.wait(f"answers {found.status_code}", asked_s(found))


def _limited(chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
    """So many bytes at most."""
    for chunk in chunks:
        yield chunk[:size]
        size -= len(chunk)
        if size <= 0:
            return
