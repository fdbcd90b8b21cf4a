"""The connections to the engine that are open, when it last sent anything, and how long it may be silent."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import AsyncIterator  # noqa: UP035 (Python 3.8 in old images)

from .spare import Connection, Spare, connected

# What even a slow GPU does with a full batch; below that an engine that works would be taken for one that hangs.
SLOWEST_PREFILL_BYTES_PER_S = 2000.0
SLOWEST_TOKENS_PER_S = 5.0


@dataclass(frozen=True)
class Work:
    """What a request asks of the engine before its first byte comes back."""

    prompt_bytes: int = 0
    silent_tokens: int = 0  # of an answer that comes whole; 0 for a stream


class Traffic:
    def __init__(self) -> None:
        self._open: dict[asyncio.StreamWriter, Work] = {}
        self._spare = Spare()
        self.last_sign_s = time.monotonic()

    @contextlib.asynccontextmanager
    async def connect(self, port: int, work: Work) -> AsyncIterator[Connection]:
        """A connection to the engine; raises OSError when there is none."""
        reader, writer = self._spare.take(port) or await connected(port)
        if not self._open:
            self.note_sign()  # nobody waited before: silence begins now
        self._open[writer] = work
        try:
            yield reader, writer
        finally:
            del self._open[writer]
            writer.transport.abort()
            self.prepare(port)

    def prepare(self, port: int) -> None:
        """Have a connection ready for the next request."""
        self._spare.prepare(port)

    def end_spare(self) -> None:
        self._spare.drop()

    def note_sign(self) -> None:
        """The engine has sent something."""
        self.last_sign_s = time.monotonic()

    @property
    def silent_s(self) -> float:
        return time.monotonic() - self.last_sign_s

    @property
    def is_open(self) -> bool:
        return bool(self._open)

    @property
    def allowance_s(self) -> float:
        """How long an engine that works may be silent with all that is asked of it."""
        prompts = sum(work.prompt_bytes for work in self._open.values()) / SLOWEST_PREFILL_BYTES_PER_S
        return prompts + max((work.silent_tokens for work in self._open.values()), default=0) / SLOWEST_TOKENS_PER_S

    def abort(self) -> None:
        """End all connections: whoever waits learns that the engine is lost."""
        self._spare.drop()
        for writer in list(self._open):
            writer.transport.abort()
