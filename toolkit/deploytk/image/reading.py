"""The bytes of a blob as they are sent: all that have its digest, or not the last of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from deploytk.base.errors import ImageError
from deploytk.image.tar import AGAIN
from deploytk.image.value import Read

_CHUNK_BYTES = 2**20


def read_file(path: Path, offset: int) -> Iterator[bytes]:
    """The bytes of a file from `offset` on."""
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}", hint="check the file and its rights") from error


def read_checked(read: Read, digest: str, offset: int) -> Iterator[bytes]:
    """The bytes of a blob from `offset` on; one that does not have its digest is never handed out whole.

    Whoever gets a part must check the whole: every registry does.
    """
    if offset:
        yield from read(offset)
        return
    whole, held = hashlib.sha256(), b""
    for chunk in read(0):
        whole.update(chunk)
        if held:
            yield held
        held = chunk
    if f"sha256:{whole.hexdigest()}" != digest:
        raise ImageError("a file changed while it was sent: its layer's digest differs", hint=AGAIN)
    yield held
