"""Registry -> Base: its manifest and config at once, its layers when somebody reads them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from deploytk.base.cache import cache_directory
from deploytk.base.errors import ImageError
from deploytk.base.files import disk_errors, locked
from deploytk.base.json import parse_json
from deploytk.base.net import describe
from deploytk.base.retry import BUSY
from deploytk.image.media_types import INDEX_TYPES, MANIFEST_TYPES
from deploytk.image.oci import base_of, choose_platform, digest_in, entries_of
from deploytk.image.reading import read_file
from deploytk.image.reference import Reference, digest_or_tag
from deploytk.image.registry.connection import Connection, asked_s
from deploytk.image.registry.logins import find_login
from deploytk.image.value import Base, Read

_ELSEWHERE = (301, 302, 303, 307, 308)
_DAMAGED = "run again; if it happens again, the registry is damaged"
_fetching = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Blob:
    """A layer of a registry, which is fetched into the cache when it is read first."""

    reference: Reference
    digest: str
    size: int

    def read(self, offset: int) -> Iterator[bytes]:
        with _fetching:
            place = _fetch(self)
        return read_file(place, offset)


def read_registry(name: str) -> Base:
    """The image HOST/NAME:TAG or HOST/NAME@DIGEST (for linux/amd64); raises ImageError when it cannot be had."""
    reference = digest_or_tag(name)
    with _connect(reference) as connection:
        accept = {"Accept": ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))}
        answer = connection.ask("GET", f"{connection.root}/manifests/{reference.tag}", (200,), headers=accept)
        manifest = _parse(answer.content, reference)
        if manifest.get("mediaType", answer.headers.get("Content-Type")) in INDEX_TYPES:
            entry = choose_platform(name, entries_of(manifest))
            digest = _named(entry, reference)
            found = connection.ask("GET", f"{connection.root}/manifests/{digest}", (200,), headers=accept)
            manifest = _checked(found.content, digest, reference)
        image_id = _named(manifest.get("config"), reference)
        config = config_of(connection, image_id)
    reader = partial(_reader, reference)
    return base_of(name, image_id, config, manifest, reader, f"{reference.host}/{reference.repository}")


def _named(part: object, reference: Reference) -> str:
    """The digest of what a manifest names."""
    digest = digest_in(part)
    if not digest:
        raise ImageError(f"{reference} is no image", hint="name a container image")
    return digest


def _connect(reference: Reference) -> Connection:
    return Connection(reference, find_login(reference.host, is_destination=False))


def config_of(connection: Connection, digest: str) -> bytes:
    """The config of an image; raises ImageError when it cannot be had, or is another one."""
    content = read_small_blob(connection, digest)
    _parse(content, connection.reference)
    return content


def read_small_blob(connection: Connection, digest: str) -> bytes:
    """A blob that is held in memory; raises ImageError for bytes that are not those of its digest."""
    answer = connection.ask("GET", f"{connection.root}/blobs/{digest}", (200, *_ELSEWHERE))
    if answer.status_code != 200:
        answer = connection.ask("GET", connection.follow(answer), (200,))
    return _right(answer.content, digest, connection.reference)


def _checked(content: bytes, digest: object, reference: Reference) -> dict[str, Any]:
    return _parse(_right(content, digest, reference), reference)


def _right(content: bytes, digest: object, reference: Reference) -> bytes:
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
        raise ImageError(f"what {reference.host} gives for {reference} has another digest than it says", hint=_DAMAGED)
    return content


def _parse(content: bytes, reference: Reference) -> dict[str, Any]:
    try:
        value = parse_json(content)
        if not isinstance(value, dict):
            raise TypeError("it is no object")
    except (ValueError, TypeError) as error:
        raise ImageError(f"{reference} is no image", hint="name a container image") from error
    return value


def _reader(reference: Reference, descriptor: dict[str, Any]) -> Read:
    return _Blob(reference, str(descriptor["digest"]), int(descriptor["size"])).read


def cached_blob(digest: str) -> Path:
    """Where the cache keeps a blob; what is there has that digest."""
    return cache_directory() / "blobs" / digest.removeprefix("sha256:")


def _fetch(blob: _Blob) -> Path:
    """The blob in the cache, fetched first when it is not there; goes on where an earlier run was cut off."""
    place = cached_blob(blob.digest)
    if place.is_file():
        return place
    rest = place.with_name(f".{place.name}.partial")
    busy = locked(place.with_name(f".{place.name}.lock"), f"layer {blob.digest}")
    with disk_errors(place, ImageError), busy, _connect(blob.reference) as connection:
        retry = connection.retry()
        while (done := _size(rest)) < blob.size:
            try:
                problem, wait_s = _download(connection, blob, rest, done)
            except httpx.TransportError as error:
                problem, wait_s = f"does not answer: {describe(error)}", None
            if _size(rest) > done:
                retry.progressed()
            if _size(rest) < blob.size:
                retry.wait(problem, wait_s)
        whole = hashlib.sha256()
        for chunk in read_file(rest, 0):
            whole.update(chunk)
        if f"sha256:{whole.hexdigest()}" != blob.digest:
            rest.unlink()
            raise ImageError(f"a layer of {blob.reference} arrived damaged", hint=_DAMAGED)
        rest.replace(place)
    return place


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _download(connection: Connection, blob: _Blob, rest: Path, done: int) -> tuple[str, float | None]:
    """Fetch what is missing of a blob, as much as comes; why it may have been less, and how long to wait then."""
    url, wanted = f"{connection.root}/blobs/{blob.digest}", {"Range": f"bytes={done}-"} if done else {}
    connection.ask("HEAD", url, (200, *_ELSEWHERE))  # brings the login
    with connection.stream(url, wanted) as response:
        if response.status_code not in _ELSEWHERE:
            return _store(connection, response, rest, blob.size)
    with connection.stream(connection.follow(response), wanted) as response:
        return _store(connection, response, rest, blob.size)


def _store(connection: Connection, response: httpx.Response, rest: Path, largest: int) -> tuple[str, float | None]:
    if response.status_code in BUSY:
        return f"answers {response.status_code}", asked_s(response)
    if response.status_code not in (200, 206):
        raise connection.refusal(response)
    with rest.open("ab" if response.status_code == 206 else "wb") as file:
        for chunk in response.iter_raw():
            file.write(chunk)
            if file.tell() > largest:  # it will not have the right digest either
                break
        file.flush()
        with contextlib.suppress(OSError):
            os.fsync(file.fileno())
    return "broke off the download", None
