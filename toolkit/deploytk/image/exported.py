"""Images of a Docker daemon as bases: what is in their layers, and the layers themselves."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import tarfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO

from deploytk.base.cache import cache_directory
from deploytk.base.errors import ImageError
from deploytk.base.files import disk_errors, write_text
from deploytk.base.progress import Progress
from deploytk.base.terminal import quoted
from deploytk.image.base_config import read_config
from deploytk.image.docker import Daemon, connected
from deploytk.image.media_types import TAR
from deploytk.image.stream import Stream, unpacked
from deploytk.image.value import Base, Layer, Read

_CHUNK_BYTES = 2**20
_LARGEST_JSON_BYTES = 2**20
_EXPORTING = threading.Lock()
_DISTRIBUTION = re.compile(r"(?:^|/)([A-Za-z0-9._]+)-([^-/]+)\.dist-info/METADATA$")


def daemon_base(daemon: Daemon, reference: str, progress: Progress, *, keep: bool) -> Base:
    """An image of the daemon as a base. It is read out of the daemon once; `keep` its layers for outputs elsewhere."""
    stored = daemon.image(reference)
    if stored is None:
        raise ImageError(f"the Docker daemon has no image {reference}", hint=f"docker pull {quoted(reference)}")
    export = _Export(stored.image_id, stored.diff_ids)
    contents = export.contents(daemon, progress, keep=keep)
    read_config(reference, contents.config.encode())
    layers = tuple(
        Layer(
            digest=diff_id,
            diff_id=diff_id,
            size=contents.sizes[diff_id],
            kind="base",
            media_type=TAR,
            created_by=f"layer {number} of {reference}",
            read=export.reader(diff_id, progress),
        )
        for number, diff_id in enumerate(stored.diff_ids)
    )
    image_id = f"sha256:{hashlib.sha256(contents.config.encode()).hexdigest()}"
    return Base(reference, image_id, layers, contents.config.encode(), contents.packages, is_in_daemon=True)


@dataclass(frozen=True, slots=True)
class _Contents:
    """What one pass over an image tells."""

    config: str  # its image config: what the daemon says about an image has other fields
    sizes: dict[str, int]  # bytes of each layer, by its diff_id
    packages: tuple[tuple[str, str], ...]  # Python distributions: name, version


@dataclass(frozen=True, slots=True)
class _Export:
    """The layers of an image of a daemon. What is in them is kept, and their bytes once somebody has asked for them."""

    image_id: str
    diff_ids: tuple[str, ...]

    @property
    def _cache(self) -> Path:
        return cache_directory() / "runtimes"

    def contents(self, daemon: Daemon, progress: Progress, *, keep: bool) -> _Contents:
        """Sizes and packages, by one pass over what the daemon saves; remembered."""
        record = self._cache / f"{self.image_id.removeprefix('sha256:')}.json"
        try:
            known = json.loads(record.read_text(encoding="utf-8"))
            remembered = tuple((name, version) for name, version in known["packages"])
            found = _Contents(known["config"], known["sizes"], remembered)
            if found.sizes.keys() >= set(self.diff_ids):
                return found
        except (OSError, ValueError, KeyError, TypeError):
            pass
        with disk_errors(self._cache, ImageError):
            seen = list(self._members(daemon, self._cache / "layers" if keep else None, progress))
        sizes = {one.digest: one.size for one in seen}
        missing = [digest for digest in self.diff_ids if digest not in sizes]
        if missing:
            raise ImageError(f"the daemon does not give out layer {missing[0]}", hint="pull the base image again")
        packages = sorted({package for one in seen for package in one.packages})
        config = _config_in(seen)
        contents = _Contents(config, {digest: sizes[digest] for digest in self.diff_ids}, tuple(packages))
        with disk_errors(record, ImageError):
            record.parent.mkdir(parents=True, exist_ok=True)
            write_text(record, json.dumps(asdict(contents)))
        return contents

    def reader(self, diff_id: str, progress: Progress) -> Read:
        return partial(self._read, diff_id, progress)  # not a closure: another process may be asked to send the layer

    def _read(self, diff_id: str, progress: Progress, offset: int) -> Iterator[bytes]:
        path = self._blob(diff_id)
        with _EXPORTING:  # several layers are asked for at once, and one pass brings all of them
            if not path.is_file():
                with connected() as daemon, disk_errors(path, ImageError):
                    list(self._members(daemon, path.parent, progress))
        with path.open("rb") as file:
            file.seek(offset)
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk

    def _blob(self, diff_id: str) -> Path:
        return self._cache / "layers" / diff_id.removeprefix("sha256:")

    def _members(self, daemon: Daemon, keep: Path | None, progress: Progress) -> Iterator[_Seen]:
        """All files in the archive of this image; those that are its layers are kept below `keep`."""
        if keep:
            keep.mkdir(parents=True, exist_ok=True)
        progress.note("reading the runtime's layers out of the daemon, once")
        with tarfile.open(fileobj=Stream(daemon.save(self.image_id)), mode="r|") as archive:
            for member in archive:
                source = archive.extractfile(member) if member.isfile() else None
                if source is None:
                    continue
                if member.size <= _LARGEST_JSON_BYTES:
                    source = io.BytesIO(source.read())
                partial = keep / f".{os.getpid()}.partial" if keep else None
                seen = _look_through(source, partial)
                if partial and seen.digest in self.diff_ids:
                    partial.replace(self._blob(seen.digest))
                elif partial:
                    partial.unlink()
                text = source.getvalue() if isinstance(source, io.BytesIO) else None
                yield replace(seen, name=member.name, text=text)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file that went by."""

    digest: str  # of what it is when it is not compressed
    size: int
    packages: tuple[tuple[str, str], ...]
    name: str = ""
    text: bytes | None = None  # its content, when that is small


def _config_in(seen: Sequence[_Seen]) -> str:
    """The config of the first image that the archive's list names."""
    texts = {one.name: one.text for one in seen if one.text is not None}
    try:
        return texts[json.loads(texts["manifest.json"])[0]["Config"]].decode()
    except (ValueError, LookupError, TypeError) as error:
        hint = "name the base as oci:DIR, or HOST/NAME:TAG in a registry"
        raise ImageError("the daemon saves images in a form that is not known", hint=hint) from error


def _look_through(source: IO[bytes], target: Path | None) -> _Seen:
    """Read a tar once: its digest, the Python packages in it, and a copy at `target`.

    Daemons with the containerd image store save layers as they came, so mostly compressed.
    """
    whole = unpacked(source)
    with open(target, "wb") if target else contextlib.nullcontext() as file:  # noqa: PTH123
        tee = _Tee(whole, file)
        packages = []
        with contextlib.suppress(tarfile.TarError, ValueError), tarfile.open(fileobj=tee, mode="r|") as layer:
            for member in layer:
                found = _DISTRIBUTION.search(member.name)
                if found:
                    packages.append((found[1].replace("_", "-").lower(), found[2]))
        while tee.read(_CHUNK_BYTES):
            pass
    return _Seen(f"sha256:{tee.hasher.hexdigest()}", tee.size, tuple(packages))


class _Tee(io.RawIOBase):
    """Hashes, counts and copies what is read through it."""

    def __init__(self, source: IO[bytes], copy: IO[bytes] | None) -> None:
        self._source, self._copy = source, copy
        self.hasher, self.size = hashlib.sha256(), 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self.hasher.update(data)
        self.size += len(data)
        if self._copy:
            self._copy.write(data)
        return data
