"""What people wrote into a card stays in it: three texts of a file -> one, line by line."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

_FRONT = re.compile(r"---\n(.*?\n)---\n", re.DOTALL)
_KEY = re.compile(r"[^\s#-][^:\n]*:")


@dataclass(frozen=True, slots=True)
class Merged:
    """A text with the changes of two others to a common one."""

    text: str
    instead: tuple[str, ...]  # what `mine` has where `new` has changed the same place: mine stands


def merge_cards(base: str, mine: str, new: str, owned: Collection[str] = ()) -> Merged:
    """The card `new` with all that its owner has made of `base` in `mine`.

    `base` and `new` are generated. The head is merged by its keys, the rest by its lines; where both have changed the
    same place the owner's words stand, but for the keys `owned`, which are as `new` has them.
    """
    if mine in (base, new):
        return Merged(new, ())
    heads = [_FRONT.match(text) for text in (base, mine, new)]
    if not all(heads):
        return _lines(base, mine, new)
    before, theirs, made = (_blocks(head[1]) for head in heads if head)
    front = _keys(before, theirs, made, owned={f"{key}:" for key in owned})
    rest = _lines(*(text[head.end() :] for text, head in zip((base, mine, new), heads, strict=True) if head))
    return Merged(f"---\n{front.text}---\n{rest.text}", front.instead + rest.instead)


def _blocks(front: str) -> dict[str, str]:
    """Key -> the lines of it, of YAML that is a mapping; what comes before the first key is under ""."""
    found: dict[str, str] = {}
    key = ""
    for line in front.splitlines(keepends=True):
        start = _KEY.match(line)
        key = start[0] if start else key
        found[key] = found.get(key, "") + line
    return found


def _keys(base: dict[str, str], mine: dict[str, str], new: dict[str, str], *, owned: Collection[str]) -> Merged:
    taken, instead = [], []
    for key, text in mine.items():
        if text == base.get(key) or key in owned:
            taken.append(new.get(key, ""))
            continue
        taken.append(text)
        if new.get(key, text) not in (base.get(key), text):
            instead.append(text.strip())
    added = [text for key, text in new.items() if key not in mine and (key not in base or key in owned)]
    return Merged("".join([*taken, *added]), tuple(instead))


def _lines(base: str, mine: str, new: str) -> Merged:
    texts = [text.splitlines(keepends=True) for text in (base, mine, new)]
    taken: list[str] = []
    instead: list[str] = []
    for before, own, made in _regions(*texts):
        chosen = _chosen(before, own, made)
        if chosen is None:
            instead.append("".join(own or before).strip())
        taken += own if chosen is None else chosen
    return Merged("".join(taken), tuple(instead))


def _chosen(before: list[str], own: list[str], made: list[str]) -> list[str] | None:
    """What becomes of one place; None where both have made something else of it."""
    if own == before:
        return made
    if made in (before, own):
        return own
    if own[: len(before)] == before:  # something was written below it
        return made + own[len(before) :]
    if own[len(own) - len(before) :] == before:  # or above it
        return own[: len(own) - len(before)] + made
    return None


def _regions(base: list[str], mine: list[str], new: list[str]) -> Iterator[tuple[list[str], list[str], list[str]]]:
    """The three texts in pieces that belong together: by turns of lines that all have, and of lines that differ."""
    at_base = at_mine = at_new = 0
    for start, in_mine, in_new, size in _common(base, mine, new):
        yield base[at_base:start], mine[at_mine:in_mine], new[at_new:in_new]
        at_base, at_mine, at_new = start + size, in_mine + size, in_new + size
        yield base[start:at_base], mine[in_mine:at_mine], new[in_new:at_new]


def _common(base: Sequence[str], mine: Sequence[str], new: Sequence[str]) -> Iterator[tuple[int, int, int, int]]:
    """Runs of lines that all three have: where each has them, and how many; an empty one at the end."""
    ours, theirs = (SequenceMatcher(None, base, text, autojunk=False).get_matching_blocks() for text in (mine, new))
    for own in ours:
        for made in theirs:
            start, end = max(own.a, made.a), min(own.a + own.size, made.a + made.size)
            if start < end:
                yield start, own.b + start - own.a, made.b + start - made.a, end - start
    yield len(base), len(mine), len(new), 0
