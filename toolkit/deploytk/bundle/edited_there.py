"""Cards that somebody edited where a release lies: what of it the bundle's own cards lack, and how they get it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from deploytk.base.errors import BundleError
from deploytk.base.files import disk_errors, write_text
from deploytk.base.progress import Progress
from deploytk.bundle.edited import settle_edits
from deploytk.bundle.hub_card import canonical, untold
from deploytk.bundle.read import read_bundle
from deploytk.bundle.value import CARDS, SIGNATURE, Bundle
from deploytk.bundle.words import merge_cards

_HEAD = re.compile(r"---\n(.*?\n)?---\n", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Edits:
    """What the cards of a bundle lack of those where it goes."""

    merged: Mapping[str, str]  # card of the bundle -> with what was made of it there
    foreign: tuple[str, ...]  # cards of others there: what they were made of is not known, nothing can be merged

    def __bool__(self) -> bool:
        return bool(self.merged or self.foreign)


def edits_there(bundle: Bundle, there: Mapping[str, str], generated: Mapping[str, str]) -> Edits:
    """What of the cards `there` the bundle lacks; `generated` is what deploytk wrote there, by its deploytk.json.

    Nothing is lacking where its own cards say it already, whoever put it into them.
    """
    base, mine = canonical(generated), canonical(there)
    merged, foreign = {}, []
    for name, own in _own_cards(bundle).items():
        if name in mine and name in base:
            with_theirs = untold(merge_cards(base[name], mine[name], own).text)
            if with_theirs != untold(own):
                merged[name] = with_theirs
        elif name in mine and _words(mine[name]) - _words(own, without_hashes=True):
            foreign.append(name)
    return Edits(merged, tuple(foreign))


def _own_cards(bundle: Bundle) -> dict[str, str]:
    """The cards of the bundle itself, not of the form that a hub is shown."""
    home = bundle.home or bundle.path
    return {name: (home / name).read_text(encoding="utf-8") for name in CARDS if (home / name).is_file()}


def _words(card: str, *, without_hashes: bool = False) -> set[str]:
    """The lines below its head; words that were kept as notes have their headings a step lower."""
    lines = {" ".join(line.split()) for line in _HEAD.sub("", untold(card), count=1).splitlines()} - {""}
    return lines | {line[1:] for line in lines if line.startswith("##")} if without_hashes else lines


def take_over(bundle: Bundle, merged: Mapping[str, str], progress: Progress, *, is_signed_anew: bool) -> Bundle:
    """`bundle` with these cards in place of its own, on disk; raises BundleError for one that is signed already."""
    if (bundle.path / SIGNATURE).is_file() and not is_signed_anew:
        hint = f"publish with --sign, or remove {SIGNATURE} from it"
        raise BundleError(f"{bundle.path} is signed, and would get other cards", hint=hint)
    with disk_errors(bundle.path, BundleError):
        for name, text in merged.items():
            write_text(bundle.path / name, text)
            progress.note(f"{bundle.path / name}: what was written into it there is in it")
    taken = settle_edits(read_bundle(bundle.path), progress, is_signed_anew=is_signed_anew)
    return replace(taken, home=bundle.home)
