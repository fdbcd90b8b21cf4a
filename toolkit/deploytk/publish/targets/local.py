"""A hub in a directory: content-addressed objects, and a tree of links to them per revision.

    HUB/objects/ab/cdef...            a file, named by its SHA-256
    HUB/repos/NAME/revisions/REV/     the bundle at that revision, hard links to objects
    HUB/repos/NAME/current            a link to the newest revision

A revision is the SHA-256 of the bundle's deploytk.json, which names the digest of every other file. Whatever is
written appears by one rename, under a lock on the whole hub; names that end in .partial are what a kill left behind.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import platformdirs

from deploytk.base.digests import hash_file, hash_files
from deploytk.base.errors import ReleaseError
from deploytk.base.files import disk_errors, locked, sync_directory
from deploytk.base.progress import Advance, Progress
from deploytk.base.readback import file_bytes, is_same
from deploytk.bundle import MANIFEST, Bundle
from deploytk.bundle.links import clone_or_copy, link_or_copy
from deploytk.publish.edited import mark_edited, refuse_edited
from deploytk.publish.obstacles import Obstacle, obstacles_in
from deploytk.publish.options import NoOptions, PublishOptions
from deploytk.publish.plan import Change, ReleasePlan, compare, edited_paths, paths_with
from deploytk.publish.record import Release
from deploytk.publish.superseded import LARGEST_MANIFEST_BYTES, Named, named_in
from deploytk.publish.target import About, AppRequest

_THREADS = 2
_VERIFIED_BY = "reading every sent object back; the others since they last changed, and samples of them now"


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
    about = About("local", "a directory", takes=("mirror", "edited_card"))
    app: AppRequest | None = None

    def __init__(self, options: NoOptions = NoOptions()) -> None:  # noqa: B008 (it is frozen)
        del options

    def preview(self, bundle: Bundle, options: PublishOptions) -> ReleasePlan:
        repository = _repository(bundle, options)
        changes = _changes(bundle, repository, options)
        size = sum(change.bytes for change in changes)
        may_write = _is_writable(repository.hub)
        permissions = "may write" if may_write else "may not write here"
        refusal = Obstacle(f"{repository.hub} may not be written here", "name another directory with --repo")
        obstacles = [] if may_write else [refusal]
        obstacles += obstacles_in(lambda: _refuse_edited(bundle, repository, changes, options))
        root = str(repository.root)
        return ReleasePlan(self.about.name, root, None, changes, size, permissions, obstacles=tuple(obstacles))

    def publish(self, bundle: Bundle, options: PublishOptions, progress: Progress) -> Release:
        """Copy what is new, read it back, then show the new revision in one step.

        Objects that are there already are never sent again; damaged ones are replaced. Raises TryAgainError
        while another publisher holds the hub.
        """
        repository = _repository(bundle, options)
        wanted = _wanted(bundle)
        with disk_errors(repository.hub, ReleaseError):
            (repository.hub / "objects").mkdir(parents=True, exist_ok=True)
            with locked(repository.hub / ".lock", str(repository.hub)):
                _clear_interrupted(repository.hub)
                changes = _changes(bundle, repository, options)
                _refuse_edited(bundle, repository, changes, options)
                sent = _send(bundle, repository, wanted, progress)
                _show(repository, wanted, paths_with("kept", changes), progress, is_mirror=options.is_mirror)
                _verify(repository, wanted, paths_with("kept", changes))
        tree = repository.revision(wanted[MANIFEST])
        return Release(
            target=self.about.name,
            repo=str(repository.root),
            revision=wanted[MANIFEST],
            url=tree.resolve().as_uri(),
            uploaded_files=len(sent),
            uploaded_bytes=sum(sent.values()),
            unchanged_files=sum(change.status == "same" and change.path not in sent for change in changes),
            verified=True,
            verified_by=_VERIFIED_BY,
            steps_left=(),
            kept_files=paths_with("kept", changes),
            deleted_files=paths_with("deleted", changes),
            replaced_files=edited_paths(changes),
        )


def _repository(bundle: Bundle, options: PublishOptions) -> _Repository:
    hub = Path(options.repo) if options.repo else platformdirs.user_data_path("deploytk") / "hub"
    with disk_errors(hub, ReleaseError):
        if hub.exists() and not hub.is_dir():
            raise ReleaseError(f"{hub} is not a directory", hint="name the hub's directory with --repo")
        if hub.is_dir() and any(entry.name not in ("objects", "repos", ".lock") for entry in hub.iterdir()):
            hint = "name a new directory, or a hub's, with --repo"
            raise ReleaseError(f"{hub} is not empty and not a hub", hint=hint)
    return _Repository(hub, bundle.name)


def _clear_interrupted(hub: Path) -> None:
    """Remove what a publisher that was killed had begun; whole objects stay, so nothing is sent twice."""
    for pattern in ("objects/*/.*.partial", "repos/*/.*.partial", "repos/*/revisions/**/.*.partial"):
        for leftover in list(hub.glob(pattern)):
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)
            else:
                leftover.unlink(missing_ok=True)


def _wanted(bundle: Bundle) -> dict[str, str]:
    """Path -> SHA-256 of every file that the revision has, the manifest included."""
    return {file.path: file.sha256 for file in bundle.files} | {MANIFEST: hash_file(bundle.path / MANIFEST)}


def _changes(bundle: Bundle, repository: _Repository, options: PublishOptions) -> tuple[Change, ...]:
    """What becomes of the tree that is shown: its files are named by its manifest, others were put there by others."""
    wanted = _wanted(bundle)
    named = named_in(_small_file(repository, MANIFEST) or b"")
    facts = {path: _facts(repository, path, named) for path in _files(repository.current)}
    extra = facts.keys() - wanted.keys()
    deleted = extra if options.is_mirror else {path for path in extra if facts[path] == named.get(path)}
    there = {path: sha256 for path, (_, sha256) in facts.items()}
    return mark_edited(compare(bundle, there, wanted[MANIFEST], deleted), named, facts.get)


def _facts(repository: _Repository, path: str, named: Named) -> tuple[int, str]:
    """Size and SHA-256 of a file of the tree that is shown; of a link to the object that it is named with, unread."""
    place = repository.current / path
    if place.is_symlink() or not place.is_file():
        return 0, ""
    known = repository.object(named[path][1]) if path in named else None
    is_known = known is not None and known.is_file() and _inode(known) == _inode(place)
    return place.stat().st_size, named[path][1] if is_known else hash_file(place)


def _small_file(repository: _Repository, path: str) -> bytes | None:
    place = repository.current / path
    is_small = place.is_file() and place.stat().st_size <= LARGEST_MANIFEST_BYTES
    return place.read_bytes() if is_small and not place.is_symlink() else None


def _refuse_edited(bundle: Bundle, repository: _Repository, changes: Sequence[Change], options: PublishOptions) -> None:
    refuse_edited(str(repository.root), bundle, changes, partial(_small_file, repository), options)


def _files(tree: Path) -> dict[str, Path]:
    """The files below a directory, links of any kind among them, by their paths in it."""
    return {str(path.relative_to(tree)): path for path in tree.rglob("*") if path.is_symlink() or not path.is_dir()}


def _is_writable(hub: Path) -> bool:
    nearest = next(place for place in (hub.absolute(), *hub.absolute().parents) if place.exists())
    return os.access(nearest, os.W_OK)


def _send(bundle: Bundle, repository: _Repository, wanted: dict[str, str], progress: Progress) -> dict[str, int]:
    """Copy the objects that are missing or damaged and read them back; returns their sizes by path."""
    paths = {sha256: path for path, sha256 in reversed(wanted.items())}  # equal files are one object
    there = [place for place in map(repository.object, paths) if place.is_file()]
    digests = hash_files(there, "checking", progress)
    missing = [
        sha256
        for sha256, path in paths.items()
        if digests.get(repository.object(sha256)) != sha256
        or not _is_sampled(bundle.path / path, repository.object(sha256))
    ]
    damaged = {_inode(repository.object(sha256)): sha256 for sha256 in missing if repository.object(sha256) in digests}
    sizes = {paths[sha256]: (bundle.path / paths[sha256]).stat().st_size for sha256 in missing}
    with progress.task("sending", 2 * sum(sizes.values())) as advance, ThreadPoolExecutor(_THREADS) as threads:
        sending = [
            threads.submit(_send_object, bundle.path / paths[sha256], repository.object(sha256), sha256, advance)
            for sha256 in missing
        ]
        try:
            for done in as_completed(sending):
                done.result()
        finally:
            threads.shutdown(cancel_futures=True)
    if damaged:
        _replace_links(repository, damaged)
    return sizes


def _is_sampled(source: Path, there: Path) -> bool:
    """Whether samples are the same: what was hashed before and has not changed since may have rotted."""
    size = source.stat().st_size
    return there.stat().st_size == size and is_same(size, file_bytes(source), file_bytes(there))


def _send_object(source: Path, place: Path, sha256: str, advance: Advance) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f".{place.name}.partial")
    try:
        clone_or_copy(source, partial, advance)
        if hash_file(partial, advance) != sha256:
            raise ReleaseError(f"{source} changed while it was sent", hint="package the model again, then publish")
        partial.chmod(0o444)
        partial.replace(place)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_directory(place.parent)


def _replace_links(repository: _Repository, damaged: Mapping[tuple[int, int], str]) -> None:
    """Point every revision that shows a damaged object to the one that replaced it."""
    for path in repository.hub.glob("repos/*/revisions/*/**/*"):
        sha256 = damaged.get(_inode(path)) if path.is_file() else None
        if sha256:
            _replace_link(repository.object(sha256), path)


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _replace_link(source: Path, path: Path) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    link_or_copy(source, partial)
    partial.replace(path)


def _show(
    repository: _Repository, wanted: dict[str, str], kept: Sequence[str], progress: Progress, *, is_mirror: bool
) -> None:
    """Lay out the revision's tree and point `current` at it, each in one step; files of others come along."""
    revision = wanted[MANIFEST]
    tree = repository.revision(revision)
    if tree.is_dir():
        _repair(repository, tree, wanted, progress, is_mirror=is_mirror)
        _carry(repository.current, kept, tree)
    else:
        partial = tree.with_name(f".{revision}.partial")
        for path, sha256 in wanted.items():
            link_or_copy(repository.object(sha256), partial / path)
        _carry(repository.current, kept, partial)
        for directory in (partial, *(path for path in partial.rglob("*") if path.is_dir())):
            sync_directory(directory)
        partial.rename(tree)
        sync_directory(tree.parent)
    link = repository.root / ".current.partial"
    link.symlink_to(Path("revisions") / revision)
    link.replace(repository.current)
    sync_directory(repository.root)


def _carry(old: Path, paths: Sequence[str], tree: Path) -> None:
    """Copy these files of others into a tree that has not got them; a link stays a link."""
    for path in paths:
        place = tree / path
        if place.is_symlink() or place.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if (old / path).is_symlink():
            place.symlink_to((old / path).readlink())
        else:
            partial = place.with_name(f".{place.name}.partial")
            clone_or_copy(old / path, partial)
            partial.replace(place)


def _repair(
    repository: _Repository, tree: Path, wanted: dict[str, str], progress: Progress, *, is_mirror: bool
) -> None:
    """Make a tree that is there have what it should; a file that is right, or of others, is not touched."""
    there = _files(tree)
    if is_mirror:
        for path in there.keys() - wanted.keys():
            there[path].unlink()
    digests = hash_files([there[path] for path in wanted if path in there], "verifying", progress)
    for path, sha256 in wanted.items():
        if path not in there or digests[there[path]] != sha256:
            _replace_link(repository.object(sha256), tree / path)


def _verify(repository: _Repository, wanted: dict[str, str], kept: Sequence[str]) -> None:
    """Raises ReleaseError unless `current` is the revision, and each file of it the object that was read back."""
    tree = repository.revision(wanted[MANIFEST])
    there = {str(path.relative_to(tree)): path for path in tree.rglob("*") if path.is_symlink() or not path.is_dir()}
    odd = sorted((there.keys() - set(kept)) ^ wanted.keys()) or [
        path for path, sha256 in wanted.items() if not _is_right(repository, there[path], sha256)
    ]
    if odd or repository.current.resolve() != tree.resolve():
        what = f"{tree / odd[0]} is not what was sent" if odd else f"{repository.current} does not show {tree.name}"
        raise ReleaseError(what, hint="run again; if it happens again, check the disk of the hub")


def _is_right(repository: _Repository, path: Path, sha256: str) -> bool:
    """Whether a file is a link to its object; a copy, where there are no hard links, is read."""
    if path.is_symlink():
        return False
    return _inode(path) == _inode(repository.object(sha256)) or hash_file(path) == sha256
