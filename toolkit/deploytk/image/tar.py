"""Deterministic tars that are made while they are read, from any byte on, and never written anywhere."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deploytk.base.digests import hash_file
from deploytk.base.errors import ImageError

AGAIN = "wait until nothing writes to it, package the model again, then run again"

_CHUNK_BYTES = 2**18  # httpcore copies what a socket does not take at once, so not larger


@dataclass(frozen=True, slots=True)
class File:
    """A file as a piece of a tar; what is read must have the size that the header before it says."""

    path: Path
    size: int
    sha256: str

    def read(self, offset: int) -> Iterator[bytes]:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise ImageError(f"{self.path} cannot be read: {error.strerror}", hint=AGAIN) from error
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size != self.size:
                raise ImageError(f"{self.path} has changed since the image was planned", hint=AGAIN)
            file.seek(offset)
            while offset < self.size:
                chunk = file.read(min(_CHUNK_BYTES, self.size - offset))
                if not chunk:
                    raise ImageError(f"{self.path} was cut off while it was read", hint=AGAIN)
                offset += len(chunk)
                yield chunk


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True, slots=True)
class OwnDirectory:
    """A directory that the user of that number may write to."""

    user: int


Content = bytes | File | Link | OwnDirectory


@dataclass(frozen=True, slots=True)
class Tar:
    """A tar as a list of pieces: the same bytes as Python's tarfile makes in its PAX format."""

    pieces: tuple[bytes | File, ...]
    starts: tuple[int, ...]  # where each piece begins
    size: int
    recipe: str  # SHA-256 of the headers and the files' digests: the same recipe makes the same bytes

    @classmethod
    def of(cls, contents: Mapping[str, Content]) -> Tar:
        """A tar of these by their paths, and of all the directories above them."""
        parents: dict[str, Content] = {name: OwnDirectory(0) for path in contents for name in _parents(path)}
        pieces: list[bytes | File] = []
        for name, content in sorted((parents | dict(contents)).items()):
            pieces.append(_header(name, content))
            if isinstance(content, (bytes, File)) and _size(content):
                pieces += [content, bytes(-_size(content) % tarfile.BLOCKSIZE)]
        size = sum(map(_size, pieces)) + 2 * tarfile.BLOCKSIZE
        pieces.append(bytes(2 * tarfile.BLOCKSIZE + -size % tarfile.RECORDSIZE))
        starts, at, recipe = [], 0, hashlib.sha256()
        for piece in pieces:
            starts.append(at)
            at += _size(piece)
            recipe.update(hashlib.sha256(piece).digest() if isinstance(piece, bytes) else bytes.fromhex(piece.sha256))
        return cls(tuple(pieces), tuple(starts), at, recipe.hexdigest())

    def check(self) -> None:
        """Raises ImageError that names the file when one is not the one that was planned; reads them all."""
        for piece in self.pieces:
            if isinstance(piece, File) and hash_file(piece.path) != piece.sha256:
                raise ImageError(f"{piece.path} has changed since the image was planned", hint=AGAIN)

    def read(self, offset: int) -> Iterator[bytes]:
        """The bytes from `offset` on; raises ImageError when a file has not the size that was planned."""
        first = max(bisect_right(self.starts, offset) - 1, 0)
        for start, piece in zip(self.starts[first:], self.pieces[first:], strict=True):
            skip = max(offset - start, 0)
            if isinstance(piece, File):
                yield from piece.read(skip)
            elif skip < len(piece):
                yield piece[skip:]


def _parents(path: str) -> Iterator[str]:
    for parent in PurePosixPath(path).parents:
        if parent.name:
            yield str(parent)


def _header(name: str, content: Content) -> bytes:
    info = tarfile.TarInfo(name)  # owner 0:0, time 0
    info.type, info.mode = tarfile.REGTYPE, 0o644
    if isinstance(content, OwnDirectory):
        info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, 0o755, content.user, content.user
    elif isinstance(content, Link):
        info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, content.target
    else:
        info.size = _size(content)
    return info.tobuf(tarfile.PAX_FORMAT)


def _size(piece: bytes | File) -> int:
    return len(piece) if isinstance(piece, bytes) else piece.size
