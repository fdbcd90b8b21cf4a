"""Ctrl-C stops what a person waits for, at a moment at which that can be stopped."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class CtrlC(BaseException):
    """A person at the keyboard wants what happens now to stop."""


class Stoppable:
    """Inside of `with` Ctrl-C raises CtrlC, once; elsewhere it waits for the next `with`, which raises it.

    So nobody has to stand it in the middle of anything else, as of what is said about the Ctrl-C before.
    """

    def __init__(self) -> None:
        self._can_stop = False
        self._is_asked = False

    def __enter__(self) -> None:
        self._can_stop = True
        if self._is_asked:
            self._stop()

    def __exit__(self, *_: object) -> None:
        self._can_stop = False

    @contextmanager
    def at_keyboard(self) -> Iterator[None]:
        """Ctrl-C is taken as told above, and does not end the run."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _ask(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._is_asked = True
        if self._can_stop:
            self._stop()

    def _stop(self) -> None:
        self._can_stop = self._is_asked = False
        raise CtrlC
