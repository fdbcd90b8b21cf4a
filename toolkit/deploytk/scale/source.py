"""What a person names, a bundle or an image -> its manifest, and the image by its digest."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, cast

from deploytk.base.digests import hash_file
from deploytk.base.errors import ImageError, TryAgainError, UsageError
from deploytk.base.progress import Progress
from deploytk.base.terminal import quoted
from deploytk.bundle import MANIFEST, bundle_digest, is_bundle, read_bundle
from deploytk.bundle.read import parse_manifest
from deploytk.bundle.value import Manifest
from deploytk.image.base import find_base
from deploytk.image.config import LABELS
from deploytk.image.layers import ROOT
from deploytk.image.reference import digest_or_tag
from deploytk.image.registry.pull import read_registry
from deploytk.image.registry.referrers import digest_in_registry
from deploytk.image.stream import Stream, unpacked
from deploytk.image.value import Base, WeightsMode

_LARGEST_LAYER_BYTES = 64 * 2**20  # in which a manifest is looked for: the card's has some kilobytes
_LARGEST_MANIFEST_BYTES = 16 * 2**20
_MODES: tuple[WeightsMode, ...] = ("layers", "mount", "download")


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be scaled."""

    manifest: Manifest
    digest: str  # of the bundle
    place: Path | None  # of the bundle on this machine
    image: str | None  # HOST/NAME@sha256:...
    weights: WeightsMode  # where that image has its weights


def read_source(named: str, image: str | None, progress: Progress) -> Source:
    """The bundle at `named`, to be run as `image`, which may be None; or the image `named`, with the bundle in it.

    Raises UsageError for what is neither, ImageError for an image without a bundle or of another one.
    """
    path = Path(named.removeprefix("file://"))
    if is_bundle(path):
        bundle = read_bundle(path)
        if image is None:
            return Source(bundle.manifest, bundle.digest, path, None, "layers")
        found, name = _image(image, progress)
        if _labels(found).get("org.opencontainers.image.revision") != hash_file(path / MANIFEST):
            hint = "build and push the image of this bundle, or name the image alone"
            raise ImageError(f"{image} was not made of this bundle", hint=hint)
        return Source(bundle.manifest, bundle.digest, path, name, _mode(found))
    if path.exists():
        hint = f"deploytk package {quoted(named)} -o BUNDLE, then scale that"
        raise UsageError(f"{named} is no bundle and no image", hint=hint)
    found, name = _image(named, progress)
    manifest = manifest_inside(found)
    pulled = image and _image(image, progress)[1]
    return Source(manifest, bundle_digest(manifest.files), None, pulled or name, _mode(found))


def _image(named: str, progress: Progress) -> tuple[Base, str | None]:
    """The image, and its name by its digest, because what a tag names can change; None where nobody can pull it."""
    if named.startswith("oci:"):
        return find_base(named, progress, keep=True), None
    reference = digest_or_tag(named)
    try:
        if not reference.tag.startswith("sha256:"):
            reference = replace(reference, tag=digest_in_registry(named))
        name = f"{reference.host}/{reference.repository}@{reference.tag}"
        return read_registry(name), name
    except TryAgainError as error:
        # A digest names bytes and does not tell what they are, so that none is deployed unseen.
        hint = "run again when it does: only it tells which bundle the image is of, and where that has its weights"
        raise TryAgainError(str(error), hint=hint) from error


def _labels(base: Base) -> dict[str, str]:
    return (json.loads(base.config).get("config") or {}).get("Labels") or {}


def _mode(base: Base) -> WeightsMode:
    found = _labels(base).get(f"{LABELS}weights")
    return next((mode for mode in _MODES if mode == found), "layers")


def manifest_inside(base: Base) -> Manifest:
    """The manifest of the bundle in an image: in its last small layer that has one."""
    for layer in reversed(base.layers):
        if layer.size <= _LARGEST_LAYER_BYTES:
            content = _file_in(cast("IO[bytes]", Stream(layer.read(0))), f"{ROOT}/{MANIFEST}")
            if content is not None:
                return parse_manifest(content, base.reference)
    hint = "name an image that deploytk has made: `deploytk build`, or `publish` to a registry"
    raise ImageError(f"{base.reference} holds no bundle", hint=hint)


def _file_in(layer: IO[bytes], name: str) -> bytes | None:
    try:
        with tarfile.open(fileobj=unpacked(layer), mode="r|") as archive:
            for entry in archive:
                if entry.name == name and entry.isfile() and entry.size <= _LARGEST_MANIFEST_BYTES:
                    file = archive.extractfile(entry)
                    return file.read() if file else None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ImageError("a layer of the image is no tar", hint="pull or build the image again") from error
    return None
