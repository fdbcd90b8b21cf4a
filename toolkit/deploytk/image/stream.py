"""Chunks of bytes as files that are read once, and layers as the tars that they are under their compression."""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import io
from collections.abc import Iterator
from typing import IO, Any, cast

from deploytk.base.errors import ImageError

_CHUNK_BYTES = 2**20
_LARGEST_WINDOW_BYTES = 2**27  # of memory that a compressed file may ask for; what `zstd` itself takes
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"  # how their files begin


def unpacked(source: IO[bytes]) -> IO[bytes]:
    """The tar that a layer is, whatever it is compressed by; raises ImageError for zstd where nothing here reads it."""
    start = source.read(len(_ZSTD))
    whole = cast(IO[bytes], io.BufferedReader(_Joined(start, source), _CHUNK_BYTES))
    if start == _ZSTD:
        return cast(IO[bytes], io.BufferedReader(_Zstd(whole), _CHUNK_BYTES))
    return cast(IO[bytes], gzip.GzipFile(fileobj=whole)) if start.startswith(_GZIP) else whole


class _Zstd(io.RawIOBase):
    """What a file is that zstd compressed; raises ImageError for a damaged one, or one that wants too much memory."""

    def __init__(self, source: IO[bytes]) -> None:
        self._whole, self._error = _zstd_reader(source)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data: bytes = self._whole.read(len(buffer))
        except (EOFError, self._error) as error:
            raise ImageError(
                f"a layer that zstd compressed is damaged: {error}", hint="pull the image again"
            ) from error
        buffer[: len(data)] = data
        return len(data)


def _zstd_reader(source: IO[bytes]) -> tuple[Any, type[Exception]]:
    """A file to read from, and what it raises: of Python 3.14 or later, else of the package zstandard."""
    if importlib.util.find_spec("compression"):
        own = importlib.import_module("compression.zstd")
        limits = {own.DecompressionParameter.window_log_max: _LARGEST_WINDOW_BYTES.bit_length() - 1}
        return own.ZstdFile(source, options=limits), own.ZstdError
    try:
        package = importlib.import_module("zstandard")
    except ImportError as error:
        hint = "pip install 'deploytk[zstd]', or take an image that gzip compressed"
        raise ImageError("a layer of the base is compressed by zstd, which nothing here reads", hint=hint) from error
    unpacker = package.ZstdDecompressor(max_window_size=_LARGEST_WINDOW_BYTES)
    return unpacker.stream_reader(source, read_across_frames=True), package.ZstdError


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
