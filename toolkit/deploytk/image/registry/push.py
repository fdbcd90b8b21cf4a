"""ImagePlan -> registry: blobs side by side, the manifest last, everything asked for afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from deploytk.errors import ImageError
from deploytk.image.config import CONFIG_TYPE, MANIFEST_TYPE
from deploytk.image.reference import Reference, parse_reference
from deploytk.image.registry.connection import Connection, Patience
from deploytk.image.registry.courier import Errand, can_travel, send_by_courier
from deploytk.image.registry.logins import Login, find_login
from deploytk.image.registry.sessions import Homes
from deploytk.image.registry.upload import CHUNK_BYTES, Sent, is_there, mount_blob, push_blob, takes_chunks
from deploytk.image.value import ImagePlan, Layer, SentLayer
from deploytk.progress import Advance, Progress

_AT_ONCE = 3
_SMALLEST_HOME_BYTES = 2**20  # smaller blobs are sent faster than they are mounted


@dataclass(frozen=True, slots=True)
class _Destination:
    reference: Reference
    login: Login | None
    patience: Patience
    homes: Homes

    def connect(self, mounts_from: tuple[str, ...] = ()) -> Connection:
        return Connection(self.reference, self.login, self.patience, mounts_from=mounts_from)

    def home_of(self, blob: Layer) -> str | None:
        """Another repository of this registry that has the blob, as far as we know."""
        host, _, repository = (blob.repository or "").partition("/")
        found = repository if host == self.reference.host else self.homes.of(blob.digest)
        return found if found and found != self.reference.repository else None


def push_image(
    plan: ImagePlan, tag: str, progress: Progress, patience: Patience | None = None
) -> tuple[tuple[SentLayer, ...], int]:
    """Push the image as HOST/NAME:TAG; returns its layers and the bytes sent.

    What the registry has is not sent, an upload that was cut off goes on where it was. Raises UsageError for a name
    that is none, ImageError when the registry refuses or a file has changed, TryAgainError when the registry does not
    answer or another push sends the same layer.
    """
    destination = _destination(tag, patience)
    with destination.connect() as connection:
        blobs = _blobs(plan)
        is_tagged = _is_tagged(connection, plan)  # first and alone: a registry that is away is waited for once
        missing = _missing(connection, blobs)
        sent_bytes = _send(destination, connection, missing, progress) if missing else 0
        if missing or not is_tagged:
            _put_manifest(connection, plan)
        _verify(connection, plan, missing)
    absent = {blob.digest for blob in missing}
    layers = tuple(SentLayer(x.digest, x.size, x.kind, x.digest not in absent) for x in plan.layers)
    for blob in blobs:
        if blob.size >= _SMALLEST_HOME_BYTES:
            destination.homes.remember(blob.digest, destination.reference.repository)
    return layers, sent_bytes


def missing_layers(plan: ImagePlan, tag: str) -> tuple[tuple[Layer, ...], bool]:
    """What a push would have to send, the config as the last layer; and whether `tag` names this image already."""
    with _destination(tag, None).connect() as connection:
        is_tagged = _is_tagged(connection, plan)
        return tuple(_missing(connection, _blobs(plan))), is_tagged


def _destination(tag: str, patience: Patience | None) -> _Destination:
    reference = parse_reference(tag)
    login = find_login(reference.host, is_destination=True)
    return _Destination(reference, login, patience or Patience(), Homes(reference.host))


def _blobs(plan: ImagePlan) -> list[Layer]:
    """Every blob once, the config among them."""

    def read(offset: int) -> Iterator[bytes]:
        yield plan.config[offset:]

    config = Layer(plan.image_id, plan.image_id, len(plan.config), "card", CONFIG_TYPE, "the image's config", read)
    return list({blob.digest: blob for blob in (*plan.layers, config)}.values())


def _missing(connection: Connection, blobs: list[Layer]) -> list[Layer]:
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        there = list(threads.map(lambda blob: is_there(connection, blob.digest), blobs))
    return [blob for blob, is_known in zip(blobs, there, strict=True) if not is_known]


def _send(destination: _Destination, connection: Connection, blobs: list[Layer], progress: Progress) -> int:
    """Send the blobs, several at a time, the large ones first; returns the bytes sent."""
    is_over = threading.Event()
    total = sum(blob.size for blob in blobs)
    host = destination.reference.host
    whole = f"{host} takes layers only in one go: one that is cut off is sent anew"
    label, sent_bytes, in_chunks = f"pushing to {host}", 0, takes_chunks(host)
    if not in_chunks:
        progress.note(whole)
    with progress.task(label, total) as advance, ThreadPoolExecutor(_AT_ONCE) as threads:
        largest_first = sorted(blobs, key=lambda blob: -blob.size)
        sending = [
            threads.submit(_send_one, destination, connection, x, advance, is_over.is_set) for x in largest_first
        ]
        try:
            for sent in (future.result() for future in as_completed(sending)):
                sent_bytes += sent.sent_bytes
                if in_chunks and not sent.in_chunks:
                    progress.note(whole)
                    in_chunks = False
        finally:
            is_over.set()
            threads.shutdown(cancel_futures=True)
    return sent_bytes


def _send_one(
    destination: _Destination, connection: Connection, blob: Layer, advance: Advance, is_over: Callable[[], bool]
) -> Sent:
    home = destination.home_of(blob)
    if home:
        with destination.connect((home,)) as both:  # its token must be good for both repositories
            if mount_blob(both, blob, home):
                advance(blob.size)
                return Sent("mounted", 0)
    if blob.size > CHUNK_BYTES and takes_chunks(destination.reference.host) and can_travel(blob):
        errand = Errand(destination.reference, destination.login, destination.patience, blob)
        return send_by_courier(errand, advance, is_over)
    return push_blob(connection, blob, advance, is_over)


def _is_tagged(connection: Connection, plan: ImagePlan) -> bool:
    return _digest_of(connection, connection.reference.tag) == plan.digest


def _digest_of(connection: Connection, name: str) -> str | None:
    """The digest of the manifest under a tag or digest, None when there is none."""
    answer = connection.ask(
        "HEAD", f"{connection.root}/manifests/{name}", (200, 404), headers={"Accept": MANIFEST_TYPE}
    )
    return answer.headers.get("Docker-Content-Digest") if answer.status_code == 200 else None


def _put_manifest(connection: Connection, plan: ImagePlan) -> None:
    url = f"{connection.root}/manifests/{connection.reference.tag}"
    connection.ask("PUT", url, (201,), headers={"Content-Type": MANIFEST_TYPE}, content=plan.manifest)


def _verify(connection: Connection, plan: ImagePlan, sent: list[Layer]) -> None:
    """Raises ImageError unless the registry now shows the manifest and every blob that was sent."""
    lost = _missing(connection, sent)
    if lost or _digest_of(connection, plan.digest) != plan.digest:
        what = f"{len(lost)} blobs" if lost else "the manifest"
        hint = "run again; if it happens again, the registry loses data"
        raise ImageError(f"{connection.reference.host} took {what} but does not show it", hint=hint)
