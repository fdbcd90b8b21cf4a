"""The pickles in a file as torch.save writes it, each followed by the machine.

Both forms: a zip whose data.pkl is stored as it is (from PyTorch 1.6 on), and a row of pickles (before).
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from io import BytesIO
from typing import IO

from deploytk.artifact.pickle_machine import MALFORMED, Followed, UnreadableError, follow

ZIP = b"PK\x03\x04"

_LARGEST_PICKLE_BYTES = 16 * 2**20  # that of a model of 3000 tensors has 400 KiB
_LARGEST_DIRECTORY_BYTES = 64 * 2**20
_MOST_PICKLES = 1000
_MAGIC = 0x1950A86A20F9469CFC6C  # what torch.save began with before it wrote zips
_BEFORE = 3  # of that form: magic number, protocol, system; then the tensors and the names of their numbers

# What torch.save puts into a zip; torch.load reads data.pkl as a pickle, and data/N as numbers.
_MEMBER = re.compile(
    r"(?P<root>[^/]+)/"
    r"(data\.pkl|data/\d+|version|byteorder|\.data/serialization_id|\.format_version|\.storage_alignment)"
)


@dataclass(frozen=True, slots=True)
class Pickles:
    """The pickles of a file in their order, and the one with the tensors among them."""

    followed: tuple[Followed, ...]
    tensors: Followed


def pickles_in(file: IO[bytes]) -> Pickles:
    """What torch.load would unpickle of `file`; UnreadableError where that cannot be told for certain."""
    start = file.read(len(ZIP))
    file.seek(0)
    if start == ZIP:
        found = follow(BytesIO(_stored_pickle(file)))
        return Pickles((found,), found)
    return _row(file)


def _row(file: IO[bytes]) -> Pickles:
    """Pickles one after another: PyTorch's five with numbers behind them, or any with nothing behind them."""
    followed = [follow(file)]
    is_torch = followed[0].value == _MAGIC
    if is_torch:
        followed += [follow(file) for _ in range(_BEFORE + 1)]
        return Pickles(tuple(followed), followed[_BEFORE])
    size = _size(file)
    while followed[-1].is_whole and file.tell() < size:
        if len(followed) > _MOST_PICKLES:
            raise UnreadableError("it has more than 1000 pickles")
        followed.append(follow(file))
    return Pickles(tuple(followed), followed[0])


def _size(file: IO[bytes]) -> int:
    here = file.tell()
    size = file.seek(0, 2)
    file.seek(here)
    return size


def _stored_pickle(file: IO[bytes]) -> bytes:
    """data.pkl of the zip; it and all beside it must be stored as torch.save does, or readers may disagree."""
    try:
        _check_directory(file)
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            matches = [_MEMBER.fullmatch(member.filename) for member in members]
            strange = [member.filename for member, match in zip(members, matches, strict=True) if not match]
            if strange:
                raise UnreadableError(f"it is a zip with {strange[0][:80]!r} in it, which torch.save does not write")
            if len({match["root"] for match in matches if match}) > 1:
                raise UnreadableError("it is a zip of several models")
            if any(member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 for member in members):
                raise UnreadableError("it is a zip whose files are not stored as they are")
            inside = [member for member in members if member.filename.endswith("/data.pkl")]
            if len(inside) != 1:
                raise UnreadableError("it has not one data.pkl")
            if inside[0].file_size > _LARGEST_PICKLE_BYTES:
                raise UnreadableError("its data.pkl is too large")
            return archive.read(inside[0])
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, *MALFORMED) as error:
        raise UnreadableError(" ".join(str(error).split())[:120] or type(error).__name__) from error


def _check_directory(file: IO[bytes]) -> None:
    """That the directory is the only one that any reader finds: at the end, and where the end says that it is."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 42))
    tail = file.read()
    end = tail[-22:]
    if not end.startswith(b"PK\x05\x06"):
        raise UnreadableError("the end of the zip is missing")
    directory_bytes, offset, place = _number(end[12:16]), _number(end[16:20]), size - 22
    if tail[:-22].startswith(b"PK\x06\x07"):  # of a zip beyond 4 GiB, and of all that PyTorch writes
        place = _number(tail[8:16])
        file.seek(place)
        large = file.read(56)
        if not large.startswith(b"PK\x06\x06") or place + 56 != size - 42:
            raise UnreadableError("the end of the zip is not where it says")
        directory_bytes, offset = _number(large[40:48]), _number(large[48:56])
    if directory_bytes > _LARGEST_DIRECTORY_BYTES:
        raise UnreadableError("its directory is too large")
    if offset + directory_bytes != place:
        raise UnreadableError("the directory of the zip is not where it says")
    file.seek(0)


def _number(little: bytes) -> int:
    return int.from_bytes(little, "little")
