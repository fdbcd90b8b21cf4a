"""Bundle -> layers: deterministic tars that are made while they are read and never written anywhere."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from deploytk.base.digests import hash_file
from deploytk.base.errors import ImageError
from deploytk.base.progress import Advance, Progress
from deploytk.bundle import MANIFEST, Bundle, BundleFile
from deploytk.image.media_types import TAR
from deploytk.image.tar import Content, File, Tar
from deploytk.image.tar_digests import read_hashed, recall, remember
from deploytk.image.value import Layer, LayerKind, WeightsMode

SHARD_BYTES = 64 * 2**20
"""From this size on, a file is a layer of its own."""

GROUP_BYTES = 256 * 2**20
"""Smaller files share layers of at most this size."""

MOST_LAYERS = 96
"""Docker stacks 127 at most, and the base has some: with more files than that, both sizes are doubled."""

ROOT = "bundle"
"""Where a bundle is in an image."""

_THREADS = 2


@dataclass(frozen=True, slots=True)
class _Draft:
    """A layer whose digest is not known yet."""

    kind: LayerKind
    created_by: str
    tar: Tar


def make_layers(
    bundle: Bundle, weights: WeightsMode, progress: Progress, extras: Mapping[str, Content] | None = None
) -> tuple[Layer, ...]:
    """The layers of a bundle: weights, model, app and, last, card with manifest and `extras` (path in the image).

    A large file is a layer of its own, so that a new app or card never moves weights. Digests of layers are
    remembered; what is not known is read once. The bundle must have been verified. Raises ImageError for a file that
    cannot be in an image.
    """
    drafts = [_draft(bundle, kind, group) for kind, group in _groups(bundle.files, weights)]
    drafts.append(_draft(bundle, "card", [f for f in bundle.files if f.kind == "card"], extras))
    digests = _digests(drafts, progress)
    return tuple(_layer(draft, digests[draft.tar.recipe]) for draft in drafts)


def _groups(files: Sequence[BundleFile], weights: WeightsMode) -> list[tuple[LayerKind, list[BundleFile]]]:
    """Which files share a layer; the same for every base, so that layers are found again on another one."""
    kinds: tuple[LayerKind, ...] = ("weights", "model", "app") if weights == "layers" else ("model", "app")
    factor = 1
    while True:
        groups: list[tuple[LayerKind, list[BundleFile]]] = []
        for kind in kinds:
            own = [file for file in files if file.kind == kind]
            groups += [(kind, [file]) for file in own if file.size >= factor * SHARD_BYTES]
            small = [file for file in own if file.size < factor * SHARD_BYTES]
            groups += [(kind, group) for group in _filled(small, factor * GROUP_BYTES)]
        if len(groups) < MOST_LAYERS:  # and one for the card
            return groups
        factor *= 2


def _filled(files: Iterable[BundleFile], most_bytes: int) -> Iterator[list[BundleFile]]:
    group: list[BundleFile] = []
    for file in files:
        if group and sum(f.size for f in group) + file.size > most_bytes:
            yield group
            group = []
        group.append(file)
    if group:
        yield group


def _draft(
    bundle: Bundle, kind: LayerKind, files: Sequence[BundleFile], extras: Mapping[str, Content] | None = None
) -> _Draft:
    root = bundle.path.resolve()
    contents: dict[str, Content] = {}
    for file in files:
        contents[f"{ROOT}/{file.path}"] = File(place_of(root, file.path), file.size, file.sha256)
    if kind == "card":
        manifest = place_of(root, MANIFEST)
        contents[f"{ROOT}/{MANIFEST}"] = File(manifest, manifest.stat().st_size, hash_file(manifest))
    contents.update(extras or {})
    what = files[0].path if len(files) == 1 and kind == "weights" else f"{len(contents)} files of kind {kind}"
    return _Draft(kind, f"deploytk: {what}", Tar.of(contents))


def place_of(root: Path, name: str) -> Path:
    """Where a file of the bundle really is; raises ImageError for what has no business in an image."""
    if any(part.startswith(".wh.") for part in PurePosixPath(name).parts):
        hint = "rename it: in an image, such a name deletes the file that follows .wh."
        raise ImageError(f"{name!r} cannot be in an image", hint=hint)
    try:
        place = (root / name).resolve(strict=True)
        is_file = stat.S_ISREG(place.stat().st_mode)
    except (OSError, RuntimeError) as error:
        raise ImageError(f"{root / name} cannot be read", hint="package the model again") from error
    if not place.is_relative_to(root):
        raise ImageError(f"{root / name} is a link out of the bundle", hint="replace it by the file that it points to")
    if not is_file:
        raise ImageError(f"{root / name} is neither a file nor a directory", hint="remove it, package the model again")
    return place


def _digests(drafts: Sequence[_Draft], progress: Progress) -> dict[str, str]:
    """SHA-256 of each tar by its recipe."""
    tars = {draft.tar.recipe: draft.tar for draft in drafts}
    known = {recipe: digest for recipe in tars if (digest := recall(recipe))}
    unknown = sorted((tar for recipe, tar in tars.items() if recipe not in known), key=lambda tar: -tar.size)
    if unknown:
        total = sum(tar.size for tar in unknown)
        with progress.task("hashing layers", total) as advance, ThreadPoolExecutor(_THREADS) as threads:
            for tar, digest in zip(unknown, threads.map(partial(_hash, advance=advance), unknown), strict=True):
                known[tar.recipe] = digest
                remember(tar.recipe, digest)
    return known


def _hash(tar: Tar, advance: Advance) -> str:
    whole = hashlib.sha256()
    for chunk in tar.read(0):
        whole.update(chunk)
        advance(len(chunk))
    return whole.hexdigest()


def _layer(draft: _Draft, sha256: str) -> Layer:
    digest = f"sha256:{sha256}"
    read = partial(read_hashed, draft.tar, digest)
    return Layer(digest, digest, draft.tar.size, draft.kind, TAR, draft.created_by, read)
