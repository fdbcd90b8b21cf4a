"""The publish record beside a bundle: what went where, verified how."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import cast

from deploytk.base.files import write_text
from deploytk.base.json import plain
from deploytk.bundle import EDITABLE, Bundle
from deploytk.image.value import WeightsSource


@dataclass(frozen=True, slots=True)
class Release:
    """Where a bundle went, and how that was verified."""

    target: str
    repo: str
    revision: str
    url: str
    uploaded_files: int
    uploaded_bytes: int
    unchanged_files: int
    verified: bool
    verified_by: str  # "reading back every object", "LFS object ids", ...
    steps_left: tuple[str, ...]  # what only a person can do, one sentence each
    kept_files: tuple[str, ...] = ()  # of others, which were there and stayed
    deleted_files: tuple[str, ...] = ()  # of an earlier release, or of anybody with --mirror
    replaced_files: tuple[str, ...] = ()  # that somebody had edited there since the last release
    app_kept_files: tuple[str, ...] = ()  # of others, in the repository of the app
    app_replaced_files: tuple[str, ...] = ()
    app_files: Mapping[str, tuple[int, str]] = field(default_factory=dict)  # path -> size, SHA-256
    download: WeightsSource | None = None  # where its files can be had one by one


def record_path(bundle: Bundle) -> Path:
    """The publish record: what went where, newest last."""
    return bundle.beside("published.json")


def fetchable_source(bundle: Bundle) -> WeightsSource | None:
    """Where the last release of this very bundle is that gives out single files; None when there is none."""
    try:
        records = json.loads(record_path(bundle).read_text(encoding="utf-8"))["releases"]
        found = [one["download"] for one in records if one["digest"] == bundle.digest and one.get("download")]
        return WeightsSource(**found[-1])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def recorded_digests(bundle: Bundle, target: str, repo: str, verified_by: Sequence[str]) -> set[str]:
    """The digests of the bundles that the record tells of, at that place and verified in one of these ways."""
    try:
        records = json.loads(record_path(bundle).read_text(encoding="utf-8"))["releases"]
        mine = [one for one in records if (one["target"], one["repo"]) == (target, repo)]
        return {str(one["published_digest"]) for one in mine if one["verified"] and one["verified_by"] in verified_by}
    except (OSError, ValueError, LookupError, TypeError):
        return set()


def recorded_app_files(bundle: Bundle, target: str, repo: str) -> dict[str, tuple[int, str]]:
    """The files of the app that the last release to that place wrote; nothing where the record tells of none."""
    try:
        records = json.loads(record_path(bundle).read_text(encoding="utf-8"))["releases"]
        mine = [one for one in records if (one["target"], one["repo"]) == (target, repo) and one.get("app_files")]
        return {str(path): (int(size), str(sha256)) for path, (size, sha256) in mine[-1]["app_files"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def sent_cards(bundle: Bundle) -> set[str]:
    """The SHA-256 of every card that was sent from here, or began to be."""
    cards = _record(bundle).get("cards")
    return {str(one) for one in cards} if isinstance(cards, list) else set()


def keep_cards(bundle: Bundle, published: Bundle) -> None:
    """Add the cards that are about to be sent: after a kill they are known to be ours. Raises OSError."""
    cards = {file.sha256 for file in published.files if file.path in EDITABLE}
    _write(bundle, _record(bundle) | {"cards": sorted(sent_cards(bundle) | cards)})


def keep_record(bundle: Bundle, published: Bundle, release: Release) -> None:
    """Add the release of `bundle`, in the form that was `published`, to the record.

    Raises OSError when that cannot be written.
    """
    record = _record(bundle)
    found = record.get("releases")
    releases = found if isinstance(found, list) else []
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    digests = {"digest": bundle.digest, "published_digest": published.digest}
    entry = {"time": now, **digests, **cast(Mapping[str, object], plain(release))}
    _write(bundle, record | {"releases": [*releases, entry]})


def _record(bundle: Bundle) -> dict[str, object]:
    try:
        record = json.loads(record_path(bundle).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _write(bundle: Bundle, record: Mapping[str, object]) -> None:
    write_text(record_path(bundle), json.dumps(record, ensure_ascii=False, indent=1) + "\n")
