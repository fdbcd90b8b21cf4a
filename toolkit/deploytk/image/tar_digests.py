"""The digests of tars that were read once, and forgotten when a file turns out to have changed since."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from deploytk.base.cache import cache_directory
from deploytk.base.errors import ImageError
from deploytk.base.files import write_text
from deploytk.image.reading import read_checked
from deploytk.image.tar import Tar


def _memory(recipe: str) -> Path:
    return cache_directory() / "layers" / recipe


def recall(recipe: str) -> str | None:
    """The SHA-256 of the tar of this recipe, in hexadecimal digits; None when it is not known."""
    with contextlib.suppress(OSError, ValueError):
        digest = _memory(recipe).read_text(encoding="ascii").strip()
        if len(bytes.fromhex(digest)) == 32:
            return digest
    return None


def remember(recipe: str, digest: str) -> None:
    """Only saves time: where it cannot be written, the layer is read again the next time."""
    with contextlib.suppress(OSError):
        _memory(recipe).parent.mkdir(parents=True, exist_ok=True)
        write_text(_memory(recipe), digest + "\n")


def read_hashed(tar: Tar, digest: str, offset: int) -> Iterator[bytes]:
    """The bytes of a tar from `offset` on; raises ImageError, and forgets its digest, when it does not have that."""
    try:
        yield from read_checked(tar.read, digest, offset)
    except ImageError:
        with contextlib.suppress(OSError):
            _memory(tar.recipe).unlink(missing_ok=True)  # the file may have changed while this was learnt
            tar.check()
        raise
