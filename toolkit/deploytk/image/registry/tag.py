"""Whose image a tag names: one of others is not taken from them unasked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from deploytk.base.errors import ImageError
from deploytk.base.terminal import one_line
from deploytk.image.config import LABELS
from deploytk.image.media_types import INDEX_TYPES, MANIFEST_TYPES
from deploytk.image.registry.connection import Connection
from deploytk.image.registry.pull import config_of

TAKE_OVER = "take another tag, or say --mirror to take this one over"

_TITLE = "org.opencontainers.image.title"
_MARK = f"{LABELS}set-digest"


@dataclass(frozen=True, slots=True)
class Tagged:
    """What a tag names now."""

    manifest: bytes | None  # None: nothing
    labels: dict[str, str]

    def foreign_to(self, manifest: bytes | None, title: str | None) -> str:
        """Whose it is, in words, when it is neither that very manifest nor deploytk's image of that name; else ""."""
        if self.manifest is None or self.manifest == manifest:
            return ""
        if _MARK not in self.labels:
            return "an image that deploytk did not make"
        there = self.labels.get(_TITLE, "")
        return "" if there == title else f"deploytk's image of {one_line(there, 100) or 'no name'}"


def title_in(manifest: bytes) -> str | None:
    """The name of the bundle in an image of deploytk's, by its manifest; None for other images."""
    labels = _texts(json.loads(manifest).get("annotations"))
    return labels.get(_TITLE) if _MARK in labels else None


def tagged(connection: Connection) -> Tagged:
    """What the registry has under the tag that the connection is about."""
    url = f"{connection.root}/manifests/{connection.reference.tag}"
    accept = {"Accept": ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))}
    answer = connection.ask("GET", url, (200, 404), headers=accept)
    if answer.status_code == 404:
        return Tagged(None, {})
    return Tagged(answer.content, _labels(connection, answer.content))


def require_own(connection: Connection, there: Tagged, manifest: bytes | None, title: str | None) -> None:
    """Raises ImageError for a tag that names an image of others."""
    foreign = there.foreign_to(manifest, title)
    if foreign:
        raise ImageError(f"{connection.reference} names {foreign}, which stays", hint=TAKE_OVER)


def _labels(connection: Connection, manifest: bytes) -> dict[str, str]:
    """Those in the manifest, or else in the config: an image of deploytk's that Docker pushed has them there alone."""
    found = _object(manifest)
    labels = _texts(found.get("annotations"))
    config = found.get("config")
    digest = config.get("digest") if isinstance(config, dict) else None
    if _MARK in labels or not isinstance(digest, str):
        return labels
    try:
        inner = _object(config_of(connection, digest)).get("config")
    except ImageError:  # it is gone, or damaged: then nobody knows whose it is
        return {}
    return _texts(inner.get("Labels")) if isinstance(inner, dict) else {}


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _texts(found: object) -> dict[str, str]:
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)}
