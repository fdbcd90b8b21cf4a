"""Attaches to an image in an OCI layout, and lists what is attached: entries of its index that name it as subject."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploytk.base.errors import ImageError
from deploytk.base.files import disk_errors, locked, read_bounded, write_text
from deploytk.image.attachment import (
    EMPTY,
    LARGEST_BYTES,
    MOST,
    Attached,
    Attachment,
    Subject,
    described,
    descriptor_of,
    manifest_of,
    parsed,
)
from deploytk.image.config import content_digest
from deploytk.image.oci import blob_place, chosen_entry, entries_of, read_json

_DAMAGED = "write the layout anew"


def attach_in_layout(directory: Path, name: str | None, attachments: Sequence[Attachment]) -> None:
    """Attach them to the image called `name`, or the only one there."""
    with disk_errors(directory, ImageError), locked(directory / ".lock", str(directory)):
        index = read_json(directory / "index.json", directory)
        subject = _subject(directory, chosen_entry(directory, index, name))
        manifests = [(manifest_of(one, subject), one) for one in attachments]
        for content in (EMPTY, *(one.content for one in attachments), *(manifest for manifest, _ in manifests)):
            write_text(blob_place(directory, content_digest(content)), content.decode())
        ours = [descriptor_of(manifest, one) for manifest, one in manifests]
        digests = {entry["digest"] for entry in ours}
        index["manifests"] = [*(one for one in entries_of(index) if one.get("digest") not in digests), *ours]
        write_text(directory / "index.json", json.dumps(index, indent=1) + "\n")


def attached_in_layout(directory: Path, name: str | None) -> Attached:
    """The image and all that is attached to it; raises ImageError for bytes that are not those of their digest."""
    index = read_json(directory / "index.json", directory)
    subject = _subject(directory, chosen_entry(directory, index, name))
    found = []
    for entry in entries_of(index)[:MOST]:
        digest = str(entry.get("digest"))
        if "artifactType" not in entry:
            continue
        parts = described(parsed(_blob(directory, digest)), subject.digest)
        if parts:
            kind, blob, notes = parts
            found.append(Attachment(kind, _blob(directory, blob), notes, digest))
    return Attached(subject, tuple(found))


def _subject(directory: Path, entry: dict[str, Any]) -> Subject:
    return Subject(_blob(directory, str(entry["digest"])), str(entry.get("mediaType")))


def _blob(directory: Path, digest: str) -> bytes:
    place = blob_place(directory, digest)
    try:
        content = read_bounded(place, LARGEST_BYTES)
    except (OSError, ValueError) as error:
        raise ImageError(f"{directory} is damaged: {digest[:19]} cannot be read", hint=_DAMAGED) from error
    if content_digest(content) != digest:
        raise ImageError(f"{directory} is damaged: {digest[:19]} has another digest", hint=_DAMAGED)
    return content
