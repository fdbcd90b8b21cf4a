"""A card that its owner has edited: kept when it is written again, taken over when it is published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from deploytk.artifact import Artifact
from deploytk.base.errors import BundleError
from deploytk.base.files import disk_errors, read_bounded, write_text
from deploytk.base.progress import Progress
from deploytk.bundle.hub_card import canonical
from deploytk.bundle.manifest import to_text
from deploytk.bundle.own_card import own_words
from deploytk.bundle.read import LARGEST_CARD_BYTES, is_bundle, manifest_at
from deploytk.bundle.value import CARDS, EDITABLE, MANIFEST, SIGNATURE, Bundle, BundleOptions, Manifest
from deploytk.bundle.words import merge_cards

_LONGEST_QUOTE = 60


def earlier_bundle(out: Path, artifact: Artifact) -> Path | None:
    """The bundle whose words are kept: the one that is replaced, or the one that is packaged again."""
    return next((place for place in (out, artifact.root) if is_bundle(place)), None)


def with_earlier_words(artifact: Artifact, options: BundleOptions, out: Path, progress: Progress) -> BundleOptions:
    """`options` with the notes that are there already, where none are given: an earlier bundle's, or the model's."""
    earlier = earlier_bundle(out, artifact)
    manifest = manifest_at(earlier) if earlier else None
    if manifest and not options.languages:
        options = replace(options, languages=manifest.card.languages)
    if options.notes is not None:
        return options
    if manifest and manifest.card.notes:
        return replace(options, notes=manifest.card.notes)
    return replace(options, notes={} if is_bundle(artifact.root) else own_words(artifact, progress))


def keep_words(
    artifact: Artifact, out: Path, generated: Mapping[str, str], progress: Progress
) -> tuple[dict[str, str], Manifest | None]:
    """The generated cards with what their owner has made of the earlier ones; what of his stands instead is said."""
    earlier = earlier_bundle(out, artifact)
    manifest = manifest_at(earlier) if earlier else None
    if earlier is None or manifest is None:
        return dict(generated), None
    before = canonical(manifest.card.generated)
    mine = canonical({name: _card(earlier / name) for name in EDITABLE if (earlier / name).is_file()})
    cards = {name: _kept(name, before.get(name), mine.get(name), text, progress) for name, text in generated.items()}
    return cards, manifest


def _kept(name: str, base: str | None, mine: str | None, text: str, progress: Progress) -> str:
    if base is None or mine is None:
        return text
    merged = merge_cards(base, mine, text)
    if mine != base:
        progress.note(f"what you wrote into {name} is kept")
    for words in merged.instead:
        quote = " ".join(words.split())
        short = quote if len(quote) <= _LONGEST_QUOTE else f"{quote[:_LONGEST_QUOTE]}..."
        progress.note(f"{name}: yours stands where deploytk would now write something else: {short}")
    return merged.text


def _card(path: Path) -> str:
    try:
        return read_bounded(path, LARGEST_CARD_BYTES).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise BundleError(f"{path} is no text in UTF-8", hint="save it as UTF-8, or move it away") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {error}", hint="move it away, or make it readable") from error


def say_what_is_gone(before: Manifest, after: Mapping[str, str], progress: Progress) -> None:
    """A section that an earlier card had and this one has not, because an option is missing, is told of."""
    name = CARDS[0]
    gone = _sections(before.card.generated.get(name, "")) - _sections(after[name])
    if "Measured" in gone:
        progress.note(f"{name} has no measured figures any more: give --report again to keep them")


def _sections(card: str) -> set[str]:
    return {line[3:].strip() for line in card.splitlines() if line.startswith("## ")}


def settle_edits(bundle: Bundle, progress: Progress, *, is_signed_anew: bool = False) -> Bundle:
    """`bundle` with a manifest that tells of its cards as they are edited: what is published is what it says.

    Raises BundleError for one that was signed before it was edited, unless it is signed again.
    """
    edited = bundle.edited
    if not edited:
        return bundle
    if (bundle.path / SIGNATURE).is_file() and not is_signed_anew:
        hint = f"sign it again with --sign, or remove {SIGNATURE} from it"
        raise BundleError(f"{bundle.path} was signed before {' and '.join(edited)} was edited", hint=hint)
    with disk_errors(bundle.path, BundleError):
        (bundle.path / SIGNATURE).unlink(missing_ok=True)
        files = tuple(file for file in bundle.files if file.path != SIGNATURE)
        manifest = replace(bundle.manifest, files=files)
        write_text(bundle.path / MANIFEST, to_text(manifest))
    progress.note(f"{' and '.join(edited)} of the bundle: taken as edited")
    return replace(bundle, files=files, manifest=manifest, edited=())
