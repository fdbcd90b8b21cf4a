"""What is attached to an image: manifests of their own that name it as their subject (OCI 1.1, referrers)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from deploytk.image.config import content_digest
from deploytk.image.media_types import MANIFEST_TYPE

EMPTY, EMPTY_TYPE = b"{}", "application/vnd.oci.empty.v1+json"
"""The config of a manifest that has none."""

LARGEST_BYTES = 16 * 2**20
"""Of a manifest, and of what is attached."""

MOST = 1000
"""Attachments of one image that are looked at."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """One blob of some type, and what is said of it."""

    artifact_type: str
    content: bytes
    annotations: tuple[tuple[str, str], ...] = ()
    digest: str = ""  # of its manifest, where it is attached already


@dataclass(frozen=True, slots=True)
class Subject:
    """The manifest that something is attached to."""

    manifest: bytes
    media_type: str = MANIFEST_TYPE

    @property
    def digest(self) -> str:
        return content_digest(self.manifest)

    @property
    def annotations(self) -> dict[str, str]:
        notes = self._content().get("annotations")
        return {str(key): str(value) for key, value in notes.items()} if isinstance(notes, dict) else {}

    @property
    def image_id(self) -> str | None:
        """The digest of its config; None where it is an index."""
        config = self._content().get("config")
        return str(config.get("digest")) if isinstance(config, dict) else None

    def _content(self) -> dict[str, Any]:
        try:
            found = json.loads(self.manifest)
        except (ValueError, RecursionError):
            found = None
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class Attached:
    """An image, and all that is attached to it."""

    subject: Subject
    attachments: tuple[Attachment, ...]


def manifest_of(attachment: Attachment, subject: Subject) -> bytes:
    content = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": attachment.artifact_type,
        "config": {"mediaType": EMPTY_TYPE, "digest": content_digest(EMPTY), "size": len(EMPTY)},
        "layers": [
            {
                "mediaType": attachment.artifact_type,
                "digest": content_digest(attachment.content),
                "size": len(attachment.content),
            }
        ],
        "subject": {"mediaType": subject.media_type, "digest": subject.digest, "size": len(subject.manifest)},
        "annotations": dict(attachment.annotations),
    }
    return json.dumps(content, separators=(",", ":"), sort_keys=True).encode()


def descriptor_of(manifest: bytes, attachment: Attachment) -> dict[str, Any]:
    """The entry of an index for it, as the referrers API has them."""
    return {
        "mediaType": MANIFEST_TYPE,
        "artifactType": attachment.artifact_type,
        "digest": content_digest(manifest),
        "size": len(manifest),
        "annotations": dict(attachment.annotations),
    }


def fallback_tag(digest: str) -> str:
    """The tag of the index in registries that have no referrers API."""
    return digest.replace(":", "-")


def parsed(content: bytes) -> object:
    """What a server or a layout holds as JSON; None for what is none."""
    try:
        value: object = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value


def described(manifest: object, subject_digest: str) -> tuple[str, str, tuple[tuple[str, str], ...]] | None:
    """Type, digest of the blob and annotations of a manifest that attaches one blob to it; None for any other."""
    try:
        found: Any = manifest
        [layer] = found["layers"]
        if found["subject"]["digest"] != subject_digest:
            return None
        notes = found.get("annotations") or {}
        kind = found.get("artifactType") or found["config"]["mediaType"]
        return str(kind), str(layer["digest"]), tuple((str(key), str(value)) for key, value in notes.items())
    except (LookupError, TypeError, ValueError, AttributeError):
        return None
