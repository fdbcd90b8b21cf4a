"""Writes down which lines of the package run in a process that a test starts, and which test that is.

Each line is written as it first runs: the app of a test ends by kill -9, and would not come to write anything later.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_Tracer = Callable[[FrameType, str, Any], Any]


class Recorder:
    """Lines in a file of this process, which begins with the test that is under way."""

    def __init__(self, directory: str, test: str) -> None:
        self._file = os.open(f"{directory}/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._modules: dict[str, str] = {}  # by the path of the file
        self._seen: set[tuple[str, int]] = set()
        os.write(self._file, f"= {test}\n".encode())

    def start(self) -> None:
        threading.settrace(self._call)
        sys.settrace(self._call)

    def _call(self, frame: FrameType, _event: str, _value: object) -> _Tracer | None:
        path = frame.f_code.co_filename
        module = self._modules.get(path)
        if module is None:
            module = self._modules[path] = _module_of(path)
        if not module:
            return None
        self._see(module, frame.f_lineno)
        return self._line

    def _line(self, frame: FrameType, _event: str, _value: object) -> _Tracer:
        self._see(self._modules[frame.f_code.co_filename], frame.f_lineno)
        return self._line

    def _see(self, module: str, line: int) -> None:
        if (module, line) not in self._seen:
            self._seen.add((module, line))
            os.write(self._file, f"{line} {module}\n".encode())


def _module_of(path: str) -> str:
    """Its path below the package, "" for what is none of ours; a bundle's copy of the app counts as the app."""
    _, app, name = path.rpartition("/deploytk_app/")
    if app:
        return f"app/{name}"
    return path.rpartition("/toolkit/deploytk/")[2] if "/toolkit/deploytk/" in path else ""


if os.environ.get("MUTANTS_SEEN"):
    Recorder(os.environ["MUTANTS_SEEN"], os.environ.get("PYTEST_CURRENT_TEST", "")).start()
