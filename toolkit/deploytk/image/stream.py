"""Chunks of bytes as files that are read once, and layers as the tars that they are under their compression."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from typing import IO, Any, cast

from deploytk.base.errors import ImageError

_CHUNK_BYTES = 2**20
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"  # how their files begin


def unpacked(source: IO[bytes]) -> IO[bytes]:
    """The tar that a layer is, whatever it is compressed by; raises ImageError for zstd."""
    start = source.read(len(_ZSTD))
    whole = cast(IO[bytes], io.BufferedReader(_Joined(start, source), _CHUNK_BYTES))
    if start == _ZSTD:
        hint = "name the base by its registry (--base oci:DIR after skopeo copy), or pull it compressed by gzip"
        raise ImageError("a layer of the base is compressed by zstd, which is not read here", hint=hint)
    return cast(IO[bytes], gzip.GzipFile(fileobj=whole)) if start.startswith(_GZIP) else whole


class _Joined(io.RawIOBase):
    """A file whose first bytes were read already."""

    def __init__(self, start: bytes, rest: IO[bytes]) -> None:
        self._start, self._rest = start, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._start[: len(buffer)] or self._rest.read(len(buffer))
        self._start = self._start[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


class Stream(io.RawIOBase):
    """Chunks of bytes as a file that can be read once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts, wanted = [self._rest], size
        length = len(self._rest)
        while length < wanted or wanted < 0:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            parts.append(chunk)
            length += len(chunk)
        data = b"".join(parts)
        if wanted < 0:
            wanted = len(data)
        self._rest = data[wanted:]
        return data[:wanted]
