"""Reads samples of what was sent back: a server's word that it has something is no proof of what it has.

Small content is read whole; of large content the first and last bytes and some in between, elsewhere each time; where
there is much of it, the last bytes and some others. What was once found right at a place is remembered, and not read
again.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Callable, Iterable
from pathlib import Path

from deploytk.base.cache import cache_directory

SPAN_BYTES = 2**16
SPANS = 4  # of one content
WHOLE_BYTES = SPANS * SPAN_BYTES  # of content that is read whole
_LONGEST_MEMORY = 100_000  # contents at one place

Fetch = Callable[[int, int], bytes]
"""The bytes from the first to before the second position; fewer, or others, when the server has it otherwise."""


class NoRangesError(Exception):
    """The server hands out a content as a whole only: to be sure of it, all of it must be read."""


def spans(size: int, most: int = SPANS) -> tuple[tuple[int, int], ...]:
    """Which bytes of a content of that size are compared, as (start, end): the last of a large one always."""
    if size <= WHOLE_BYTES:
        return ((0, size),)
    middles = [random.randrange(SPAN_BYTES, size - 2 * SPAN_BYTES) for _ in range(SPANS - 2)]  # noqa: S311
    starts = (*sorted(random.sample((0, *middles), most - 1)), size - SPAN_BYTES)
    return tuple((start, start + SPAN_BYTES) for start in starts)


def is_same(size: int, sent: Fetch, there: Fetch, most: int = SPANS) -> bool:
    """Whether samples of what was sent and of what is there, so many at most, are the same bytes."""
    return all(there(start, end) == sent(start, end) for start, end in spans(size, most))


def file_bytes(path: Path) -> Fetch:
    """Reads a file."""

    def fetch(start: int, end: int) -> bytes:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(end - start)

    return fetch


class Remembered:
    """The contents, by SHA-256, that were read back at one place. It only saves time."""

    def __init__(self, place: str) -> None:
        self._path = cache_directory() / "read-back" / hashlib.sha256(place.encode()).hexdigest()

    def load(self) -> set[str]:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return set(self._path.read_text(encoding="ascii").split())
        return set()

    def add(self, digests: Iterable[str]) -> None:
        known = self.load()
        new = sorted(set(digests) - known)
        if not new:
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            mode = "a" if len(known) < _LONGEST_MEMORY else "w"
            with self._path.open(mode, encoding="ascii") as file:
                file.write("".join(f"{digest}\n" for digest in new))
