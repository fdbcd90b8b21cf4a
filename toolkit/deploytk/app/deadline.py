"""Ends what takes too long, in the task that does it.

Up to Python 3.11 `asyncio.wait_for` starts another task for that, and loses a cancellation that comes just when what it
waits for is done: https://github.com/python/cpython/issues/86296.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadline:
    """`with Deadline(seconds):` raises asyncio.TimeoutError where the block waits when the time is over."""

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._is_over = False

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._timer = asyncio.get_event_loop().call_later(self._within_s, self._end)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if not self._is_over:
            return
        others = self._take_back()
        if kind is asyncio.CancelledError and not others:
            raise asyncio.TimeoutError from error

    def _end(self) -> None:
        self._is_over = True
        if self._task:
            self._task.cancel()

    def _take_back(self) -> int:
        """How many others have cancelled the task; before Python 3.11 nobody knows."""
        uncancel = getattr(self._task, "uncancel", None)
        return int(uncancel()) if uncancel else 0
