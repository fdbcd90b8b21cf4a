"""The files of a workspace in memory: mapped once for all parts that are made of them, the last few kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deploytk.base.errors import WeightsError

Bytes = npt.NDArray[np.uint8]


class MappedFiles:
    """Mapping costs a page fault for every 64 KiB that are looked at, each time; a part looks at most of its file."""

    def __init__(self, most: int) -> None:
        self._most = most  # that stay mapped when nothing uses them
        self._lock = threading.Lock()
        self._files: OrderedDict[Path, Bytes] = OrderedDict()  # the one that was used last comes last

    def get(self, path: Path, size: int) -> Bytes:
        """The file `path`; refuses it when its size is another one."""
        with self._lock:
            found = self._files.pop(path, None)
            if found is None or found.nbytes != size:
                found = _mapped(path, size)
            self._files[path] = found
            if len(self._files) > self._most:
                self._files.popitem(last=False)
        return found


def _mapped(path: Path, size: int) -> Bytes:
    found = path.stat().st_size if path.is_file() else 0
    if found != size:
        raise WeightsError(
            f"{path} has {found} bytes, {size} expected", hint="copy the file from the original workspace"
        )
    return np.memmap(path, np.uint8, "r").view(np.ndarray)
