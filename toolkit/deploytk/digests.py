"""SHA-256 of files: each read once, two at a time, and remembered until it changes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from deploytk.errors import BundleError
from deploytk.progress import Advance, Progress

_THREADS = 2
_CHUNK_BYTES = 2**20
_SETTLED_NS = 2 * 10**9  # a file touched this recently may change again within one tick of its mtime


@dataclass(frozen=True, slots=True)
class _Identity:
    """What tells that a file is still the one that was hashed."""

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


def hash_files(paths: Sequence[Path], label: str, progress: Progress) -> dict[Path, str]:
    """The SHA-256 of every file, in hexadecimal. Raises BundleError when a file changes while it is read."""
    identities = {path: _Identity.of(path) for path in paths}
    with _remembered() as memory:
        found = {path: memory.find(identity) for path, identity in identities.items()}
        digests = {path: digest for path, digest in found.items() if digest}
        unknown = sorted((path for path in paths if path not in digests), key=lambda path: -identities[path].size)
        total = sum(identities[path].size for path in unknown)
        if unknown:
            with progress.task(label, total) as advance, ThreadPoolExecutor(_THREADS) as threads:
                hashed = threads.map(lambda path: hash_file(path, advance), unknown)
                for path, digest in zip(unknown, hashed, strict=True):
                    if _Identity.of(path) != identities[path]:
                        raise BundleError(
                            f"{path} changed while it was read", hint="wait until it is written, then run again"
                        )
                    memory.keep(identities[path], digest)
                    digests[path] = digest
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


class _Memory:
    """Digests by file identity, in a database that several processes may use at once."""

    def __init__(self, connection: sqlite3.Connection | None) -> None:
        self._connection = connection

    def find(self, identity: _Identity) -> str | None:
        if self._connection is None:
            return None
        row = self._connection.execute("SELECT sha256 FROM digests WHERE key = ?", (identity.key,)).fetchone()
        return str(row[0]) if row else None

    def keep(self, identity: _Identity, digest: str) -> None:
        if self._connection is not None and time.time_ns() - identity.mtime_ns > _SETTLED_NS:
            self._connection.execute("INSERT OR REPLACE INTO digests VALUES (?, ?)", (identity.key, digest))
            self._connection.commit()


@contextlib.contextmanager
def _remembered() -> Iterator[_Memory]:
    """The memory of this user; a broken or unwritable one is left out, never an error."""
    directory = Path(os.environ.get("DEPLOYTK_CACHE_DIR") or platformdirs.user_cache_path("deploytk"))
    path = directory / "digests.sqlite"
    connection = _open(path) or (path.unlink(missing_ok=True) if path.is_file() else None) or _open(path)
    try:
        yield _Memory(connection)
    finally:
        if connection is not None:
            connection.close()


def _open(path: Path) -> sqlite3.Connection | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=10)
        connection.execute("CREATE TABLE IF NOT EXISTS digests (key TEXT PRIMARY KEY, sha256 TEXT NOT NULL)")
    except (OSError, sqlite3.Error):
        return None
    return connection
