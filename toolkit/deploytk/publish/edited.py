"""A card that somebody edited on the hub's own page is not written over unasked.

Whoever compares a repository sees that its card differs. It is ours to replace when it was sent from here, or when it
is what the deploytk.json there names and nobody has put words of his own into it. All else is somebody's words:
publishing ends before anything is sent, takes them into the bundle, or writes over them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence

from deploytk.base.errors import ReleaseError
from deploytk.bundle import EDITABLE, MANIFEST, Bundle, Edits, edits_there
from deploytk.publish.options import PublishOptions
from deploytk.publish.plan import Change
from deploytk.publish.record import sent_cards
from deploytk.publish.superseded import named_in

Read = Callable[[str], "bytes | None"]
"""The content of a small file of a repository; None where there is none."""


class EditedError(ReleaseError):
    """Somebody edited a card where it lies."""

    def __init__(self, repo: str, bundle: Bundle, edited: Sequence[str], edits: Edits) -> None:
        self.edits = edits
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
