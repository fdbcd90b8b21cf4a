"""Attaches to an image in a registry, and lists what is attached: by the referrers API, else by the fallback tag.

https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from deploytk.base.errors import ImageError
from deploytk.image.attachment import (
    EMPTY,
    EMPTY_TYPE,
    MOST,
    Attached,
    Attachment,
    Subject,
    described,
    descriptor_of,
    fallback_tag,
    manifest_of,
    parsed,
)
from deploytk.image.config import content_digest
from deploytk.image.media_types import INDEX_TYPES, MANIFEST_TYPE, MANIFEST_TYPES
from deploytk.image.reference import digest_or_tag
from deploytk.image.registry.connection import Connection
from deploytk.image.registry.logins import find_login
from deploytk.image.registry.pull import read_small_blob
from deploytk.image.registry.upload import push_blob
from deploytk.image.value import Layer

_ACCEPTED = {"Accept": ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))}
_HAS_NO_API = (400, 404, 405)
_DAMAGED = "run again; if it happens again, the registry loses or changes data"


def attach_to(name: str, attachments: Sequence[Attachment]) -> None:
    """Attach them to the image HOST/NAME:TAG or HOST/NAME@DIGEST; what is attached already is not sent again."""
    reference = digest_or_tag(name)
    with Connection(reference, find_login(reference.host, is_destination=True)) as connection:
        subject = _subject(connection, reference.tag)
        _push(connection, EMPTY, EMPTY_TYPE)
        left = [one for one in attachments if not _attach(connection, one, subject)]
        if left:
            _add_to_index(connection, left, subject)


def attached_in_registry(name: str) -> Attached:
    """The image and all that is attached to it; raises ImageError for bytes that are not those of their digest."""
    reference = digest_or_tag(name)
    with Connection(reference, find_login(reference.host, is_destination=False)) as connection:
        subject = _subject(connection, reference.tag)
        found = []
        for entry in _entries(connection, subject.digest)[:MOST]:
            digest = str(entry.get("digest"))
            manifest = parsed(_manifest(connection, digest))
            parts = described(manifest, subject.digest)
            if parts:
                kind, blob, notes = parts
                found.append(Attachment(kind, read_small_blob(connection, blob), notes, digest))
    return Attached(subject, tuple(found))


def digest_in_registry(name: str) -> str:
    """Of the manifest that HOST/NAME:TAG names now."""
    reference = digest_or_tag(name)
    with Connection(reference, find_login(reference.host, is_destination=False)) as connection:
        return _subject(connection, reference.tag).digest


def _subject(connection: Connection, name: str) -> Subject:
    answer = connection.ask("GET", f"{connection.root}/manifests/{name}", (200, 404), headers=_ACCEPTED)
    if answer.status_code == 404:
        what = f"{connection.reference.host} has no {connection.reference.repository} called {name}"
        raise ImageError(what, hint="check the name, or push the image first")
    found = Subject(answer.content, answer.headers.get("Content-Type", MANIFEST_TYPE))
    if name.startswith("sha256:") and found.digest != name:
        raise ImageError(f"{connection.reference.host} has another manifest under {name[:19]}", hint=_DAMAGED)
    if not isinstance(parsed(found.manifest), dict):
        raise ImageError(f"{connection.reference} is no image", hint="name a container image")
    return found


def _attach(connection: Connection, attachment: Attachment, subject: Subject) -> bool:
    """Push it; returns whether the registry itself lists it from now on."""
    _push(connection, attachment.content, attachment.artifact_type)
    manifest = manifest_of(attachment, subject)
    url = f"{connection.root}/manifests/{content_digest(manifest)}"
    answer = connection.ask("PUT", url, (201,), headers={"Content-Type": MANIFEST_TYPE}, content=manifest)
    return bool(answer.headers.get("OCI-Subject") == subject.digest)


def _add_to_index(connection: Connection, attachments: Sequence[Attachment], subject: Subject) -> None:
    entries = [descriptor_of(manifest_of(one, subject), one) for one in attachments]
    ours = {entry["digest"] for entry in entries}
    others = [entry for entry in _fallback(connection, subject.digest) if entry.get("digest") not in ours]
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": [*others, *entries]}
    content = json.dumps(index, separators=(",", ":"), sort_keys=True).encode()
    url = f"{connection.root}/manifests/{fallback_tag(subject.digest)}"
    connection.ask("PUT", url, (201,), headers={"Content-Type": INDEX_TYPES[0]}, content=content)
    if ours - {entry.get("digest") for entry in _fallback(connection, subject.digest)}:
        host = connection.reference.host
        raise ImageError(f"{host} took what is attached but does not show it", hint=_DAMAGED)


def _entries(connection: Connection, digest: str) -> list[dict[str, Any]]:
    answer = connection.ask("GET", f"{connection.root}/referrers/{digest}", (200, *_HAS_NO_API))
    if answer.status_code != 200:
        return _fallback(connection, digest)
    found, seen = _listed(answer.content), 0
    while (more := answer.links.get("next", {}).get("url")) and len(found) < MOST and seen < MOST:
        seen += 1
        answer = connection.ask("GET", f"{connection.reference.url}{_path(more)}", (200,))
        found += _listed(answer.content)
    return found


def _path(address: str) -> str:
    """The path of a next page: never another server."""
    if not address.startswith("/v2/"):
        raise ImageError(
            "the registry's list of what is attached goes on elsewhere", hint="check that it is a registry"
        )
    return address


def _fallback(connection: Connection, digest: str) -> list[dict[str, Any]]:
    url = f"{connection.root}/manifests/{fallback_tag(digest)}"
    answer = connection.ask("GET", url, (200, 404), headers={"Accept": INDEX_TYPES[0]})
    return _listed(answer.content) if answer.status_code == 200 else []


def _manifest(connection: Connection, digest: str) -> bytes:
    answer = connection.ask("GET", f"{connection.root}/manifests/{digest}", (200,), headers=_ACCEPTED)
    if content_digest(answer.content) != digest:
        raise ImageError(f"{connection.reference.host} has another manifest under {digest[:19]}", hint=_DAMAGED)
    return answer.content


def _listed(content: bytes) -> list[dict[str, Any]]:
    found = parsed(content)
    entries = found.get("manifests") if isinstance(found, dict) else None
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _push(connection: Connection, content: bytes, media_type: str) -> None:
    digest = content_digest(content)
    blob = Layer(digest, digest, len(content), "card", media_type, "attached", lambda offset: iter([content[offset:]]))
    push_blob(connection, blob, lambda _: None, lambda: False)
