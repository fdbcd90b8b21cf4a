"""ImagePlan -> registry: blobs side by side, the manifest last, everything asked for afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace

from deploytk.base.progress import Advance, Progress
from deploytk.base.retry import RetryPolicy
from deploytk.image.media_types import MANIFEST_TYPE
from deploytk.image.reference import parse_reference
from deploytk.image.registry.connection import Connection, Note
from deploytk.image.registry.logins import find_login
from deploytk.image.registry.push_job import PushJob, send_blobs
from deploytk.image.registry.sessions import MountSources
from deploytk.image.registry.tag import require_own, tagged, title_in
from deploytk.image.registry.upload import CHUNK_BYTES, Sent, takes_chunks
from deploytk.image.registry.upload_process import is_picklable, send_in_process
from deploytk.image.registry.verify import missing_blobs, verify_image
from deploytk.image.value import ImagePlan, Layer, SentLayer

_IN_ONE_GO = "{} takes layers only in one go: one that is cut off is sent anew"
_Send = Callable[[PushJob, Advance, Note, Callable[[], bool]], Sent]
_SMALLEST_MOUNT_BYTES = 2**20  # smaller blobs are sent faster than they are mounted


def push_image(
    plan: ImagePlan, tag: str, progress: Progress, policy: RetryPolicy | None = None, *, takes_over: bool = False
) -> tuple[tuple[SentLayer, ...], int]:
    """Push the image as HOST/NAME:TAG; returns its layers and the bytes sent.

    What the registry has is not sent, an upload that was cut off goes on where it was. Raises UsageError for a name
    that is none, ImageError when the registry refuses, a file has changed, or the tag names an image of others and is
    not to be taken over, TryAgainError when the registry does not
    answer or another push sends the same layer.
    """
    job = _job(plan, tag, policy)
    with job.connect(progress.note) as connection:
        there = tagged(connection)  # first: one that is away is waited for once
        if not takes_over:
            require_own(connection, there, plan.manifest, title_in(plan.manifest))
        missing = missing_blobs(connection, job.blobs)
        sent_bytes = _send(replace(job, blobs=missing), progress) if missing else 0
        if missing or there.manifest != plan.manifest:
            _put_manifest(connection, plan)
        verify_image(connection, plan, job.blobs, missing)
    absent = {blob.digest for blob in missing}
    layers = tuple(SentLayer(x.digest, x.size, x.kind, x.digest not in absent) for x in plan.layers)
    for blob in job.blobs:
        if blob.size >= _SMALLEST_MOUNT_BYTES:
            MountSources(job.reference.host).remember(blob.digest, job.reference.repository)
    return layers, sent_bytes


def missing_layers(plan: ImagePlan, tag: str) -> tuple[tuple[Layer, ...], str]:
    """What a push would have to send, the config as the last layer; and whose image `tag` names, if of others."""
    job = _job(plan, tag, None)
    with job.connect(lambda _: None) as connection:
        foreign = tagged(connection).foreign_to(plan.manifest, title_in(plan.manifest))
        return missing_blobs(connection, job.blobs), foreign


def require_own_tag(tag: str, title: str) -> None:
    """Raises ImageError when `tag` names something else than deploytk's image of a bundle called `title`."""
    reference = parse_reference(tag)
    with Connection(reference, find_login(reference.host, is_destination=True)) as connection:
        require_own(connection, tagged(connection), None, title)


def _job(plan: ImagePlan, tag: str, policy: RetryPolicy | None) -> PushJob:
    """Every blob once, the config among them."""
    reference = parse_reference(tag)
    login = find_login(reference.host, is_destination=True)

    def read(offset: int) -> Iterator[bytes]:
        yield plan.config[offset:]

    config = Layer(plan.image_id, plan.image_id, len(plan.config), "card", plan.config_type, "the image's config", read)
    blobs = {blob.digest: blob for blob in (*plan.layers, config)}
    return PushJob(reference, login, policy, tuple(blobs.values()))


def _send(job: PushJob, progress: Progress) -> int:
    """Send the blobs; returns the bytes sent."""
    is_over = threading.Event()
    host, total = job.reference.host, sum(blob.size for blob in job.blobs)
    if not takes_chunks(host):
        progress.note(_IN_ONE_GO.format(host))
    with progress.task(f"pushing to {host}", total) as advance, ThreadPoolExecutor() as threads:
        sending = [threads.submit(send, part, advance, progress.note, is_over.is_set) for send, part in _parts(job)]
        try:
            sent = [future.result() for future in as_completed(sending)]
        finally:
            is_over.set()
    if takes_chunks(host) and not all(part.in_chunks for part in sent):
        progress.note(_IN_ONE_GO.format(host))
    return sum(part.sent_bytes for part in sent)


def _parts(job: PushJob) -> Iterator[tuple[_Send, PushJob]]:
    """What is sent from here, and what by a process of its own: all that can be pickled, when some of it is large."""
    away = tuple(blob for blob in job.blobs if is_picklable(blob))
    if not takes_chunks(job.reference.host) or all(blob.size <= CHUNK_BYTES for blob in away):
        yield send_blobs, job
        return
    yield send_in_process, replace(job, blobs=away)
    yield send_blobs, replace(job, blobs=tuple(blob for blob in job.blobs if blob not in away))


def _put_manifest(connection: Connection, plan: ImagePlan) -> None:
    url = f"{connection.root}/manifests/{connection.reference.tag}"
    connection.ask("PUT", url, (201,), headers={"Content-Type": MANIFEST_TYPE}, content=plan.manifest)
