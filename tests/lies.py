"""What a lying hub hands out for a file instead of it."""

from __future__ import annotations

from collections.abc import Callable

LIES: dict[str, Callable[[bytes], bytes]] = {
    "other bytes": lambda content: bytes(len(content)),
    "cut off": lambda content: content[:-1],
    "an error page": lambda _: b"<html>all is well</html>",
    "nothing": lambda _: b"",
    "the end damaged": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "the start damaged": lambda content: bytes([content[0] ^ 1]) + content[1:],
}
