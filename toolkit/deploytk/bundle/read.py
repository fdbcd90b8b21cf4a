"""A directory -> Bundle: what its manifest says, held against what is there."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from deploytk.artifact import ModelFile, names_code, refuse_contents
from deploytk.base.digests import hash_file, hash_files
from deploytk.base.errors import BundleError
from deploytk.base.json import parse_json
from deploytk.base.progress import Progress
from deploytk.base.terminal import one_line
from deploytk.bundle.manifest import bundle_digest, manifest_in
from deploytk.bundle.value import EDITABLE, FORMAT, MANIFEST, SIGNATURE, Bundle, BundleFile, Manifest

_LARGEST_MANIFEST_BYTES = 64 * 2**20
LARGEST_CARD_BYTES = 4 * 2**20
_AGAIN = "package the model again"


def is_bundle(path: Path) -> bool:
    return (path / MANIFEST).is_file()


def read_bundle(path: Path) -> Bundle:
    """The bundle at `path`, its cards as their owner has edited them.

    Raises BundleError for a manifest that deploytk would not have written, and when a file is missing, leads out of the
    bundle or has another size than the manifest says.
    """
    homes = _homes(path)
    bundle = _with_edits(described_bundle(path), homes)
    real = functools.cache(_real)
    for file in bundle.files:
        _check(path, file, homes, real)
    if bundle.manifest.plan.trusts_remote_code and not names_code(path):
        what = f"{path / MANIFEST} cannot be read: plan.argv is not the command that the plan itself means"
        raise BundleError(what, hint=_AGAIN)
    return with_signature(bundle)


def with_signature(bundle: Bundle) -> Bundle:
    """The same, with what signs it, where that is there."""
    signature = _signature(bundle.path, _homes(bundle.path))
    return replace(bundle, files=_with(bundle.files, signature)) if signature else bundle


def _with_edits(bundle: Bundle, homes: tuple[str, ...]) -> Bundle:
    """The same, with the cards that are there instead of those that were written: their words are their owner's."""
    files = tuple(_as_it_is(bundle.path, file, homes) for file in bundle.files)
    if files == bundle.files:
        return bundle
    size = sum(file.size for file in files)
    edited = tuple(now.path for now, before in zip(files, bundle.files, strict=True) if now != before)
    manifest = replace(bundle.manifest, files=files)
    return replace(bundle, files=files, digest=bundle_digest(files), bytes=size, manifest=manifest, edited=edited)


def _as_it_is(root: Path, file: BundleFile, homes: tuple[str, ...]) -> BundleFile:
    path = root / file.path
    if file.path not in EDITABLE or file.kind != "card" or not path.is_file() or not _real(path).startswith(homes):
        return file
    size = path.stat().st_size
    if size > LARGEST_CARD_BYTES:
        raise BundleError(f"{path} has {size} bytes, too many for a card", hint="make it shorter than 4 MiB")
    return replace(file, size=size, sha256=hash_file(path))


def _signature(path: Path, homes: tuple[str, ...]) -> BundleFile | None:
    """What signs the bundle, where that is there; it goes wherever the bundle goes."""
    place = path / SIGNATURE
    if not place.is_file():
        return None
    size = place.stat().st_size
    if size > _LARGEST_MANIFEST_BYTES:
        raise BundleError(f"{place} has {size} bytes, too many for a signature", hint="sign the bundle again")
    file = BundleFile(SIGNATURE, size, hash_file(place), "card")
    _check(path, file, homes, _real)
    return file


def _with(files: tuple[BundleFile, ...], more: BundleFile) -> tuple[BundleFile, ...]:
    return tuple(sorted((*(file for file in files if file.path != more.path), more), key=lambda file: file.path))


def manifest_at(path: Path) -> Manifest | None:
    """The manifest of the bundle at `path`; None where there is none that deploytk writes."""
    try:
        return _read_manifest(path)
    except BundleError:
        return None


def described_bundle(path: Path) -> Bundle:
    """The bundle that the manifest at `path` describes; its files are not looked at."""
    manifest = _read_manifest(path)
    size = sum(file.size for file in manifest.files)
    return Bundle(path, manifest.name, bundle_digest(manifest.files), manifest.files, manifest, size, 0)


def _read_manifest(path: Path) -> Manifest:
    place = path / MANIFEST
    try:
        content = _content(place)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(
            f"{path} is no bundle: it has no {MANIFEST}", hint="make one with `deploytk package`"
        ) from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{place} cannot be read: {one_line(str(error))}", hint=_AGAIN) from error
    return parse_manifest(content, str(path))


def parse_manifest(content: bytes, where: str) -> Manifest:
    """The manifest that these bytes are, of the bundle at `where`; BundleError for what deploytk would not write."""
    try:
        return _parsed(content)
    except _OtherFormatError as error:
        hint = "use the deploytk that wrote it, or package the model again"
        raise BundleError(f"{where} has format {error}, {FORMAT} expected", hint=hint) from None
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where}/{MANIFEST} cannot be read: {one_line(str(error))}", hint=_AGAIN) from error


class _OtherFormatError(Exception):
    """The manifest is of another version of deploytk."""


@functools.lru_cache(maxsize=2)  # a command asks for the same one several times
def _parsed(content: bytes) -> Manifest:
    found = parse_json(content, has_unique_keys=True)
    number = found.get("format") if isinstance(found, dict) else None
    if type(number) is int and 0 < number != FORMAT:
        raise _OtherFormatError(number)
    if number != FORMAT or isinstance(number, bool):
        raise ValueError("it is not a bundle's manifest")
    return manifest_in(found)


def _content(place: Path) -> bytes:
    """What is in the manifest; raises OSError or ValueError for what is no file of a possible size."""
    status = place.stat()
    if not stat.S_ISREG(status.st_mode) or not _real(place).startswith(_homes(place.parent)):
        raise ValueError("it is no file of the bundle's own")
    with place.open("rb") as file:
        content = file.read(_LARGEST_MANIFEST_BYTES + 1)
    if len(content) > _LARGEST_MANIFEST_BYTES:
        raise ValueError("it is larger than 64 MiB")
    return content


def _real(place: Path) -> str:
    return os.path.realpath(place)


def _homes(root: Path) -> tuple[str, ...]:
    """Where the files of a bundle may really lie: in it, or in the blobs of its own repository in a hub's cache."""
    resolved = root.resolve()
    homes = [resolved, resolved.parents[1] / "blobs"] if resolved.parent.name == "snapshots" else [resolved]
    return tuple(f"{home}{os.sep}" for home in homes)


def _check(root: Path, file: BundleFile, homes: tuple[str, ...], real: Callable[[Path], str]) -> None:
    """With `real`, which says where a path really is: of a file that is no link that is where its directory is."""
    path = root / file.path
    try:
        status = path.lstat()
        is_link = stat.S_ISLNK(status.st_mode)
        if is_link:
            status = path.stat()
    except OSError as error:
        raise BundleError(f"{path} is missing, {file.size} bytes expected", hint=_AGAIN) from error
    if not (real(path) if is_link else f"{real(path.parent)}{os.sep}").startswith(homes):
        raise BundleError(f"{path} is a link that leads out of the bundle", hint=_AGAIN)
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{path} is no file", hint=_AGAIN)
    if status.st_size != file.size:
        raise BundleError(f"{path} has {status.st_size} bytes, {file.size} expected", hint=_AGAIN)


def strangers_in(path: Path) -> list[str]:
    """Files in the bundle at `path` that its manifest does not name; hidden ones and Python's caches aside.

    All of them when deploytk did not write that manifest.
    """
    here = {str(file.relative_to(path)) for file in path.rglob("*") if not file.is_dir() or file.is_symlink()}
    try:
        known = {file.path for file in _read_manifest(path).files} | {MANIFEST, SIGNATURE}
    except BundleError:
        known = set()
    return sorted(
        file
        for file in here - known
        if not any(part.startswith(".") or part == "__pycache__" for part in PurePosixPath(file).parts)
    )


def require_taken_contents(bundle: Bundle) -> None:
    """Raises ArtifactError when a file of the model in it is refused by its content: see deploytk.artifact.contents."""
    of_model = [file for file in bundle.files if file.kind in ("weights", "model")]
    refuse_contents(bundle.path, [ModelFile(file.path, file.size, file.kind == "weights") for file in of_model])


def verify_bundle(bundle: Bundle, progress: Progress) -> None:
    """Raises BundleError unless every file has the digest that the manifest says."""
    paths = [bundle.path / file.path for file in bundle.files]
    digests = hash_files(paths, "verifying", progress)
    for file, path in zip(bundle.files, paths, strict=True):
        if digests[path] != file.sha256:
            raise BundleError(f"{path} is not the file that {MANIFEST} describes: its digest differs", hint=_AGAIN)
