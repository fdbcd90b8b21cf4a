"""SHA-256 of files: each read once, several at a time, and remembered until it changes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deploytk.base.cache import cache_directory
from deploytk.base.errors import BundleError
from deploytk.base.progress import Advance, Progress

_THREADS = min(8, os.cpu_count() or 1)  # a core sums 0.4 to 2 GB a second, less than most disks give
_CHUNK_BYTES = 2**17  # stays in a core's second cache between the read and the sum
_SETTLED_NS = 2 * 10**9  # a file touched this recently may change again within one tick of its mtime
_SAVE_EVERY_S = 1.0
_PATIENCE_S = 2.0  # with another process that writes


@dataclass(frozen=True, slots=True)
class _Identity:
    """What tells that a file is still the one that was hashed. Not ctime: a new hard link changes that."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> _Identity:
        status = path.stat()
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    @property
    def key(self) -> str:
        return f"{self.device}:{self.inode}:{self.size}:{self.mtime_ns}"


def hash_files(
    paths: Sequence[Path],
    label: str,
    progress: Progress,
    meanwhile: Callable[[], None] = lambda: None,
    *,
    anew: bool = False,
) -> dict[Path, str]:
    """The SHA-256 of every file, in hexadecimal; what was hashed before and has not changed is not read again.

    With `anew` everything is read: somebody may have seen to it that a file looks unchanged.

    `meanwhile` is called once while the files are read; when it raises, the reading stops. Raises BundleError when a
    file cannot be read or changes while it is read.
    """
    try:
        identities = {path: _Identity.of(path) for path in paths}
        with _remembered() as memory:
            found = {path: None if anew else memory.find(identity) for path, identity in identities.items()}
            digests = {path: digest for path, digest in found.items() if digest}
            unknown = sorted((path for path in identities if path not in digests), key=lambda p: -identities[p].size)
            total = sum(identities[path].size for path in unknown)
            if not unknown:
                meanwhile()
            else:
                reading = partial(_hash, unknown, meanwhile=meanwhile)
                with progress.task(label, total) as advance, contextlib.closing(reading(advance)) as hashed:
                    for path, digest in hashed:
                        if _Identity.of(path) != identities[path]:
                            hint = "wait until it is written, then run again"
                            raise BundleError(f"{path} changed while it was read", hint=hint)
                        memory.keep(identities[path], digest)
                        digests[path] = digest
    except OSError as error:
        raise BundleError(
            f"{error.filename} cannot be read: {error.strerror}", hint="check the file and its rights, then run again"
        ) from error
    return digests


def hash_file(path: Path, advance: Advance = lambda _: None) -> str:
    """The SHA-256 of one file, in hexadecimal, read now."""
    digest = hashlib.sha256()
    buffer = bytearray(_CHUNK_BYTES)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            digest.update(view[:size])
            advance(size)
    return digest.hexdigest()


def _hash(
    paths: Sequence[Path], advance: Advance, meanwhile: Callable[[], None]
) -> Generator[tuple[Path, str], None, None]:
    """Path and digest of each file as it is done, several read at a time; leaving early stops the reading."""
    is_over = threading.Event()

    def advance_unless_over(size: int) -> None:
        if is_over.is_set():
            raise InterruptedError
        advance(size)

    with ThreadPoolExecutor(_THREADS) as threads:
        futures = {threads.submit(hash_file, path, advance_unless_over): path for path in paths}
        try:
            meanwhile()
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            is_over.set()
            threads.shutdown(wait=True, cancel_futures=True)


class _Memory:
    """Digests by file identity, in a database that several processes may use at once.

    It only saves time: whatever goes wrong with it (locked, full disk, damaged, read-only) costs a hash, never more.
    """

    def __init__(self, connection: sqlite3.Connection | None) -> None:
        self._connection = connection
        self._new: list[tuple[str, str]] = []
        self._saved_s = time.monotonic()

    def find(self, identity: _Identity) -> str | None:
        if self._connection is None:
            return None
        with contextlib.suppress(sqlite3.Error):
            row = self._connection.execute("SELECT sha256 FROM digests WHERE key = ?", (identity.key,)).fetchone()
            return str(row[0]) if row else None
        return None

    def keep(self, identity: _Identity, digest: str) -> None:
        if time.time_ns() - identity.mtime_ns > _SETTLED_NS:
            self._new.append((identity.key, digest))
        if time.monotonic() - self._saved_s > _SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        if self._connection is not None and self._new:
            with contextlib.suppress(sqlite3.Error), self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?)", self._new)
        self._new.clear()
        self._saved_s = time.monotonic()


@contextlib.contextmanager
def _remembered() -> Iterator[_Memory]:
    """The memory of this user; a damaged one is started anew, one that cannot be written is done without."""
    connection = _open(cache_directory() / "digests.sqlite")
    memory = _Memory(connection)
    try:
        yield memory
    finally:
        memory.save()
        if connection is not None:
            connection.close()


def _open(path: Path, *, again: bool = True) -> sqlite3.Connection | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=_PATIENCE_S)
    except (OSError, sqlite3.Error):
        return None
    try:
        # A digest that is lost in a power cut is computed again; waiting for the disk would cost more.
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("CREATE TABLE IF NOT EXISTS digests (key TEXT PRIMARY KEY, sha256 TEXT NOT NULL)")
        connection.execute("SELECT key, sha256 FROM digests LIMIT 1").fetchone()
    except sqlite3.OperationalError as error:  # busy, read-only, full; or a table of another shape
        connection.close()
        return _anew(path) if again and "no such column" in str(error) else None
    except sqlite3.DatabaseError:  # not a database, or a damaged one
        connection.close()
        return _anew(path) if again else None
    return connection


def _anew(path: Path) -> sqlite3.Connection | None:
    with contextlib.suppress(OSError):
        path.unlink()
        return _open(path, again=False)
    return None
