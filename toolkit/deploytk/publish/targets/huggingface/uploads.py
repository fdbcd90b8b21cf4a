"""A file on its way to the hub, counted while it is sent."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from huggingface_hub import CommitOperationAdd

from deploytk.base.progress import Advance


def addition(path: str, source: Path, sha256: str | None, advance: Advance) -> Addition:
    """A file to commit; with its digest known the client does not read it once more.

    Raises OSError when it is not there; the client itself raises ValueError.
    """
    source.stat()
    made = Addition(path, str(source))
    made.advance = advance
    if sha256:
        made.upload_info.sha256 = bytes.fromhex(sha256)
    return made


class Addition(CommitOperationAdd):
    """Counts what is sent of it by LFS."""

    advance: Advance
    is_sent = False
    sent_bytes = 0  # those of attempts that failed are counted as well

    @contextmanager
    def as_file(self, with_tqdm: bool = False) -> Iterator[BinaryIO]:  # with_tqdm: it is read to be sent
        self.is_sent |= with_tqdm
        with _Counted(str(self.path_or_fileobj), self._count if with_tqdm else lambda _: None) as file:
            yield file

    def _count(self, size: int) -> None:
        self.sent_bytes += size
        self.advance(size)


class _Counted(io.FileIO):
    def __init__(self, path: str, advance: Advance) -> None:
        super().__init__(path)
        self._advance = advance

    def read(self, size: int | None = -1) -> bytes:
        block = super().read(-1 if size is None else size) or b""
        self._advance(len(block))
        return block
