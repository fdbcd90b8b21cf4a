"""OCI layouts: images in a directory, written blob by blob and read as bases."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from deploytk.base.errors import ImageError
from deploytk.base.files import disk_errors, locked, sync_directory, write_text
from deploytk.base.progress import Advance, Progress
from deploytk.image.base_config import read_config
from deploytk.image.media_types import INDEX_TYPES, MANIFEST_TYPE, TAR
from deploytk.image.reading import read_checked, read_file
from deploytk.image.value import Base, ImagePlan, Layer, Read, SentLayer

LAYOUT, LAYOUT_CONTENT = "oci-layout", b'{"imageLayoutVersion":"1.0.0"}'
"""The file that makes a directory, or an archive, an OCI layout."""

_REF_NAME = "org.opencontainers.image.ref.name"
_MADE_BY = "ai.deploytk.digest"
_LARGEST_JSON_BYTES = 16 * 2**20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

# What dockerd pushes, under the names that an OCI manifest gives the same bytes.
_LAYER_TYPES = {
    TAR: TAR,
    f"{TAR}+gzip": f"{TAR}+gzip",
    f"{TAR}+zstd": f"{TAR}+zstd",
    "application/vnd.docker.image.rootfs.diff.tar": TAR,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": f"{TAR}+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": f"{TAR}+zstd",
}


def write_layout(plan: ImagePlan, directory: Path, tag: str, progress: Progress) -> tuple[tuple[SentLayer, ...], int]:
    """Put the image into the OCI layout `directory` under `tag`; returns its layers and the bytes written.

    A blob that is there is not written again, one that a kill cut off is continued; the index, which makes the image
    visible, comes last. Raises ImageError for a directory that is no OCI layout, and for a tag in it that names an
    image which deploytk did not put there.
    """
    with disk_errors(directory, ImageError):
        _check_place(directory, tag)
        blobs = directory / "blobs" / "sha256"
        blobs.mkdir(parents=True, exist_ok=True)
        with locked(directory / ".lock", str(directory)):
            write_text(directory / LAYOUT, LAYOUT_CONTENT.decode())
            sent, written = [], 0
            missing = sum(layer.size for layer in plan.layers if not _has(directory, layer))
            with progress.task("writing layers", missing) as advance:
                for layer in plan.layers:
                    reused = _has(directory, layer)
                    written += 0 if reused else _write_blob(layer, blob_place(directory, layer.digest), advance)
                    sent.append(SentLayer(layer.digest, layer.size, layer.kind, reused))
            for digest, content in ((plan.image_id, plan.config), (plan.digest, plan.manifest)):
                if not blob_place(directory, digest).is_file():
                    write_text(blob_place(directory, digest), content.decode())
            sync_directory(blobs)
            _show(directory, tag, plan)
    return tuple(sent), written


def read_layout(directory: Path, name: str | None = None) -> Base:
    """The image called `name` in an OCI layout, or its only one; raises ImageError when there is none to run on."""
    index = read_json(directory / "index.json", directory)
    entry = chosen_entry(directory, index, name)
    manifest = read_json(blob_place(directory, digest_in(entry)), directory)
    for _ in range(2):  # an index in the index: one image per platform
        if manifest.get("mediaType", entry.get("mediaType")) in INDEX_TYPES:
            entry = choose_platform(str(directory), entries_of(manifest))
            manifest = read_json(blob_place(directory, digest_in(entry)), directory)
    config_digest = digest_in(manifest.get("config"))
    content = blob_place(directory, config_digest)
    read_json(content, directory)
    config = content.read_bytes()
    if f"sha256:{hashlib.sha256(config).hexdigest()}" != config_digest:
        raise ImageError(f"{directory} is damaged: its config has another digest", hint="write the layout anew")
    # Not the directory: the same base has the same name wherever it lies.
    reference = _name(entry) or name or config_digest
    return base_of(reference, config_digest, config, manifest, partial(_layer_reader, directory))


def base_of(
    reference: str,
    image_id: str,
    config: bytes,
    manifest: dict[str, Any],
    reader: Callable[[dict[str, Any]], Read],
    repository: str | None = None,
) -> Base:
    """The base that a manifest and a config describe; `reader` makes a layer's `read` from its descriptor."""
    try:
        diff_ids = read_config(reference, config)["rootfs"]["diff_ids"]
        layers = tuple(
            Layer(
                digest=_checked(descriptor["digest"]),
                diff_id=_checked(diff_id),
                size=_size(descriptor["size"]),
                kind="base",
                media_type=_LAYER_TYPES[descriptor["mediaType"]],
                created_by=f"layer {number} of {reference}",
                read=reader(descriptor),
                repository=repository,
            )
            for number, (descriptor, diff_id) in enumerate(zip(manifest["layers"], diff_ids, strict=True), 1)
        )
    except (LookupError, TypeError, ValueError) as error:
        hint = "give a runnable Linux image with --base"
        raise ImageError(f"{reference} is no image to run on: {error} is not understood", hint=hint) from error
    return Base(reference, image_id, layers, config)


def choose_platform(reference: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The entry of an index that is for linux/amd64, the platform of the GPU images."""
    for entry in entries:
        platform = entry.get("platform")
        if isinstance(platform, dict) and (platform.get("os"), platform.get("architecture")) == ("linux", "amd64"):
            return entry
    raise ImageError(f"{reference} has no image for linux/amd64", hint="name another image with --base")


def _checked(digest: object) -> str:
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ValueError(f"the digest {str(digest)[:80]!r}")
    return digest


def _size(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"the size {str(value)[:80]!r}")
    return value


def digest_in(descriptor: object) -> str:
    """The digest that a part of a manifest or index names; "" for what is none, which is nobody's."""
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    return digest if isinstance(digest, str) and _DIGEST.fullmatch(digest) else ""


def blob_place(directory: Path, digest: str) -> Path:
    """Where a layout keeps a blob; ImageError for what is no digest."""
    if not _DIGEST.fullmatch(digest):
        raise ImageError(f"{directory} is damaged: {digest[:80]!r} is no digest", hint="write the layout anew")
    return directory / "blobs" / "sha256" / digest.removeprefix("sha256:")


def _has(directory: Path, layer: Layer) -> bool:
    place = blob_place(directory, layer.digest)
    return place.is_file() and place.stat().st_size == layer.size


def read_json(path: Path, directory: Path) -> dict[str, Any]:
    """An object in a file of a layout; ImageError where there is none."""
    try:
        if path.stat().st_size > _LARGEST_JSON_BYTES:
            raise ValueError("it is too large")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise TypeError("it is no object")
    except FileNotFoundError as error:
        hint = "give the directory of an OCI layout: one with index.json and blobs/"
        raise ImageError(f"{directory} has no {path.relative_to(directory)}", hint=hint) from error
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ImageError(f"{path} cannot be read: {type(error).__name__}", hint="write the layout anew") from error
    return content


def entries_of(index: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of an index that can be ones."""
    entries = index.get("manifests")
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _name(entry: dict[str, Any]) -> str | None:
    annotations = entry.get("annotations")
    name = annotations.get(_REF_NAME) if isinstance(annotations, dict) else None
    return name if isinstance(name, str) else None


def chosen_entry(directory: Path, index: dict[str, Any], name: str | None) -> dict[str, Any]:
    """The entry of the image called `name`, or of the only one."""
    # What is attached to an image is none: it has the type of an artifact.
    entries = [entry for entry in entries_of(index) if "artifactType" not in entry]
    named = [entry for entry in entries if name is None or _name(entry) == name]
    if len(named) == 1:
        return named[0]
    names = ", ".join(sorted(filter(None, map(_name, entries)))) or "without a name"
    what = f"no image {name!r}" if name else f"{len(entries)} images"
    raise ImageError(f"{directory} has {what}", hint=f"name one as oci:{directory}:NAME; there are: {names}")


def _layer_reader(directory: Path, descriptor: dict[str, Any]) -> Read:
    digest = _checked(descriptor["digest"])
    place = blob_place(directory, digest)
    if not place.is_file() or place.stat().st_size != descriptor["size"]:
        raise ImageError(f"{directory} is damaged: {place.name[:12]} is missing or cut off", hint="write it anew")
    return partial(read_checked, partial(read_file, place), digest)


def _check_place(directory: Path, tag: str) -> None:
    if directory.exists() and not directory.is_dir():
        raise ImageError(f"{directory} is a file", hint="name a new directory, or that of an OCI layout")
    if not directory.is_dir() or not any(entry for entry in directory.iterdir() if entry.name != ".lock"):
        return
    if not (directory / LAYOUT).is_file():
        hint = "name a new directory, or that of an OCI layout"
        raise ImageError(f"{directory} is not empty and no OCI layout", hint=hint)
    if (directory / "index.json").is_file():
        for entry in entries_of(read_json(directory / "index.json", directory)):
            if _name(entry) == tag and _MADE_BY not in entry["annotations"]:
                hint = "choose another tag, or another directory"
                raise ImageError(f"{directory} has {tag} already, and not from deploytk", hint=hint)


def _write_blob(layer: Layer, place: Path, advance: Advance) -> int:
    """Write a blob, or the rest of one; returns the bytes that were written."""
    partial_blob = place.with_name(f".{place.name}.partial")
    whole, done = hashlib.sha256(), 0
    if partial_blob.is_file():
        for chunk in read_file(partial_blob, 0):
            whole.update(chunk)
            done += len(chunk)
    if done > layer.size:
        partial_blob.unlink()
        whole, done = hashlib.sha256(), 0
    advance(done)
    with partial_blob.open("ab") as file:
        for chunk in layer.read(done):
            file.write(chunk)
            whole.update(chunk)
            advance(len(chunk))
        file.flush()
        os.fsync(file.fileno())
    if f"sha256:{whole.hexdigest()}" != layer.digest:
        partial_blob.unlink()
        hint = "run again; if it happens again, package the model anew"
        raise ImageError(f"a layer of kind {layer.kind} was not what was planned", hint=hint)
    partial_blob.replace(place)
    return layer.size - done


def _show(directory: Path, tag: str, plan: ImagePlan) -> None:
    place = directory / "index.json"
    index: dict[str, Any] = read_json(place, directory) if place.is_file() else {"schemaVersion": 2}
    others = [entry for entry in entries_of(index) if _name(entry) != tag]
    ours = {
        "mediaType": MANIFEST_TYPE,
        "digest": plan.digest,
        "size": len(plan.manifest),
        "annotations": {_REF_NAME: tag, _MADE_BY: plan.digest},
    }
    index |= {"mediaType": INDEX_TYPES[0], "manifests": [*others, ours]}
    text = json.dumps(index, indent=1) + "\n"
    if not place.is_file() or place.read_text(encoding="utf-8") != text:
        write_text(place, text)
