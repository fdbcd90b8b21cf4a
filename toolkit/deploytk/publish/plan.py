"""What publishing would do: file by file, and to the hub's app."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from deploytk.bundle import MANIFEST, Bundle
from deploytk.publish.obstacles import Obstacle


@dataclass(frozen=True, slots=True)
class Change:
    """What publishing would do to one file of the repository."""

    path: str
    status: Literal["new", "changed", "same", "deleted", "kept"]  # kept: of others, not in the release
    bytes: int  # to be sent; 0 for all but new and changed
    is_edited: bool = False  # what it writes over is not what deploytk wrote there: somebody changed that since


@dataclass(frozen=True, slots=True)
class AppPlan:
    """What would become of the hub's app."""

    place: str  # its address, or the directory that it is written to
    sdk: str  # what the hub runs it with
    hardware: str | None  # what would be ordered for it; None: what it has
    is_private: bool | None
    secrets: tuple[str, ...]  # names of what it would be given, never the values
    changes: tuple[Change, ...]
    upload_bytes: int
    doubt: str | None = None  # what speaks against the choice


@dataclass(frozen=True, slots=True)
class ReleasePlan:
    """What `publish --plan` shows; nothing has been changed."""

    target: str
    repo: str
    is_private: bool | None  # None where the target has no such notion
    changes: tuple[Change, ...]
    upload_bytes: int
    permissions: str  # what the credentials found may do, in words; never the credentials
    app: AppPlan | None = None
    obstacles: tuple[Obstacle, ...] = ()  # what would stop the run, before it changed anything


def compare(
    bundle: Bundle, remote: Mapping[str, str], manifest_sha256: str, deleted: Collection[str] = ()
) -> tuple[Change, ...]:
    """What publishing changes, against the paths and SHA-256 digests of what is there, of which `deleted` goes."""
    wanted = {file.path: (file.sha256, file.size) for file in bundle.files}
    wanted[MANIFEST] = (manifest_sha256, (bundle.path / MANIFEST).stat().st_size)
    return changes_between(wanted, remote, deleted)


def changes_between(
    wanted: Mapping[str, tuple[str, int]], remote: Mapping[str, str], deleted: Collection[str] = ()
) -> tuple[Change, ...]:
    """What makes of the paths and digests `remote` those of `wanted`, which has sizes as well, without `deleted`."""
    changes = [
        Change(path, _status(remote.get(path), digest), 0 if remote.get(path) == digest else size)
        for path, (digest, size) in wanted.items()
    ]
    changes += extra_files(remote.keys() - wanted.keys(), deleted)
    return tuple(sorted(changes, key=lambda change: change.path))


def extra_files(paths: Iterable[str], deleted: Collection[str]) -> list[Change]:
    """What becomes of files that lie there and are not in the release."""
    return [Change(path, "deleted" if path in deleted else "kept", 0) for path in paths]


def is_done(changes: Iterable[Change]) -> bool:
    """Whether nothing is left to do."""
    return all(change.status in ("same", "kept") for change in changes)


def paths_with(status: str, changes: Iterable[Change]) -> tuple[str, ...]:
    return tuple(change.path for change in changes if change.status == status)


def edited_paths(changes: Iterable[Change]) -> tuple[str, ...]:
    """What somebody had made of these files is written over."""
    return tuple(change.path for change in changes if change.is_edited)


def _status(there: str | None, digest: str) -> Literal["new", "changed", "same"]:
    if there is None:
        return "new"
    return "same" if there == digest else "changed"
