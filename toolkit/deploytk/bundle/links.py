"""Puts the model's files into a bundle without copying them where the file system allows."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

from deploytk.base.progress import Advance

# linux/fs.h; shares the blocks of a file on btrfs, xfs and bcachefs
_FICLONE = 0x40049409

_NO_HARD_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)

_CHUNK_BYTES = 2**22


def link_or_copy(source: Path, destination: Path, advance: Advance = lambda _: None) -> int:
    """Make `destination` the same file as `source`; returns the bytes that had to be copied, 0 for a link.

    A file that others may not read gets a copy that they may: a container's user is another one, and the mode of
    a hard link is that of the user's own file. `lmdeploy lite auto_awq` writes its shards with mode 0600.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    status = source.stat()
    if status.st_mode & stat.S_IROTH:
        try:
            os.link(source.resolve(), destination)
        except OSError as error:
            if error.errno not in _NO_HARD_LINK:
                raise
        else:
            advance(status.st_size)
            return 0
    return clone_or_copy(source, destination, advance)


def clone_or_copy(source: Path, destination: Path, advance: Advance = lambda _: None) -> int:
    """A file of its own with the content of `source`, mode 0644; returns the bytes copied, 0 for shared blocks."""
    copied = 0
    with source.open("rb", buffering=0) as readable, destination.open("wb", buffering=0) as writable:
        try:
            fcntl.ioctl(writable.fileno(), _FICLONE, readable.fileno())
        except OSError:
            while chunk := readable.read(_CHUNK_BYTES):
                _write_all(writable.fileno(), chunk)
                copied += len(chunk)
                advance(len(chunk))
        else:
            advance(os.fstat(readable.fileno()).st_size)
        os.fsync(writable.fileno())
    destination.chmod(0o644)
    return copied


def _write_all(descriptor: int, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:
        left = left[os.write(descriptor, left) :]
