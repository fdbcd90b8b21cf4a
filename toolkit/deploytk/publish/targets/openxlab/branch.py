"""The branch of the repository: looked at, brought to what a bundle says by one update of one ref, verified."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from deploytk.base.errors import TryAgainError
from deploytk.base.progress import Progress
from deploytk.bundle import Bundle
from deploytk.publish.edited import mark_edited, refuse_edited
from deploytk.publish.options import PublishOptions
from deploytk.publish.plan import Change, extra_files, is_done
from deploytk.publish.targets.openxlab.access import require_writer
from deploytk.publish.targets.openxlab.commits import FIRST_S, REF, Commit
from deploytk.publish.targets.openxlab.foreign import Extra, small_files, sort_extra
from deploytk.publish.targets.openxlab.git import Git
from deploytk.publish.targets.openxlab.lfs import present_objects
from deploytk.publish.targets.openxlab.lfs_upload import send_objects
from deploytk.publish.targets.openxlab.place import Place
from deploytk.publish.targets.openxlab.tree import Entry, with_attributes
from deploytk.publish.targets.openxlab.verify import default_branch, verify

_ATTEMPTS = 3  # while somebody else pushes to the same branch


@dataclass(frozen=True, slots=True)
class Remote:
    """The repository as it is."""

    branch: str
    commit: str | None  # None: it is empty
    blobs: dict[str, str]  # path -> git object id
    objects: set[str]  # LFS object ids that are there, of those we want


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to become of the repository."""

    remote: Remote
    entries: Sequence[Entry]
    extra: Extra

    @property
    def files(self) -> dict[str, str]:
        return {entry.path: entry.blob for entry in self.entries}

    @property
    def deleted(self) -> Collection[str]:
        return self.extra.deleted

    @property
    def changes(self) -> tuple[Change, ...]:
        changes = _changes(self.entries, self.remote, self.deleted)
        return mark_edited(changes, self.extra.named, self.extra.facts.get)


def bring(
    git: Git, place: Place, entries: Sequence[Entry], bundle: Bundle, progress: Progress, options: PublishOptions
) -> tuple[str, tuple[Change, ...]]:
    """Make the branch have what `entries` say; returns its commit and what had to change."""
    first: tuple[Change, ...] | None = None
    for _ in range(_ATTEMPTS):
        wanted = look(git, entries, is_mirror=options.is_mirror)
        remote = wanted.remote
        refuse_edited(place.repo, bundle, wanted.changes, small_files(git, remote.blobs), options)
        first = first or wanted.changes
        if not is_done(wanted.changes):
            require_writer(git)
        send_objects(git, [entry for entry in entries if entry.oid and entry.oid not in remote.objects], progress)
        if remote.commit and not wanted.deleted and wanted.files.items() <= remote.blobs.items():
            verify(git, entries, remote.branch, remote.commit)
            return remote.commit, first
        commit = make_commit(git, wanted, bundle)
        if _push(git, commit, remote):
            verify(git, entries, remote.branch, commit)
            return commit, first
        progress.note("the branch moved meanwhile; looking again")
    raise TryAgainError(f"somebody else keeps pushing to {place.repo}", hint="run again when that has ended")


def look(git: Git, entries: Sequence[Entry], *, is_mirror: bool) -> Wanted:
    """What the branch shall have, and what of what is there goes."""
    remote = _head(git, entries)
    extra = sort_extra(git, remote.blobs, {entry.path for entry in entries}, is_mirror=is_mirror)
    return Wanted(remote, with_attributes(entries, extra.pointers), extra)


def _head(git: Git, entries: Sequence[Entry]) -> Remote:
    """The head of the default branch, its tree without large files, and the LFS objects that are there."""
    branch, commit = default_branch(git)
    blobs: dict[str, str] = {}
    if commit:
        wanted = f"+refs/heads/{branch}:refs/remotes/hub/{branch}"
        # Small files come along: a push packs the new ones as differences to them.
        git.must("fetch", "--quiet", "--no-tags", "--filter=blob:limit=1m", "hub", wanted)
        listing = git.must("ls-tree", "-r", "-z", "--full-tree", commit).decode("utf-8", "surrogateescape")
        for line in filter(None, listing.split("\0")):
            facts, _, path = line.partition("\t")
            blobs[path] = facts.split()[2]
    return Remote(branch, commit, blobs, present_objects(git, entries))


def _changes(entries: Sequence[Entry], remote: Remote, deleted: Collection[str]) -> tuple[Change, ...]:
    changes = []
    for entry in entries:
        there = remote.blobs.get(entry.path)
        is_sent = entry.oid is not None and entry.oid in remote.objects
        if there == entry.blob and (entry.oid is None or is_sent):
            changes.append(Change(entry.path, "same", 0))
        else:
            changes.append(Change(entry.path, "changed" if there else "new", 0 if is_sent else entry.size))
    changes += extra_files(remote.blobs.keys() - {entry.path for entry in entries}, deleted)
    return tuple(sorted(changes, key=lambda change: change.path))


def make_commit(git: Git, wanted: Wanted, bundle: Bundle) -> str:
    """A commit on top of what is there; the same input gives the same id."""
    when_s, parent = FIRST_S, wanted.remote.commit
    if parent:
        when_s = int(git.must("log", "-1", "--format=%ct", parent)) + 1
    message = f"Publish {bundle.name}\n\nBundle {bundle.digest}\n"
    files = {entry.path: entry.content for entry in wanted.entries}
    stream = Commit(message, parent, when_s, files, wanted.deleted).stream()
    git.must("fast-import", "--quiet", "--force", stdin=stream)
    return git.must("rev-parse", REF).decode().strip()


def _push(git: Git, commit: str, remote: Remote) -> bool:
    """Move the branch in one step; False when it was moved by somebody else before."""
    ref = f"refs/heads/{remote.branch}"

    def head() -> str:
        return git.must("ls-remote", "hub", ref).decode().partition("\t")[0]

    retry = git.patience()
    while True:
        done = git.run("push", "--quiet", "--no-verify", "hub", f"{commit}:{ref}")
        # The answer may be lost while the branch has moved: what counts is where it is.
        if done.code == 0:
            return True
        if done.trouble not in ("gone", "moved"):
            raise git.error(done)
        now = _await_move(git, head, remote.commit or "") if done.is_slow else head()
        if now == commit:
            return True
        if done.trouble == "moved" or now != (remote.commit or ""):
            return False
        git.wait(retry, done)


def _await_move(git: Git, head: Callable[[], str], before: str) -> str:
    """Where the branch has moved to, of a server that has our push and takes its time for it.

    Raises TryAgainError when it does not move: pushed once more it would have the same work twice.
    """
    retry = git.patience()
    while (now := head()) == before:
        retry.wait("has the push and has not answered")
    return now
