"""Memory that a thread keeps from one array to the next: new pages cost as much as the work that is done in them."""

from __future__ import annotations

import threading
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt


class _Kept(threading.local):
    def __init__(self) -> None:
        self.memory: dict[str, npt.NDArray[np.uint8]] = {}


_kept = _Kept()


def scratch(use: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array with anything in it, good until this thread asks for the same `use` again."""
    size = prod(shape) * np.dtype(dtype).itemsize
    if use not in _kept.memory or _kept.memory[use].nbytes < size:
        _kept.memory.pop(use, None)  # the old one goes first
        _kept.memory[use] = np.empty(size, np.uint8)
    found: npt.NDArray[Any] = _kept.memory[use][:size].view(dtype).reshape(shape)
    return found
