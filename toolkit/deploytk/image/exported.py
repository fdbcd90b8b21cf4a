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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from deploytk.atomic import disk_errors, write_text
from deploytk.containers import Daemon, connected
from deploytk.digests import cache_directory
from deploytk.errors import ImageError
from deploytk.image.layers import TAR
from deploytk.image.value import Base, Layer, Read
from deploytk.progress import Progress

_CHUNK_BYTES = 2**20
_EXPORTING = threading.Lock()
_DISTRIBUTION = re.compile(r"(?:^|/)([A-Za-z0-9._]+)-([^-/]+)\.dist-info/METADATA$")


def daemon_base(daemon: Daemon, reference: str, progress: Progress, *, keep: bool) -> Base:
    """An image of the daemon as a base. It is read out of the daemon once; `keep` its layers for outputs elsewhere."""
    stored = daemon.image(reference)
    if stored is None:
        raise ImageError(f"the Docker daemon has no image {reference}", hint=f"docker pull {reference}")
    found = daemon.config(stored.image_id)
    config = {
        "architecture": found.get("Architecture", "amd64"),
        "os": found.get("Os", "linux"),
        "config": found.get("Config") or {},
    }
    export = _Export(stored.image_id, stored.diff_ids)
    contents = export.contents(daemon, progress, keep=keep)
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
    return Base(reference, stored.image_id, layers, config, contents.packages)


@dataclass(frozen=True, slots=True)
class _Contents:
    """What one pass over an image tells."""

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
            found = _Contents(known["sizes"], tuple((name, version) for name, version in known["packages"]))
            if found.sizes.keys() >= set(self.diff_ids):
                return found
        except (OSError, ValueError, KeyError, TypeError):
            pass
        with disk_errors(self._cache, ImageError):
            layers = list(self._layers(daemon, self._cache / "layers" if keep else None, progress))
        sizes = {layer.digest: layer.size for layer in layers}
        packages = sorted({package for layer in layers for package in layer.packages})
        missing = [digest for digest in self.diff_ids if digest not in sizes]
        if missing:
            raise ImageError(f"the daemon does not give out layer {missing[0]}", hint="pull the base image again")
        with disk_errors(record, ImageError):
            record.parent.mkdir(parents=True, exist_ok=True)
            write_text(record, json.dumps({"sizes": sizes, "packages": packages}))
        return _Contents(sizes, tuple(packages))

    def reader(self, diff_id: str, progress: Progress) -> Read:
        def read(offset: int) -> Iterator[bytes]:
            path = self._blob(diff_id)
            with _EXPORTING:  # several layers are asked for at once, and one pass brings all of them
                if not path.is_file():
                    with connected() as daemon, disk_errors(path, ImageError):
                        list(self._layers(daemon, path.parent, progress))
            with path.open("rb") as file:
                file.seek(offset)
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk

        return read

    def _blob(self, diff_id: str) -> Path:
        return self._cache / "layers" / diff_id.removeprefix("sha256:")

    def _layers(self, daemon: Daemon, keep: Path | None, progress: Progress) -> Iterator[_Seen]:
        """Everything in the archive that is a layer of this image, its bytes kept below `keep`."""
        if keep:
            keep.mkdir(parents=True, exist_ok=True)
        progress.note("reading the runtime's layers out of the daemon, once")
        with tarfile.open(fileobj=_Stream(daemon.save(self.image_id)), mode="r|") as archive:
            for member in archive:
                source = archive.extractfile(member) if member.isfile() else None
                if source is None or member.name.endswith((".json", "VERSION", "repositories", "oci-layout")):
                    continue
                partial = keep / f".{os.getpid()}.partial" if keep else None
                seen = _look_through(source, partial)
                if partial and seen.digest in self.diff_ids:
                    partial.replace(self._blob(seen.digest))
                elif partial:
                    partial.unlink()
                if seen.digest in self.diff_ids:
                    yield seen


@dataclass(frozen=True, slots=True)
class _Seen:
    """A layer that went by."""

    digest: str
    size: int
    packages: tuple[tuple[str, str], ...]


def _look_through(source: IO[bytes], target: Path | None) -> _Seen:
    """Read a tar once: its digest, the Python packages in it, and a copy at `target`."""
    with open(target, "wb") if target else contextlib.nullcontext() as file:  # noqa: PTH123
        tee = _Tee(source, file)
        packages = []
        with contextlib.suppress(tarfile.TarError), tarfile.open(fileobj=tee, mode="r|") as layer:
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


class _Stream(io.RawIOBase):
    """Chunks of bytes as a file that can be read once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts, wanted = [self._rest], size
        length = len(self._rest)
        while length < wanted or wanted < 0:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            parts.append(chunk)
            length += len(chunk)
        data = b"".join(parts)
        if wanted < 0:
            wanted = len(data)
        self._rest = data[wanted:]
        return data[:wanted]
