"""ImagePlan -> registry: blobs side by side, the manifest last, everything asked for afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace

from deploytk.base.errors import ImageError
from deploytk.base.progress import Advance, Progress
from deploytk.image.config import CONFIG_TYPE, MANIFEST_TYPE
from deploytk.image.reference import parse_reference
from deploytk.image.registry.connection import Connection, Patience
from deploytk.image.registry.courier import can_travel, send_by_courier
from deploytk.image.registry.errand import AT_ONCE, Errand, send_blobs
from deploytk.image.registry.logins import find_login
from deploytk.image.registry.sessions import Homes
from deploytk.image.registry.upload import CHUNK_BYTES, Sent, is_there, takes_chunks
from deploytk.image.value import ImagePlan, Layer, SentLayer

_IN_ONE_GO = "{} takes layers only in one go: one that is cut off is sent anew"
_Send = Callable[[Errand, Advance, Callable[[], bool]], Sent]
_SMALLEST_HOME_BYTES = 2**20  # smaller blobs are sent faster than they are mounted


def push_image(
    plan: ImagePlan, tag: str, progress: Progress, patience: Patience | None = None
) -> tuple[tuple[SentLayer, ...], int]:
    """Push the image as HOST/NAME:TAG; returns its layers and the bytes sent.

    What the registry has is not sent, an upload that was cut off goes on where it was. Raises UsageError for a name
    that is none, ImageError when the registry refuses or a file has changed, TryAgainError when the registry does not
    answer or another push sends the same layer.
    """
    errand = _errand(plan, tag, patience)
    with errand.connect() as connection:
        is_tagged = _is_tagged(connection, plan)  # first and alone: a registry that is away is waited for once
        missing = _missing(connection, errand.blobs)
        sent_bytes = _send(replace(errand, blobs=missing), progress) if missing else 0
        if missing or not is_tagged:
            _put_manifest(connection, plan)
        _verify(connection, plan, missing)
    absent = {blob.digest for blob in missing}
    layers = tuple(SentLayer(x.digest, x.size, x.kind, x.digest not in absent) for x in plan.layers)
    for blob in errand.blobs:
        if blob.size >= _SMALLEST_HOME_BYTES:
            Homes(errand.reference.host).remember(blob.digest, errand.reference.repository)
    return layers, sent_bytes


def missing_layers(plan: ImagePlan, tag: str) -> tuple[tuple[Layer, ...], bool]:
    """What a push would have to send, the config as the last layer; and whether `tag` names this image already."""
    errand = _errand(plan, tag, None)
    with errand.connect() as connection:
        is_tagged = _is_tagged(connection, plan)
        return _missing(connection, errand.blobs), is_tagged


def _errand(plan: ImagePlan, tag: str, patience: Patience | None) -> Errand:
    """Every blob once, the config among them."""
    reference = parse_reference(tag)
    login = find_login(reference.host, is_destination=True)

    def read(offset: int) -> Iterator[bytes]:
        yield plan.config[offset:]

    config = Layer(plan.image_id, plan.image_id, len(plan.config), "card", CONFIG_TYPE, "the image's config", read)
    blobs = {blob.digest: blob for blob in (*plan.layers, config)}
    return Errand(reference, login, patience or Patience(), tuple(blobs.values()))


def _missing(connection: Connection, blobs: tuple[Layer, ...]) -> tuple[Layer, ...]:
    with ThreadPoolExecutor(AT_ONCE) as threads:
        there = list(threads.map(lambda blob: is_there(connection, blob.digest), blobs))
    return tuple(blob for blob, is_known in zip(blobs, there, strict=True) if not is_known)


def _send(errand: Errand, progress: Progress) -> int:
    """Send the blobs; returns the bytes sent."""
    is_over = threading.Event()
    host, total = errand.reference.host, sum(blob.size for blob in errand.blobs)
    if not takes_chunks(host):
        progress.note(_IN_ONE_GO.format(host))
    with progress.task(f"pushing to {host}", total) as advance, ThreadPoolExecutor() as threads:
        sending = [threads.submit(send, part, advance, is_over.is_set) for send, part in _parts(errand)]
        try:
            sent = [future.result() for future in as_completed(sending)]
        finally:
            is_over.set()
    if takes_chunks(host) and not all(part.in_chunks for part in sent):
        progress.note(_IN_ONE_GO.format(host))
    return sum(part.sent_bytes for part in sent)


def _parts(errand: Errand) -> Iterator[tuple[_Send, Errand]]:
    """What is sent from here, and what by a courier: all that can travel, when some of it is worth to go on inside."""
    away = tuple(blob for blob in errand.blobs if can_travel(blob))
    if not takes_chunks(errand.reference.host) or all(blob.size <= CHUNK_BYTES for blob in away):
        yield send_blobs, errand
        return
    yield send_by_courier, replace(errand, blobs=away)
    yield send_blobs, replace(errand, blobs=tuple(blob for blob in errand.blobs if blob not in away))


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


def _verify(connection: Connection, plan: ImagePlan, sent: tuple[Layer, ...]) -> None:
    """Raises ImageError unless the registry now shows the manifest and every blob that was sent."""
    lost = _missing(connection, sent)
    if lost or _digest_of(connection, plan.digest) != plan.digest:
        what = f"{len(lost)} blobs" if lost else "the manifest"
        hint = "run again; if it happens again, the registry loses data"
        raise ImageError(f"{connection.reference.host} took {what} but does not show it", hint=hint)
