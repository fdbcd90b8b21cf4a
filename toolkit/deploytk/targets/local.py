"""A hub in a directory: content-addressed objects, and a tree of links to them per revision.

    HUB/objects/ab/cdef...            a file, named by its SHA-256
    HUB/repos/NAME/revisions/REV/     the bundle at that revision, hard links to objects
    HUB/repos/NAME/current            a link to the newest revision

A revision is the SHA-256 of the bundle's deploytk.json, which names the digest of every other file.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from deploytk.atomic import disk_errors, locked, sync_directory
from deploytk.bundle import Bundle, read_bundle
from deploytk.bundle.links import clone_or_copy
from deploytk.digests import hash_file, hash_files
from deploytk.errors import BundleError, ReleaseError
from deploytk.progress import Advance, Progress
from deploytk.release import Change, PublishOptions, Release, ReleasePlan, compare

_MANIFEST = "deploytk.json"
_VERIFIED_BY = "reading every sent object back, and all others since they last changed"


@dataclass(frozen=True, slots=True)
class _Repository:
    hub: Path
    name: str

    @property
    def root(self) -> Path:
        return self.hub / "repos" / self.name

    @property
    def current(self) -> Path:
        return self.root / "current"

    def revision(self, revision: str) -> Path:
        return self.root / "revisions" / revision

    def object(self, sha256: str) -> Path:
        return self.hub / "objects" / sha256[:2] / sha256[2:]


class Local:
    name = "local"

    def preview(self, bundle: Bundle, options: PublishOptions) -> ReleasePlan:
        repository = _repository(bundle, options)
        changes = _changes(bundle, repository)
        size = sum(change.bytes for change in changes)
        permissions = "may write" if _is_writable(repository.hub) else "may not write here"
        return ReleasePlan(self.name, str(repository.root), None, changes, size, permissions)

    def publish(self, bundle: Bundle, options: PublishOptions, progress: Progress) -> Release:
        """Copy what is new, read it back, then show the new revision in one step.

        Objects that are there already are never sent again; damaged ones are replaced. Raises TryAgainError
        while another publisher holds the repository.
        """
        repository = _repository(bundle, options)
        wanted = _wanted(bundle)
        revision = wanted[_MANIFEST]
        changes = _changes(bundle, repository)
        with disk_errors(repository.hub, ReleaseError), locked(repository.root / ".lock", str(repository.root)):
            sent = _send(bundle, repository, wanted, progress)
            _verify(repository, wanted, progress)
            _show(repository, revision, wanted)
        unchanged = sum(change.status == "same" for change in changes)
        tree = repository.revision(revision)
        return Release(
            target=self.name,
            repo=str(repository.root),
            revision=revision,
            url=tree.resolve().as_uri(),
            uploaded_files=len(sent),
            uploaded_bytes=sum(sent.values()),
            unchanged_files=unchanged,
            verified=True,
            verified_by=_VERIFIED_BY,
            steps_left=(),
        )


def _repository(bundle: Bundle, options: PublishOptions) -> _Repository:
    hub = Path(options.repo) if options.repo else platformdirs.user_data_path("deploytk") / "hub"
    if hub.exists() and not hub.is_dir():
        raise ReleaseError(f"{hub} is not a directory", hint="name the hub's directory with --repo")
    if hub.is_dir() and any(hub.iterdir()) and not (hub / "objects").is_dir():
        raise ReleaseError(f"{hub} is not empty and not a hub", hint="name a new directory, or a hub's, with --repo")
    return _Repository(hub, bundle.name)


def _wanted(bundle: Bundle) -> dict[str, str]:
    """Path -> SHA-256 of every file that the revision has, the manifest included."""
    return {file.path: file.sha256 for file in bundle.files} | {_MANIFEST: hash_file(bundle.path / _MANIFEST)}


def _changes(bundle: Bundle, repository: _Repository) -> tuple[Change, ...]:
    remote: dict[str, str] = {}
    if repository.current.is_dir():
        try:
            remote = _wanted(read_bundle(repository.current))
        except BundleError:
            remote = {}
    return compare(bundle, remote, hash_file(bundle.path / _MANIFEST))


def _is_writable(hub: Path) -> bool:
    nearest = next(place for place in (hub.absolute(), *hub.absolute().parents) if place.exists())
    return os.access(nearest, os.W_OK)


def _send(bundle: Bundle, repository: _Repository, wanted: dict[str, str], progress: Progress) -> dict[str, int]:
    """Copy the objects that are missing or damaged; returns their sizes by path."""
    sizes = {path: (bundle.path / path).stat().st_size for path in wanted}
    there = {path: repository.object(sha256) for path, sha256 in wanted.items() if repository.object(sha256).is_file()}
    digests = hash_files(list(there.values()), "checking", progress)
    missing = [path for path, sha256 in wanted.items() if path not in there or digests[there[path]] != sha256]
    sent: dict[str, int] = {}
    with progress.task("sending", sum(sizes[path] for path in missing)) as advance:
        for path in missing:
            if wanted[path] in {wanted[done] for done in sent}:
                continue
            _send_object(bundle.path / path, repository.object(wanted[path]), wanted[path], advance)
            sent[path] = sizes[path]
    return sent


def _send_object(source: Path, place: Path, sha256: str, advance: Advance) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f".{place.name}.partial")
    clone_or_copy(source, partial)
    if hash_file(partial, advance) != sha256:
        partial.unlink()
        raise ReleaseError(f"{source} changed while it was sent", hint="package the model again, then publish")
    partial.chmod(0o444)
    partial.replace(place)
    sync_directory(place.parent)


def _verify(repository: _Repository, wanted: dict[str, str], progress: Progress) -> None:
    """Raises ReleaseError unless every object of the revision has its digest; unchanged ones are not read twice."""
    places = {path: repository.object(sha256) for path, sha256 in wanted.items()}
    digests = hash_files(list(places.values()), "verifying", progress)
    for path, sha256 in wanted.items():
        if digests[places[path]] != sha256:
            raise ReleaseError(
                f"{path} arrived damaged at {places[path]}", hint="publish again; check the disk if it stays so"
            )


def _show(repository: _Repository, revision: str, wanted: dict[str, str]) -> None:
    """Lay out the revision's tree and point `current` at it, each in one step."""
    tree = repository.revision(revision)
    if not _is_whole(repository, tree, wanted):
        partial = tree.with_name(f".{revision}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for path, sha256 in wanted.items():
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            os.link(repository.object(sha256), partial / path)
        shutil.rmtree(tree, ignore_errors=True)
        partial.rename(tree)
        sync_directory(tree.parent)
    link = repository.root / ".current.partial"
    link.unlink(missing_ok=True)
    link.symlink_to(Path("revisions") / revision)
    link.replace(repository.current)
    sync_directory(repository.root)


def _is_whole(repository: _Repository, tree: Path, wanted: dict[str, str]) -> bool:
    return all(
        (tree / path).is_file() and (tree / path).samefile(repository.object(sha256)) for path, sha256 in wanted.items()
    )
