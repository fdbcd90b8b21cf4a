"""The weight_map of a large index as columns of numpy arrays: compared with headers without a string for every name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from deploytk.artifact.header_columns import Numbers, Words, hashes_in, hashes_of, padded
from deploytk.artifact.header_scan import Scanned

_QUOTES = 4  # of an entry
_QUOTE = ord('"')
_MAP = re.compile(rb'"weight_map"\s*:\s*\{')
_MOST_FILES = 10_000


@dataclass(frozen=True, slots=True)
class IndexColumns:
    """Its entries; a row of each column is one of them."""

    names: Words  # hashes of the tensors' names
    places: Words  # hashes of the names of the files that they are in
    files: frozenset[str]

    def agree_with(self, scanned: Mapping[str, Scanned]) -> bool:
        """Whether the headers hold just these tensors, none of them twice."""
        if not scanned or any(header.hashes is None for header in scanned.values()):
            return False
        names = np.concatenate([header.hashes for header in scanned.values()])
        if len(names) != len(self.names):
            return False
        files = hashes_of([file.encode() for file in scanned])
        places = np.repeat(files, [header.count for header in scanned.values()])
        here, there = np.argsort(names), np.argsort(self.names)
        is_once = not np.any(names[here][1:] == names[here][:-1])
        are_same = np.array_equal(names[here], self.names[there])
        return bool(is_once and are_same and np.array_equal(places[here], self.places[there]))


def index_columns(content: bytes) -> IndexColumns | None:
    """The entries of an index as transformers writes it; None for any other form, also for a broken one."""
    start = _MAP.search(content)
    end = content.find(b"}", start.end()) if start else -1
    if start is None or end < 0 or b"\\" in content or not _is_plain(content[: start.end()] + content[end:]):
        return None
    text = padded(content[start.end() : end])
    quotes = np.flatnonzero(text == _QUOTE)
    if not len(quotes) or len(quotes) % _QUOTES:
        return None
    name, name_end, file, file_end = (np.ascontiguousarray(column) for column in quotes.reshape(-1, _QUOTES).T)
    between = [(name_end[:1], file[:1], rb"\s*:\s*"), (file_end[:1], name[1:2], rb"\s*,\s*")]
    ends = text[: name[0]], text[file_end[-1] + 1 : end - start.end()]
    if not _are_alike(text, name_end, file) or not _are_alike(text, file_end[:-1], name[1:]):
        return None
    separators = all(re.fullmatch(form, bytes(text[a[0] + 1 : b[0]])) for a, b, form in between if len(b))
    if not separators or any(bytes(one).strip(b" \t\r\n") for one in ends):
        return None
    places = hashes_in(text, file + 1, file_end)
    return IndexColumns(hashes_in(text, name + 1, name_end), places, _files(text, places, file + 1, file_end))


def _is_plain(rest: bytes) -> bool:
    """Whether what is around the entries is the one JSON object that has a weight_map."""
    try:
        found = json.loads(rest, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return False
    keys = [key for key, _ in found] if isinstance(found, list) else []
    return keys.count("weight_map") == 1 and len(set(keys)) == len(keys) and ("weight_map", []) in found


def _are_alike(text: np.ndarray[tuple[int], np.dtype[np.uint8]], after: Numbers, before: Numbers) -> bool:
    """Whether the same stands between `after` and `before` in every row."""
    lengths = before - after
    if not len(lengths):
        return True
    if np.any(lengths != lengths[0]):
        return False
    return all(bool(np.all(text[after + step] == text[after[0] + step])) for step in range(int(lengths[0])))


def _files(
    text: np.ndarray[tuple[int], np.dtype[np.uint8]], places: Words, start: Numbers, end: Numbers
) -> frozenset[str]:
    _, first = np.unique(places, return_index=True)
    names = [bytes(text[start[row] : end[row]]).decode("utf-8", "replace") for row in first[:_MOST_FILES].tolist()]
    return frozenset(names)
