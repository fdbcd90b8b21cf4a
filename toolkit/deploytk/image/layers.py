"""Bundle -> layers: deterministic tars that are made while they are read and never written anywhere."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tarfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from deploytk.atomic import write_text
from deploytk.bundle import MANIFEST, Bundle, BundleFile
from deploytk.digests import cache_directory, hash_file
from deploytk.errors import ImageError
from deploytk.image.value import Layer, LayerKind, Read, WeightsMode
from deploytk.progress import Advance, Progress

TAR = "application/vnd.oci.image.layer.v1.tar"

SHARD_BYTES = 64 * 2**20
"""From this size on, a file is a layer of its own."""

GROUP_BYTES = 256 * 2**20
"""Smaller files share layers of at most this size."""

MOST_LAYERS = 96
"""Docker stacks 127 at most, and the base has some: with more files than that, both sizes are doubled."""

_ROOT = "bundle"
_CHUNK_BYTES = 2**18  # httpcore copies what a socket does not take at once, so not larger
_THREADS = 2
_AGAIN = "wait until nothing writes to it, package the model again, then run again"


@dataclass(frozen=True, slots=True)
class _File:
    """A file as a piece of a tar; what is read must have the size that the header before it says."""

    path: Path
    size: int
    sha256: str

    def read(self, offset: int) -> Iterator[bytes]:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise ImageError(f"{self.path} cannot be read: {error.strerror}", hint=_AGAIN) from error
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size != self.size:
                raise ImageError(f"{self.path} has changed since the image was planned", hint=_AGAIN)
            file.seek(offset)
            while offset < self.size:
                chunk = file.read(min(_CHUNK_BYTES, self.size - offset))
                if not chunk:
                    raise ImageError(f"{self.path} was cut off while it was read", hint=_AGAIN)
                offset += len(chunk)
                yield chunk


@dataclass(frozen=True, slots=True)
class Tar:
    """A tar as a list of pieces: the same bytes as Python's tarfile makes in its PAX format."""

    pieces: tuple[bytes | _File, ...]
    starts: tuple[int, ...]  # where each piece begins
    size: int
    recipe: str  # SHA-256 of the headers and the files' digests: the same recipe makes the same bytes

    @classmethod
    def of(cls, contents: Mapping[str, bytes | _File]) -> Tar:
        """A tar of these files by their paths, and of all the directories above them."""
        names = {name: False for path in contents for name in _parents(path)} | dict.fromkeys(contents, True)
        pieces: list[bytes | _File] = []
        for name in sorted(names):
            content = contents[name] if names[name] else None
            size = 0 if content is None else len(content) if isinstance(content, bytes) else content.size
            pieces.append(_header(name, size, is_directory=content is None))
            if size and content is not None:
                pieces += [content, bytes(-size % tarfile.BLOCKSIZE)]
        size = sum(map(_size, pieces)) + 2 * tarfile.BLOCKSIZE
        pieces.append(bytes(2 * tarfile.BLOCKSIZE + -size % tarfile.RECORDSIZE))
        starts, at, recipe = [], 0, hashlib.sha256()
        for piece in pieces:
            starts.append(at)
            at += _size(piece)
            recipe.update(hashlib.sha256(piece).digest() if isinstance(piece, bytes) else bytes.fromhex(piece.sha256))
        return cls(tuple(pieces), tuple(starts), at, recipe.hexdigest())

    def check(self) -> None:
        """Raises ImageError that names the file when one is not the one that was planned; reads them all."""
        for piece in self.pieces:
            if isinstance(piece, _File) and hash_file(piece.path) != piece.sha256:
                raise ImageError(f"{piece.path} has changed since the image was planned", hint=_AGAIN)

    def read(self, offset: int) -> Iterator[bytes]:
        """The bytes from `offset` on; raises ImageError when a file has not the size that was planned."""
        first = max(bisect_right(self.starts, offset) - 1, 0)
        for start, piece in zip(self.starts[first:], self.pieces[first:], strict=True):
            skip = max(offset - start, 0)
            if isinstance(piece, _File):
                yield from piece.read(skip)
            elif skip < len(piece):
                yield piece[skip:]


@dataclass(frozen=True, slots=True)
class _Draft:
    """A layer whose digest is not known yet."""

    kind: LayerKind
    created_by: str
    tar: Tar


def make_layers(
    bundle: Bundle, weights: WeightsMode, progress: Progress, extras: Mapping[str, bytes] | None = None
) -> tuple[Layer, ...]:
    """The layers of a bundle: weights, model, app and, last, card with manifest and `extras` (path -> content).

    A large file is a layer of its own, so that a new app or card never moves weights. Digests of layers are
    remembered; what is not known is read once. The bundle must have been verified. Raises ImageError for a file that
    cannot be in an image.
    """
    drafts = [_draft(bundle, kind, group) for kind, group in _groups(bundle.files, weights)]
    last = {f"{_ROOT}/{path}": content for path, content in (extras or {}).items()}
    drafts.append(_draft(bundle, "card", [f for f in bundle.files if f.kind == "card"], last))
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
    bundle: Bundle, kind: LayerKind, files: Sequence[BundleFile], extras: Mapping[str, bytes] | None = None
) -> _Draft:
    root = bundle.path.resolve()
    contents: dict[str, bytes | _File] = {}
    for file in files:
        contents[f"{_ROOT}/{file.path}"] = _File(_place(root, file.path), file.size, file.sha256)
    if kind == "card":
        manifest = _place(root, MANIFEST)
        contents[f"{_ROOT}/{MANIFEST}"] = _File(manifest, manifest.stat().st_size, hash_file(manifest))
    contents.update(extras or {})
    what = files[0].path if len(files) == 1 and kind == "weights" else f"{len(contents)} files of kind {kind}"
    return _Draft(kind, f"deploytk: {what}", Tar.of(contents))


def _place(root: Path, name: str) -> Path:
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
    known = {recipe: digest for recipe in tars if (digest := _recall(recipe))}
    unknown = sorted((tar for recipe, tar in tars.items() if recipe not in known), key=lambda tar: -tar.size)
    if unknown:
        total = sum(tar.size for tar in unknown)
        with progress.task("hashing layers", total) as advance, ThreadPoolExecutor(_THREADS) as threads:
            for tar, digest in zip(unknown, threads.map(partial(_hash, advance=advance), unknown), strict=True):
                known[tar.recipe] = digest
                _remember(tar.recipe, digest)
    return known


def _hash(tar: Tar, advance: Advance) -> str:
    whole = hashlib.sha256()
    for chunk in tar.read(0):
        whole.update(chunk)
        advance(len(chunk))
    return whole.hexdigest()


def _memory(recipe: str) -> Path:
    return cache_directory() / "layers" / recipe


def _recall(recipe: str) -> str | None:
    with contextlib.suppress(OSError, ValueError):
        digest = _memory(recipe).read_text(encoding="ascii").strip()
        if len(bytes.fromhex(digest)) == 32:
            return digest
    return None


def _remember(recipe: str, digest: str) -> None:
    """Only saves time: where it cannot be written, the layer is read again the next time."""
    with contextlib.suppress(OSError):
        _memory(recipe).parent.mkdir(parents=True, exist_ok=True)
        write_text(_memory(recipe), digest + "\n")


def _layer(draft: _Draft, sha256: str) -> Layer:
    digest = f"sha256:{sha256}"
    read = partial(_read_planned, draft.tar, digest)
    return Layer(digest, digest, draft.tar.size, draft.kind, TAR, draft.created_by, read)


def _read_planned(tar: Tar, digest: str, offset: int) -> Iterator[bytes]:
    try:
        yield from read_checked(tar.read, digest, offset)
    except ImageError:
        with contextlib.suppress(OSError):
            _memory(tar.recipe).unlink(missing_ok=True)  # the file may have changed while this was learnt
            tar.check()
        raise


def read_checked(read: Read, digest: str, offset: int) -> Iterator[bytes]:
    """The bytes of a blob from `offset` on; one that does not have its digest is never handed out whole.

    Whoever gets a part must check the whole: every registry does.
    """
    if offset:
        yield from read(offset)
        return
    whole, held = hashlib.sha256(), b""
    for chunk in read(0):
        whole.update(chunk)
        if held:
            yield held
        held = chunk
    if f"sha256:{whole.hexdigest()}" != digest:
        raise ImageError("a file changed while it was sent: its layer's digest differs", hint=_AGAIN)
    yield held


def _parents(path: str) -> Iterator[str]:
    for parent in PurePosixPath(path).parents:
        if parent.name:
            yield str(parent)


def _header(name: str, size: int, *, is_directory: bool) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.mode = (tarfile.DIRTYPE, 0o755) if is_directory else (tarfile.REGTYPE, 0o644)
    info.size = size  # owner 0:0, time 0
    return info.tobuf(tarfile.PAX_FORMAT)


def _size(piece: bytes | _File) -> int:
    return len(piece) if isinstance(piece, bytes) else piece.size
