"""The blobs of a push: several at a time, the large ones first, each mounted from where the registry has it or sent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from deploytk.base.progress import Advance
from deploytk.image.reference import Reference
from deploytk.image.registry.connection import Connection, Patience
from deploytk.image.registry.logins import Login
from deploytk.image.registry.sessions import Homes
from deploytk.image.registry.upload import Sent, mount_blob, push_blob
from deploytk.image.value import Layer

AT_ONCE = 3


@dataclass(frozen=True, slots=True, repr=False)
class Errand:
    reference: Reference
    login: Login | None
    patience: Patience
    blobs: tuple[Layer, ...]

    def connect(self, mounts_from: str = "") -> Connection:
        return Connection(self.reference, self.login, self.patience, mounts_from=mounts_from)


def send_blobs(errand: Errand, advance: Advance, is_over: Callable[[], bool]) -> Sent:
    """Bring the blobs into the repository; raises as `push_blob` does, then the others end their chunks as well."""
    has_failed = threading.Event()
    sent_bytes, in_chunks = 0, True
    with errand.connect() as connection, ThreadPoolExecutor(AT_ONCE) as threads:

        def send(blob: Layer) -> Sent:
            if _mount(errand, blob):
                advance(blob.size)
                return Sent(0)
            return push_blob(connection, blob, advance, lambda: is_over() or has_failed.is_set())

        sending = [threads.submit(send, blob) for blob in sorted(errand.blobs, key=lambda blob: -blob.size)]
        try:
            for sent in (future.result() for future in as_completed(sending)):
                sent_bytes += sent.sent_bytes
                in_chunks = in_chunks and sent.in_chunks
        finally:
            has_failed.set()
            threads.shutdown(cancel_futures=True)
    return Sent(sent_bytes, in_chunks)


def _mount(errand: Errand, blob: Layer) -> bool:
    """Have the registry take the blob over from another of its repositories that has it, as far as we know."""
    host, _, repository = (blob.repository or "").partition("/")
    home = repository if host == errand.reference.host else Homes(errand.reference.host).of(blob.digest)
    if not home or home == errand.reference.repository:
        return False
    with errand.connect(home) as both:  # its token must be good for both repositories
        return mount_blob(both, blob, home)
