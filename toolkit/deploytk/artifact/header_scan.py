"""Counts the tensors of safetensors files from their headers; small headers by json, large ones as columns."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from deploytk.artifact.safetensors_header import broken, open_header, read_header
from deploytk.artifact.tensors import Tensors
from deploytk.base.errors import ArtifactError

if TYPE_CHECKING:
    from deploytk.artifact.header_columns import Columns
    from deploytk.artifact.header_groups import HeaderGroups

_SMALL_BYTES = 2**20  # what json reads in the time that it takes to load numpy
_PIECE_BYTES = 2**19  # what a processor's cache holds with the columns of it
_LONG_BYTES = 2**24
_THREADS = 2
_LARGEST_METADATA_BYTES = 2**22
_LARGEST_LISTED_BYTES = 2**24  # of a header whose names are kept: those of 100 000 tensors


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a header held."""

    count: int
    names: tuple[str, ...] | None  # None of a large header: `list_names` has them
    hashes: Any = None  # of the names of a large header, an array


def scan_headers(
    paths: Sequence[Path], tensors: Tensors, *, small_bytes: int = _SMALL_BYTES
) -> Iterator[Scanned | ArtifactError]:
    """Adds the tensors in `paths` to `tensors`, and gives for each what it holds, or what `read_header` would raise.

    Headers that together have up to `small_bytes` are left to json.
    """
    if sum(map(_header_bytes, paths)) <= small_bytes:
        yield from (_caught(_scan_small, path, tensors) for path in paths)
        return
    from deploytk.artifact.header_groups import HeaderGroups

    groups = HeaderGroups(tensors)
    for path in paths:
        yield _caught(_scan_large, path, groups)
    groups.finish()


def _header_bytes(path: Path) -> int:
    try:
        with open_header(path) as (_, length, _):
            return length
    except ArtifactError:
        return 0


def _caught(scan: Callable[[Path, Any], Scanned], path: Path, into: object) -> Scanned | ArtifactError:
    try:
        return scan(path, into)
    except ArtifactError as error:
        return error


def _scan_small(path: Path, tensors: Tensors) -> Scanned:
    header = read_header(path)
    for name, entry in header.items():
        tensors.add(name, entry.dtype, entry.shape)
    return Scanned(len(header), tuple(header))


def _scan_large(path: Path, groups: HeaderGroups) -> Scanned:
    with open_header(path) as (file, length, size):
        listing = groups.of_file(path)
        for piece, columns in _read_ahead(_pieces(path, file, length), is_long=length > _LONG_BYTES):
            listing.add(piece, columns)
        hashes = listing.check_order(8 + length, size)
        return Scanned(len(hashes), None, hashes)


def _read_ahead(pieces: Iterator[bytes], *, is_long: bool = False) -> Iterator[tuple[bytes, Columns | None]]:
    """Each piece with its columns; those of a long header are made by two threads, as numpy leaves the GIL alone."""
    from deploytk.artifact.header_columns import columns_of

    if not is_long:
        yield from ((piece, columns_of(piece)) for piece in pieces)
        return
    with ThreadPoolExecutor(_THREADS) as threads:
        waiting = deque((piece, threads.submit(columns_of, piece)) for piece in islice(pieces, _THREADS + 1))
        while waiting:
            piece, columns = waiting.popleft()
            yield piece, columns.result()
            waiting += [(piece, threads.submit(columns_of, piece)) for piece in islice(pieces, 1)]


def list_names(path: Path) -> tuple[str, ...] | None:
    """The names in a large header; None where there are too many to list."""
    from deploytk.artifact.header_groups import HeaderGroups

    with open_header(path) as (file, length, _):
        if length > _LARGEST_LISTED_BYTES:
            return None
        listing = HeaderGroups(Tensors(1)).of_file(path, is_listed=True)
        for piece, columns in _read_ahead(_pieces(path, file, length)):
            listing.add(piece, columns)
        return tuple(listing.names or ())


def _pieces(path: Path, file: IO[bytes], length: int) -> Iterator[bytes]:
    """The entries of the header, so many at a time; every piece ends with a comma."""
    left = length

    def more() -> bytes:
        nonlocal left
        found = file.read(min(_PIECE_BYTES, left))
        left = left - len(found) if found else 0
        return found

    text = _without_metadata(path, more)
    while left:
        cut = text.rfind(b"},") + 2
        if cut > 1:
            yield text[:cut]
            text = text[cut:].lstrip(b" \t\r\n")
        elif len(text) > _LARGEST_METADATA_BYTES:
            raise broken(path, "has a malformed header")
        text += more()
    text = text.rstrip(b" \t\r\n")
    if not text.endswith(b"}"):
        raise broken(path, "has a malformed header")
    yield text[:-1].rstrip(b" \t\r\n") + b","


def _without_metadata(path: Path, more: Callable[[], bytes]) -> bytes:
    """The beginning of the header without its bracket and what it says of itself."""
    text = more().lstrip(b" \t\r\n")
    if not text.startswith(b"{"):
        raise broken(path, "has a malformed header")
    text = text[1:].lstrip(b" \t\r\n")
    if not text.startswith(b'"__metadata__"'):
        return text
    while True:
        start = text.find(b"{")
        try:
            _, end = json.JSONDecoder().raw_decode(text[start:].decode("latin-1"))
        except (ValueError, RecursionError) as error:
            added = more() if len(text) < _LARGEST_METADATA_BYTES else b""
            if not added:
                raise broken(path, "has a malformed header") from error
            text += added
            continue
        rest = text[start + end :].lstrip(b" \t\r\n")
        return rest[1:].lstrip(b" \t\r\n") if rest.startswith(b",") else rest
