"""One blob into a repository, in chunks that another run can continue."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx

from deploytk.base.digits import whole_number
from deploytk.base.errors import ImageError
from deploytk.base.net import describe
from deploytk.base.progress import Advance
from deploytk.base.retry import Retry
from deploytk.image.registry.connection import Connection, asked_s
from deploytk.image.registry.sessions import UploadSession
from deploytk.image.registry.verify import is_there
from deploytk.image.value import Layer, Read

CHUNK_BYTES = 64 * 2**20

# Registries that refuse chunks, take only tiny ones, or end the upload after the first: they get a blob in one
# request, and so does one that turns out to. Source:
# https://github.com/kitops-ml/kitops/blob/main/pkg/lib/repo/remote/upload.go
_ONE_REQUEST = re.compile(
    r"ghcr\.io|(?:[a-z0-9-]+\.)?gcr\.io|[a-z0-9-]+\.pkg\.dev|public\.ecr\.aws"
    r"|\d+\.dkr\.ecr(?:-fips)?\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?"
)
_REFUSES_CHUNKS = (201, 405, 411, 413, 416, 501)  # 201: it takes the chunk for all of the blob
_TAKEN = (202, 204)  # a chunk
_MOST_RENEWALS = 6
_WORTH_ASKING = (400, 404, 408, 425, 429)  # the upload may be at another place, or gone, or the registry busy


@dataclass(frozen=True, slots=True)
class Sent:
    sent_bytes: int  # over the network, those that had to be sent twice included
    in_chunks: bool = True  # so that another run can go on inside a blob


def takes_chunks(host: str) -> bool:
    return not _ONE_REQUEST.fullmatch(host)


def push_blob(connection: Connection, blob: Layer, advance: Advance, is_over: Callable[[], bool]) -> Sent:
    """Bring a blob into the repository unless it is there.

    Raises ImageError when the registry does not take it, TryAgainError when it does not answer any more. When `is_over`
    becomes true, InterruptedError is raised; a chunk under way is first sent to its end, so that another run can go on
    after it.
    """
    upload = _Upload(connection, blob, advance, is_over)
    with upload.session.held():
        if is_there(connection, blob):
            advance(blob.size)
            upload.session.forget()
            return Sent(0)
        upload.run()
        upload.session.forget()
        return Sent(upload.sent_bytes, upload.in_chunks)


def mount_blob(connection: Connection, blob: Layer, repository: str) -> bool:
    """Have the registry take a blob over from another of its repositories; false when it does not."""
    query = f"?mount={blob.digest}&from={repository}"
    try:
        response = connection.ask("POST", f"{connection.root}/blobs/uploads/{query}", (201, 202, 404))
    except ImageError:  # it is not allowed to read there
        return False
    if response.status_code == 202:  # it began an upload instead
        with contextlib.suppress(httpx.TransportError):
            connection.attempt("DELETE", connection.follow(response))
    return response.status_code == 201


class _Upload:
    def __init__(self, connection: Connection, blob: Layer, advance: Advance, is_over: Callable[[], bool]) -> None:
        self.session = UploadSession(connection.reference, blob.digest)
        self.sent_bytes = 0
        self._connection = connection
        self._blob = blob
        self._reader = _Reader(blob.read)
        self._advance = advance
        self._is_over = is_over
        self._shown = 0  # bytes that progress knows of
        self._url = ""
        self._offset = 0
        self._chunk_bytes = CHUNK_BYTES
        self._is_resent = False
        self._renewals = 0  # of the login, since the upload came further
        self.in_chunks = takes_chunks(connection.reference.host)

    def run(self) -> None:
        """Send the blob to its end."""
        if not (self.in_chunks and self._take_up()):
            self._begin()
        retry, furthest = self._connection.retry(), self._offset
        while True:
            if self._is_over():
                raise InterruptedError
            response: httpx.Response | None = None
            try:
                response = self._send()
            except httpx.TransportError as error:
                problem = f"does not answer: {describe(error)}"
            else:
                if response is None:
                    return
                problem = f"answers {response.status_code}"
                if response.status_code in _TAKEN:
                    problem = "takes chunks and keeps nothing of them"
            if self._offset > furthest:  # it came further since the last failure
                retry.progressed()
                furthest, self._renewals = self._offset, 0
            if self._recover(response, retry, problem):
                return

    def _take_up(self) -> bool:
        """Go on with the upload that an earlier run began; false when there is none, or it is gone."""
        known = self.session.load()
        if not known:
            return False
        self._url, self._chunk_bytes = known
        if not self._ask_offset():
            self.session.forget()
            return False
        return True

    def _begin(self) -> None:
        response = self._connection.ask("POST", f"{self._connection.root}/blobs/uploads/", (202,))
        smallest = _number(response, "OCI-Chunk-Min-Length") or 0
        largest = _number(response, "OCI-Chunk-Max-Length") or CHUNK_BYTES
        self._chunk_bytes = max(smallest, min(CHUNK_BYTES, largest))
        self._at(response, 0)

    def _send(self) -> httpx.Response | None:
        """Send what is missing; returns None when the registry has it all, else the answer that stopped it."""
        while self.in_chunks and self._offset < self._blob.size:
            end = min(self._offset + self._chunk_bytes, self._blob.size)
            response = self._body("PATCH", self._url, end, {"Content-Range": f"{self._offset}-{end - 1}"})
            before = self._offset
            if response.status_code in _TAKEN:
                self._at(response, self._believed(_end_of_range(response, end), end))
            if response.status_code not in _TAKEN or self._offset <= before:
                return response
            if self._is_over():
                raise InterruptedError
        address = httpx.URL(self._url).copy_merge_params({"digest": self._blob.digest})
        response = self._body("PUT", str(address), self._blob.size, {})
        return None if response.status_code in (201, 204) else response

    def _body(self, method: str, url: str, end: int, headers: dict[str, str]) -> httpx.Response:
        length = end - self._offset
        kind = {"Content-Type": "application/octet-stream", "Content-Length": str(length)}
        return self._connection.attempt(method, url, headers | kind, self._count(self._offset, end) if length else b"")

    def _count(self, offset: int, end: int) -> Iterator[bytes]:
        for piece in self._reader.take(offset, end):
            if self._is_over() and not self.in_chunks:  # no other run could go on: not worth waiting for
                raise InterruptedError
            yield piece
            offset += len(piece)
            self.sent_bytes += len(piece)
            self._show(offset)

    def _believed(self, offset: int, sent: int) -> int:
        """How much the registry has, when that can be; raises ImageError when it has more than it was ever sent."""
        if offset > sent:
            host = self._connection.reference.host
            self.session.forget()
            raise ImageError(
                f"{host} says that it has {offset} bytes of a layer, and was sent {sent}",
                hint="run again: the layer is sent anew; if it happens again, the registry is broken",
            )
        return offset

    def _recover(self, response: httpx.Response | None, retry: Retry, problem: str) -> bool:
        """Find out how far the registry came, so that `_send` can go on; returns whether it has the blob after all.

        Raises ImageError when going on is hopeless.
        """
        status = response.status_code if response is not None else 0
        if response is not None and status == 401:
            if self._renewals >= _MOST_RENEWALS:
                raise self._connection.refusal(response)
            self._renewals += 1
            self._connection.renew(response)
        elif response is not None and status == 400 and b"DIGEST_INVALID" in response.content:
            for _ in self._blob.read(0):  # raises ImageError that names the file when it is we who changed
                pass
            if self._is_resent:
                raise self._connection.refusal(response)
            self._is_resent = True
            self._begin()
            return False
        elif self.in_chunks and status in _REFUSES_CHUNKS:
            self.in_chunks = False
        elif response is not None and 400 <= status < 500 and status not in _WORTH_ASKING:
            raise self._connection.refusal(response)
        else:
            retry.wait(problem, asked_s(response))
        if is_there(self._connection, self._blob):
            return True  # only the answer to the last request was lost
        if not (self.in_chunks and self._ask_offset()):
            self._begin()
        return False

    def _ask_offset(self) -> bool:
        """Ask the registry how much of the upload it has; false when it no longer knows it.

        Those built on CNCF distribution forget an upload of which a chunk was cut off in the middle.
        """
        response = self._connection.ask("GET", self._url, (200, 204, 400, 404, 405, 416))
        if response.status_code not in (200, 204):
            return False
        self._at(response, _end_of_range(response, 0))
        if self._offset > self._blob.size:
            return False
        self._show(self._offset)
        return True

    def _at(self, response: httpx.Response, offset: int) -> None:
        """Note where the upload is now, also for a later run."""
        if "Location" in response.headers:
            self._url = self._connection.follow(response)
        self._offset = offset
        if self.in_chunks and self._blob.size > self._chunk_bytes:
            self.session.save(self._url, self._chunk_bytes)

    def _show(self, offset: int) -> None:
        if offset > self._shown:
            self._advance(offset - self._shown)
            self._shown = offset


class _Reader:
    """Reads a blob in one go, chunk after chunk, and anew only where it is asked for another place."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._chunks: Iterator[bytes] = iter(())
        self._rest = b""
        self._at: int | None = None

    def take(self, offset: int, end: int) -> Iterator[bytes]:
        if offset != self._at:
            self._chunks, self._rest, self._at = self._read(offset), b"", offset
        while offset < end:
            piece = self._rest or next(self._chunks, b"")
            if not piece:
                raise ImageError("a layer ended before its size", hint="package the model again, then run again")
            self._rest, piece = piece[end - offset :], piece[: end - offset]
            offset = self._at = offset + len(piece)
            yield piece


def _end_of_range(response: httpx.Response, otherwise: int) -> int:
    """How many bytes the registry has by its Range header; 0-0 is how distribution says none."""
    match = re.fullmatch(r"(?:bytes=)?0-([0-9]{1,18})", response.headers.get("Range", ""))
    if not match:
        return otherwise
    return int(match[1]) + 1 if int(match[1]) else 0


def _number(response: httpx.Response, header: str) -> int | None:
    return whole_number(response.headers.get(header))
