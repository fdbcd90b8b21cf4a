"""What a program file says that it needs: an interpreter, shared libraries, a kind of machine."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_LONGEST_NAME = 4096
_LOADED, _DYNAMIC, _INTERPRETER = 1, 2, 3  # of program headers
_NEEDED, _STRINGS = 1, 5  # of entries of the dynamic section

# By e_machine, word size and byte order, as Docker calls it.
_MACHINES = {
    (62, 2, 1): "amd64",
    (183, 2, 1): "arm64",
    (3, 1, 1): "386",
    (40, 1, 1): "arm",
    (243, 2, 1): "riscv64",
    (21, 2, 1): "ppc64le",
    (22, 2, 2): "s390x",
    (258, 2, 1): "loong64",
}


@dataclass(frozen=True, slots=True)
class Program:
    """An ELF file, or a script, which has neither machine nor libraries."""

    machine: str | None = None  # amd64, arm64, ...
    interpreter: tuple[str, ...] = ()  # what the kernel starts with it: a path, for a script with its argument
    libraries: tuple[str, ...] = ()  # libc.so.6, ...


def read_program(content: bytes) -> Program | None:
    """What these bytes of a file need to run; None when Linux starts nothing of the kind."""
    if content.startswith(b"#!"):
        line = content[2:256].split(b"\n")[0].decode(errors="replace").strip()
        return Program(interpreter=tuple(line.split(None, 1))) if line.startswith("/") else None
    if not content.startswith(b"\x7fELF"):
        return None
    try:
        return _read_elf(content)
    except (struct.error, IndexError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int


def _read_elf(content: bytes) -> Program:
    size, order = content[4], content[5]
    is_long, sign = size == 2, "<" if order == 1 else ">"
    machine = struct.unpack_from(f"{sign}H", content, 18)[0]
    segments = list(_segments(content, sign, is_long=is_long))
    interpreter = next((_text(content, one.offset) for one in segments if one.kind == _INTERPRETER), None)
    dynamic = next((one for one in segments if one.kind == _DYNAMIC), None)
    libraries = tuple(_libraries(content, sign, dynamic, segments, is_long=is_long)) if dynamic else ()
    name = _MACHINES.get((machine, size, order), f"machine {machine}")
    return Program(name, (interpreter,) if interpreter else (), libraries)


def _segments(content: bytes, sign: str, *, is_long: bool) -> Iterator[_Segment]:
    start = struct.unpack_from(f"{sign}Q" if is_long else f"{sign}I", content, 32 if is_long else 28)[0]
    each, count = struct.unpack_from(f"{sign}HH", content, 54 if is_long else 42)
    for number in range(count):
        at = start + number * each
        if is_long:
            kind, _, offset, address, _, size = struct.unpack_from(f"{sign}IIQQQQ", content, at)
        else:
            kind, offset, address, _, size = struct.unpack_from(f"{sign}IIIII", content, at)
        yield _Segment(kind, offset, address, size)


def _libraries(
    content: bytes, sign: str, dynamic: _Segment, segments: list[_Segment], *, is_long: bool
) -> Iterator[str]:
    entry = struct.Struct(f"{sign}qQ" if is_long else f"{sign}iI")
    section = content[dynamic.offset : dynamic.offset + dynamic.size]
    entries = list(entry.iter_unpack(section[: len(section) // entry.size * entry.size]))
    address = next((value for tag, value in entries if tag == _STRINGS), None)
    if address is None:
        return
    holders = [s for s in segments if s.kind == _LOADED and s.address <= address < s.address + s.size]
    holder = holders[0]
    strings = holder.offset + address - holder.address
    for tag, value in entries:
        if tag == 0:
            return
        if tag == _NEEDED:
            yield _text(content, strings + value)


def _text(content: bytes, at: int) -> str:
    return content[at : content.index(b"\0", at, at + _LONGEST_NAME)].decode(errors="replace")
