"""Reads the steps out of what BuildKit reports: protobuf messages that the daemon passes on.

    StatusResponse { repeated Vertex vertexes = 1; ... }
    Vertex { string name = 3; Timestamp started = 5; Timestamp completed = 6; ... }

Source: moby/buildkit, api/services/control/control.proto.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator

_VERTEXES, _NAME, _STARTED, _COMPLETED = 1, 3, 5, 6
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def steps_in_trace(text: str) -> Iterator[str]:
    """The names of the steps that have just begun, in `text`, which is base64; nothing for what cannot be read."""
    try:
        for number, value in _fields(base64.b64decode(text)):
            if number == _VERTEXES:
                vertex = dict(_fields(value))
                if _STARTED in vertex and _COMPLETED not in vertex:
                    yield vertex.get(_NAME, b"").decode("utf-8", "replace")
    except (ValueError, IndexError, binascii.Error):
        return


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, content) of the fields that hold bytes; others are skipped."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            _, at = _varint(message, at)
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        elif wire == _BYTES:
            size, at = _varint(message, at)
            yield number, message[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {wire}")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
