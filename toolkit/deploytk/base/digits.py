"""Reads a whole number out of somebody else's text: a header, a file, a line of a log."""

from __future__ import annotations

import re

_WHOLE = re.compile(r"[0-9]{1,18}")


def whole_number(text: object) -> int | None:
    """The number that `text` is, in digits of ASCII; None for anything else, and for more digits than a count has.

    `str.isdigit` takes "\u00b2", which `int` does not, and `int` takes no more than some thousand digits.
    """
    return int(text) if isinstance(text, str) and _WHOLE.fullmatch(text) else None
