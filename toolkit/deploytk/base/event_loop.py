"""Runs coroutines for commands, and ends them when the command is to end.

A KeyboardInterrupt that is raised while an event loop runs comes up in whatever the loop does just then: tasks keep it,
say so in tracebacks, or lose it, and the command goes on. So a signal cancels what runs, and is raised afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio  # 25 ms, which every command would pay: `interrupt` needs none of it

_CANCELLED_AGAIN_AFTER_S = 1.0  # as long as what is cancelled may clean up

_T = TypeVar("_T")


class _Running:
    """What the main thread runs in a loop; signal handlers, which run in that thread too, end it."""

    def __init__(self) -> None:
        self.is_interrupted = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None

    async def main(self, work: Coroutine[Any, Any, _T]) -> _T:
        import asyncio

        self._task, self._loop = asyncio.current_task(), asyncio.get_running_loop()
        if self.is_interrupted:
            work.close()
            raise asyncio.CancelledError
        return await work

    def interrupt(self) -> None:
        self.is_interrupted = True
        if self._loop:
            with suppress(RuntimeError):  # it is closed: there is nothing left to cancel, and `run` is about to see
                self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        """Until it ends: a library may take a cancellation for something else."""
        if self._loop and self._task:
            self._task.cancel()
            self._loop.call_later(_CANCELLED_AGAIN_AFTER_S, self._cancel)


_running: _Running | None = None


def run(work: Coroutine[Any, Any, _T], *, is_timed: bool = False) -> _T:
    """What `work` gives; in a thread of its own where this one runs an event loop already, as in a notebook.

    What `is_timed` runs on uvloop where that is installed: it takes less processor time for each read.
    Raises KeyboardInterrupt, when all of it has ended, after `interrupt` was called meanwhile.
    """
    global _running
    start = _start_timed if is_timed else _start
    if threading.current_thread() is not threading.main_thread():
        return start(work)
    if _is_looping():
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(start, work).result()
    running = _running = _Running()
    try:
        found = start(running.main(work))
    except BaseException:
        if running.is_interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        _running = None
    if running.is_interrupted:
        raise KeyboardInterrupt
    return found


def interrupt() -> None:
    """For signal handlers: raises KeyboardInterrupt, or has `run` raise it when what it runs has ended."""
    if _running is None:
        raise KeyboardInterrupt
    _running.interrupt()


def _start(work: Coroutine[Any, Any, _T]) -> _T:
    import asyncio

    return asyncio.run(work)


def _start_timed(work: Coroutine[Any, Any, _T]) -> _T:
    try:
        import uvloop
    except ImportError:
        return _start(work)
    found: _T = uvloop.run(work)
    return found


def _is_looping() -> bool:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
