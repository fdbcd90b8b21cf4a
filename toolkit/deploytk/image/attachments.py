"""Attaches to images and lists what is attached, wherever they are: HOST/NAME:TAG, HOST/NAME@DIGEST or oci:DIR:NAME."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deploytk.image.attachment import Attached, Attachment
from deploytk.image.layout_referrers import attach_in_layout, attached_in_layout
from deploytk.image.registry.referrers import attach_to, attached_in_registry

LAYOUT = "oci:"


def attach(place: str, attachments: Sequence[Attachment]) -> None:
    if place.startswith(LAYOUT):
        attach_in_layout(*_in_layout(place), attachments)
    else:
        attach_to(place, attachments)


def attached_to(place: str) -> Attached:
    return attached_in_layout(*_in_layout(place)) if place.startswith(LAYOUT) else attached_in_registry(place)


def _in_layout(place: str) -> tuple[Path, str | None]:
    """The directory and the name in it; what is there as a whole is a directory."""
    text = place.removeprefix(LAYOUT)
    if Path(text).is_dir() or ":" not in text:
        return Path(text), None
    parts = text.split(":")
    at = next((at for at in range(1, len(parts)) if Path(":".join(parts[:at])).is_dir()), 1)
    return Path(":".join(parts[:at])), ":".join(parts[at:])
