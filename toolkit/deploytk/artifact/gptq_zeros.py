"""What the stored zero points of GPTQ weights mean, which newer quantizers no longer say in config.json."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

_SEARCHED_BYTES = 2**20  # of a header: the first layer is there
_ENTRY = re.compile(rb'"[^"]+\.qzeros"\s*:\s*(\{[^{}]*\})')
# Symmetric weights have the zero point 8 in all eight values of a word. Version 1 of the format stores 7.
_WORDS: dict[bytes, Literal["v1", "v2"]] = {b"\x77\x77\x77\x77": "v1", b"\x88\x88\x88\x88": "v2"}


def stored_zeros(paths: Iterable[Path]) -> Literal["v1", "v2"] | None:
    """The version that the first zero points in safetensors files tell; None where there are none, or others than 8."""
    for path in paths:
        try:
            word = _first_word(path)
        except (OSError, ValueError, KeyError, TypeError, IndexError):  # read_shards says what is wrong with the file
            continue
        if word:
            return _WORDS.get(word)
    return None


def _first_word(path: Path) -> bytes | None:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        found = _ENTRY.search(file.read(min(length, _SEARCHED_BYTES)))
        if found is None:
            return None
        entry = json.loads(found[1])
        begin = int(entry["data_offsets"][0])
        if entry["dtype"] != "I32" or begin < 0:
            return None
        file.seek(8 + length + begin)
        return file.read(4)
