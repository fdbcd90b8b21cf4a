"""What is remembered about uploads, so that another run goes on where one was killed."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from deploytk.base.cache import cache_directory
from deploytk.base.errors import TryAgainError
from deploytk.base.pause import pause
from deploytk.image.reference import Reference

_WAIT_S = 90.0  # a killed push may still be sending the end of a chunk
_LOOK_AGAIN_S = 0.1


class UploadSession:
    """The upload of one blob into one repository: the address that the registry gave it, and the size of its chunks."""

    def __init__(self, reference: Reference, digest: str) -> None:
        key = hashlib.sha256(f"{reference.host}/{reference.repository}@{digest}".encode()).hexdigest()
        self._place = cache_directory() / "uploads" / key

    def load(self) -> tuple[str, int] | None:
        with contextlib.suppress(OSError, ValueError):
            url, chunk_bytes = self._place.read_text(encoding="ascii").split()
            return url, int(chunk_bytes)
        return None

    def save(self, url: str, chunk_bytes: int) -> None:
        """Readable by the user alone: whoever has the address can write to the upload."""
        with contextlib.suppress(OSError, UnicodeEncodeError):  # then a kill costs more, nothing else
            self._place.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self._place.parent)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(f"{url} {chunk_bytes}\n")
            Path(temporary).replace(self._place)

    def forget(self) -> None:
        with contextlib.suppress(OSError):
            self._place.unlink(missing_ok=True)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep others from this upload; waits a while for one who has it, then raises TryAgainError."""
        try:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            lock = self._place.with_suffix(".lock").open("a")
        except OSError:  # nowhere to remember anything
            yield
            return
        deadline = time.monotonic() + _WAIT_S
        with lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > deadline:
                        hint = "wait until that push has ended, then run again"
                        raise TryAgainError("another deploytk is sending the same layer", hint=hint) from error
                    pause(_LOOK_AGAIN_S)
            yield


class MountSources:
    """In which repository of a registry a blob was last seen: another repository there can mount it."""

    def __init__(self, host: str) -> None:
        self._host = cache_directory() / "registries" / hashlib.sha256(host.encode()).hexdigest()

    def of(self, digest: str) -> str | None:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return (self._host / digest.replace(":", "-")).read_text(encoding="ascii").strip() or None
        return None

    def remember(self, digest: str, repository: str) -> None:
        if self.of(digest) == repository:
            return
        with contextlib.suppress(OSError):
            self._host.mkdir(parents=True, exist_ok=True)
            (self._host / digest.replace(":", "-")).write_text(repository + "\n", encoding="ascii")
