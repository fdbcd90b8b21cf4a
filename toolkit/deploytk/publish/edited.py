"""A card that somebody edited on the hub's own page is not written over unasked; of other files it is told.

Whoever compares a repository sees that its card differs. It is ours to replace when it was sent from here, or when it
is what the deploytk.json there names and nobody has put words of his own into it. All else is somebody's words:
publishing ends before anything is sent, takes them into the bundle, or writes over them. The README.md that an app's
repository alone has is in no bundle: what was made of it is kept where it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from deploytk.base.errors import ReleaseError
from deploytk.bundle import EDITABLE, MANIFEST, Bundle, Edits, edits_there, merge_cards
from deploytk.publish.options import EditedCard, PublishOptions
from deploytk.publish.plan import Change
from deploytk.publish.record import sent_cards
from deploytk.publish.superseded import Named, named_in

README = "README.md"
_HEAD = re.compile(r"---\n(.*?\n)?---\n", re.DOTALL)
_OF_A_NEW_SPACE = "Check out the configuration reference at https://huggingface.co/docs/hub/spaces-config-reference"

Read = Callable[[str], "bytes | None"]
"""The content of a small file of a repository; None where there is none."""


class EditedError(ReleaseError):
    """Somebody edited a card where it lies."""

    def __init__(self, repo: str, bundle: Bundle, edited: Sequence[str], edits: Edits) -> None:
        self.repo, self.edits = repo, edits
        names = " and ".join(edited)
        if edits.foreign:
            what = f"{names} of {repo} has words of others"
            hint = "put them into the card (package --notes FILE), or write over them with --edited-card replace"
        else:
            what = f"{names} of {repo} was edited there"
            hint = f"--edited-card keep takes that into {bundle.home or bundle.path}, --edited-card replace drops it"
        super().__init__(f"{what}; nothing was sent", hint=hint)


def refuse_edited(repo: str, bundle: Bundle, changes: Sequence[Change], read: Read, options: PublishOptions) -> None:
    """Raises EditedError where these changes would write over words of somebody; what it must know for that is read."""
    suspects = [one.path for one in changes if one.status == "changed" and one.path in EDITABLE]
    if not suspects or options.edited_card == "replace":
        return
    there = {one.path: read(one.path) for one in changes if one.path in EDITABLE and one.status != "new"}
    manifest = read(MANIFEST) or b""
    generated = generated_in(manifest)
    edited = [path for path in suspects if not _is_ours(path, there[path], manifest, generated, bundle)]
    texts = _texts(there)
    if not all(path in texts for path in edited):  # what is no text can be merged with none
        raise EditedError(repo, bundle, edited, Edits({}, tuple(edited)))
    edits = edits_there(bundle, texts, generated) if edited else None
    if edits:
        raise EditedError(repo, bundle, edited, edits)


def mark_edited(
    changes: Sequence[Change], named: Named, facts: Callable[[str], tuple[int, str] | None]
) -> tuple[Change, ...]:
    """The changes, of which those are marked that write over what somebody made of a file which deploytk wrote.

    `named` is what the deploytk.json there names, `facts` the size and SHA-256 of a file that is there. Cards are not
    marked: `refuse_edited` is about them.
    """
    ours = {one.path for one in changes if one.status == "changed" and one.path in named and one.path not in EDITABLE}
    edited = {path for path in ours if facts(path) != named[path]}
    return tuple(replace(one, is_edited=True) if one.path in edited else one for one in changes)


def with_their_words(repo: str, made: str, read: Read, owned: Collection[str], choice: EditedCard) -> str:
    """The README.md of an app's repository, of which we have `made` another: with what people made of theirs.

    What was kept once stays, without being asked again. Keys of its head that are `owned` are ours. Raises
    ReleaseError for one that was edited since, when nobody has said what becomes of that.
    """
    content = read(README) if choice != "replace" else None
    if content is None or content == made.encode():
        return made
    theirs, manifest = _texts({README: content}).get(README), read(MANIFEST) or b""
    if theirs is None:
        hint = "save it there as UTF-8, or write over it with --edited-card replace"
        raise ReleaseError(f"{README} of {repo} is no text in UTF-8; nothing was sent", hint=hint)
    base, head = generated_in(manifest).get(README), _HEAD.match(made)
    theirs = theirs if _HEAD.match(theirs) or not head else f"{head[0]}\n{theirs}"
    merged = merge_cards(base or made, theirs, made, owned).text
    is_as_sent = named_in(manifest).get(README) == (len(content), hashlib.sha256(content).hexdigest())
    if choice == "keep" or merged == made or (base and is_as_sent):
        return merged
    if base is None and _is_of_nobody(theirs, made):
        return made
    raise edited_in_app(repo, [README])


def edited_in_app(repo: str, names: Sequence[str]) -> ReleaseError:
    """Somebody edited these in the app's repository, and nobody said what becomes of it."""
    hint = "--edited-card keep leaves that there, --edited-card replace drops it"
    return ReleaseError(f"{' and '.join(names)} of {repo} was edited there; nothing was sent", hint=hint)


def _is_of_nobody(theirs: str, made: str) -> bool:
    """Whether it has no words: the hub made it with the repository, or an earlier deploytk."""
    words = {line.strip() for line in _HEAD.sub("", theirs, count=1).splitlines()} - {"", _OF_A_NEW_SPACE}
    return words <= {line.strip() for line in made.splitlines()}


def _is_ours(path: str, content: bytes | None, manifest: bytes, generated: Mapping[str, str], bundle: Bundle) -> bool:
    """Whether nobody's words would go with the card that lies there; one that is gone has none."""
    if content is None:
        return True
    digest = hashlib.sha256(content).hexdigest()
    is_named = named_in(manifest).get(path) == (len(content), digest)
    is_generated = content.decode("utf-8", "replace") == generated.get(path)
    return (is_named and is_generated) or digest in sent_cards(bundle)


def _texts(contents: Mapping[str, bytes | None]) -> dict[str, str]:
    """Those that are texts in UTF-8."""
    found = {}
    for path, content in contents.items():
        with contextlib.suppress(UnicodeDecodeError):
            found[path] = (content or b"").decode("utf-8-sig").replace("\r\n", "\n")
    return {path: text for path, text in found.items() if contents[path] is not None}


def generated_in(manifest: bytes) -> dict[str, str]:
    """What deploytk wrote into the cards, as a deploytk.json tells it; nothing when it is none."""
    try:
        texts = json.loads(manifest)["card"]["generated"]
        return {name: text for name, text in texts.items() if isinstance(text, str)}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}
