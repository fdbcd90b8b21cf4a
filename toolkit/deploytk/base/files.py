"""Writes that are either there whole or not at all, also after kill -9 and on a full disk."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploytk.base.errors import DeployError, TryAgainError


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` (UTF-8) in one step; readers see the old file or the new one."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_bounded(path: Path, largest_bytes: int) -> bytes:
    """The content of a file; raises ValueError for what is no file, or larger, OSError when it cannot be read."""
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for, for ever
        raise ValueError("it is no file")
    with path.open("rb") as file:
        is_larger = path.stat().st_size > largest_bytes
        content = b"" if is_larger else file.read(largest_bytes + 1)
    if is_larger or len(content) > largest_bytes:
        is_small = largest_bytes < 2**20
        size = f"{largest_bytes // 2**10} KiB" if is_small else f"{largest_bytes // 2**20} MiB"
        raise ValueError(f"it is larger than {size}")
    return content


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path`; raises TryAgainError at once when another process holds it.

    The kernel drops the lock when its holder dies, so a lock file that is left over locks nobody out.
    """
    busy = TryAgainError(f"{what} is in use by another deploytk", hint="wait until that one has ended, then run again")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        path.unlink()
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise busy from error
        # Its last holder removes the file: a lock on one that is gone would keep nobody out.
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(file.fileno())):
            raise busy
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove what is at `path`, whatever it is; of a link the link alone, never what it leads to."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def put_back(destination: Path) -> None:
    """Put what was at `destination` back where a kill has left it aside: for whoever looks at it before it is replaced.

    Raises TryAgainError while somebody else is replacing it.
    """
    if not _replaced(destination).is_dir() or destination.exists():
        return
    with locked(_lock(destination), str(destination)):
        _put_back(destination)


def clear_lock(destination: Path) -> None:
    """Remove the lock of a writer that was killed when all of `destination` was there."""
    if _lock(destination).exists():
        with locked(_lock(destination), str(destination)):
            pass


def _put_back(destination: Path) -> None:
    replaced = _replaced(destination)
    if replaced.is_symlink():
        replaced.unlink()
    if replaced.exists() and not destination.exists():
        replaced.rename(destination)  # a kill hit between the two renames of staged_directory


def _replaced(destination: Path) -> Path:
    return destination.with_name(f".{destination.name}.replaced")


def _lock(destination: Path) -> Path:
    return destination.with_name(f".{destination.name}.lock")


@contextmanager
def staged_directory(destination: Path, *, resumable: bool) -> Iterator[Path]:
    """A directory to fill, beside `destination`, that takes its place in one step at the end.

    When the body fails, a resumable one stays for the next attempt, which gets the same directory again and
    decides what of it can be kept; any other is removed. Locked: there are never two writers. What was at
    `destination` before is removed once the new one is there. A link in the place of one of these is nothing that we
    left there, and is not followed: `destination` may lie in a directory of somebody else's files.
    """
    staging, replaced = destination.with_name(f".{destination.name}.partial"), _replaced(destination)
    with locked(_lock(destination), str(destination)):
        _put_back(destination)
        if staging.is_symlink() or not resumable:
            remove(staging)
        staging.mkdir(parents=True, exist_ok=True)
        try:
            yield staging
        except BaseException:
            if not resumable:
                remove(staging)
            raise
        sync_directory(staging)
        remove(replaced)
        if destination.exists():
            destination.rename(replaced)
        staging.rename(destination)
        sync_directory(destination.parent)
        remove(replaced)


def sync_directory(path: Path) -> None:
    """Flush the entries of a directory to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def disk_errors(where: Path, raises: type[DeployError]) -> Iterator[None]:
    """Turn the system's refusal to write below `where` into an error with a way out."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free_mib = shutil.disk_usage(_existing(where)).free // 2**20
            raise raises(
                f"the disk of {where} is full ({free_mib} MiB left)", hint="free some space and run again"
            ) from error
        raise raises(
            f"{error.filename or where} cannot be written: {error.strerror}", hint="choose another place"
        ) from error


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.absolute().parents) if parent.exists())
