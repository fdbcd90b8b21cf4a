"""The blobs of a push: several at a time, the large ones first, each mounted from where the registry has it or sent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from deploytk.base.progress import Advance
from deploytk.base.retry import RetryPolicy
from deploytk.image.reference import Reference
from deploytk.image.registry.connection import Connection, Note
from deploytk.image.registry.logins import Login
from deploytk.image.registry.sessions import MountSources
from deploytk.image.registry.upload import Sent, mount_blob, push_blob
from deploytk.image.value import Layer

AT_ONCE = 4


@dataclass(frozen=True, slots=True, repr=False)
class PushJob:
    reference: Reference
    login: Login | None
    policy: RetryPolicy | None
    blobs: tuple[Layer, ...]

    def connect(self, note: Note, mounts_from: str = "") -> Connection:
        return Connection(self.reference, self.login, self.policy, mounts_from=mounts_from, note=note)


def send_blobs(job: PushJob, advance: Advance, note: Note, is_over: Callable[[], bool]) -> Sent:
    """Bring the blobs into the repository; raises as `push_blob` does, then the others end their chunks as well."""
    has_failed = threading.Event()
    sent_bytes, in_chunks = 0, True
    with job.connect(note) as connection, ThreadPoolExecutor(AT_ONCE) as threads:

        def send(blob: Layer) -> Sent:
            if _mount(job, blob, note):
                advance(blob.size)
                return Sent(0)
            return push_blob(connection, blob, advance, lambda: is_over() or has_failed.is_set())

        sending = [threads.submit(send, blob) for blob in sorted(job.blobs, key=lambda blob: -blob.size)]
        try:
            for sent in (future.result() for future in as_completed(sending)):
                sent_bytes += sent.sent_bytes
                in_chunks = in_chunks and sent.in_chunks
        finally:
            has_failed.set()
            threads.shutdown(cancel_futures=True)
    return Sent(sent_bytes, in_chunks)


def _mount(job: PushJob, blob: Layer, note: Note) -> bool:
    """Have the registry take the blob over from another of its repositories that has it, as far as we know."""
    host, _, repository = (blob.repository or "").partition("/")
    home = repository if host == job.reference.host else MountSources(job.reference.host).of(blob.digest)
    if not home or home == job.reference.repository:
        return False
    with job.connect(note, home) as both:  # its token must be good for both repositories
        return mount_blob(both, blob, home)
