"""Puts the model's files into a bundle without copying them where the file system allows."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path

# linux/fs.h; shares the blocks of a file on btrfs, xfs and bcachefs
_FICLONE = 0x40049409

_NO_HARD_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)


def link_or_copy(source: Path, destination: Path) -> int:
    """Make `destination` the same file as `source`; returns the bytes that had to be copied, 0 for a link."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), destination)
    except OSError as error:
        if error.errno not in _NO_HARD_LINK:
            raise
    else:
        return 0
    return clone_or_copy(source, destination)


def clone_or_copy(source: Path, destination: Path) -> int:
    """A file of its own with the content of `source`; returns the bytes copied, 0 where blocks are shared."""
    copied = 0
    with source.open("rb") as readable, destination.open("wb") as writable:
        try:
            fcntl.ioctl(writable.fileno(), _FICLONE, readable.fileno())
        except OSError:
            shutil.copyfileobj(readable, writable, 2**22)
            copied = readable.tell()
        writable.flush()
        os.fsync(writable.fileno())
    destination.chmod(0o644)
    return copied
