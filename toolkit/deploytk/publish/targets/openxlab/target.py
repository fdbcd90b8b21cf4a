"""Publishes a bundle to an OpenXLab model repository: LFS objects first, then one commit by one update of one ref."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploytk.base.cache import cache_directory
from deploytk.base.credentials import Credential, find_credential
from deploytk.base.errors import ReleaseError, TryAgainError
from deploytk.base.files import disk_errors, locked
from deploytk.base.progress import Progress, Silent
from deploytk.bundle import Bundle
from deploytk.publish.options import PublishOptions
from deploytk.publish.plan import Change, ReleasePlan
from deploytk.publish.platform import Platform
from deploytk.publish.record import Release
from deploytk.publish.target import About, AppRequest
from deploytk.publish.targets.common.app_repository import write_app
from deploytk.publish.targets.openxlab.access import is_public, permissions, require_writer
from deploytk.publish.targets.openxlab.app import app_place, plan_app, push_app, steps_left
from deploytk.publish.targets.openxlab.git import PATIENCE_S, Git
from deploytk.publish.targets.openxlab.lfs import present_objects
from deploytk.publish.targets.openxlab.lfs_upload import send_objects
from deploytk.publish.targets.openxlab.options import OpenXLabOptions
from deploytk.publish.targets.openxlab.place import Place, find_place
from deploytk.publish.targets.openxlab.tree import Entry, wanted_tree

_VERIFIED_BY = "the commit id of the branch, and the LFS object id and size of every large file"
_FIRST_COMMIT_S = 1704067200  # 2024-01-01: a commit says nothing about when or where, so the same bundle gives the same
_AUTHOR = "deploytk <deploytk@localhost>"
_ATTEMPTS = 3  # while somebody else pushes to the same branch


@dataclass(frozen=True, slots=True)
class _Remote:
    """The repository as it is."""

    branch: str
    commit: str | None  # None: it is empty
    blobs: dict[str, str]  # path -> git object id
    objects: set[str]  # LFS object ids that are there, of those we want


def _credential() -> Credential:
    hint = "set OPENXLAB_USERNAME and OPENXLAB_GIT_TOKEN (account, key management, a Git token that may write)"
    return find_credential("openxlab", ("OPENXLAB_USERNAME", "OPENXLAB_GIT_TOKEN"), hint)


class OpenXLab:
    about = About(
        "openxlab",
        "OpenXLab",
        options=OpenXLabOptions,
        takes=("public",),
        programs=("git",),
        credential=_credential,
        platform=Platform("openxlab", (3, 9), "0.0.0.0", 7860, 48 * 2**30, 24 * 2**30),  # noqa: S104 (hubs reach it so)
    )

    def __init__(
        self,
        options: OpenXLabOptions = OpenXLabOptions(),  # noqa: B008 (it is frozen)
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._own = options
        self._patience_s = patience_s  # with a server that does not answer

    @property
    def app(self) -> AppRequest | None:
        own = self._own
        return AppRequest(is_preflighted=True, url=own.app_url, wait_s=own.wait_s) if own.has_app else None

    def preview(self, bundle: Bundle, options: PublishOptions) -> ReleasePlan:
        if self._own.via == "sdk":
            from deploytk.publish.targets.openxlab.flat import preview_flat

            return preview_flat(bundle, options)
        place = find_place(options.repo)
        with tempfile.TemporaryDirectory(prefix="deploytk-") as directory:
            git = Git(Path(directory) / "work", place.url, place.account, Silent(), self._patience_s)
            git.start()
            entries = wanted_tree(bundle)
            remote = _look(git, entries)
            is_private = not is_public(git)
            changes = _changes(entries, remote)
            app = None
            if self._own.has_app:
                is_same = remote.commit and all(change.status == "same" for change in changes)
                commit = str(remote.commit) if is_same else _commit(git, entries, remote, bundle)
                app = plan_app(bundle, place.url, commit, self._own.app_remote, is_private=is_private)
            allowed = permissions(git)
        size = sum(change.bytes for change in changes)
        return ReleasePlan(self.about.name, place.repo, is_private, changes, size, allowed, app)

    def publish(self, bundle: Bundle, options: PublishOptions, progress: Progress) -> Release:
        """Send the LFS objects that the server lacks, push one commit, and ask for all of it back.

        Nothing is seen of it before the branch moves. Raises ReleaseError when the server refuses, TryAgainError
        when it does not answer or another publisher is at it.
        """
        if self._own.via == "sdk":
            from deploytk.publish.targets.openxlab.flat import publish_flat

            return publish_flat(bundle, options, progress)
        place = find_place(options.repo)
        with _workplace(place) as work:
            git = Git(work, place.url, place.account, progress, self._patience_s)
            git.start()
            is_open = is_public(git)
            if is_open and options.is_private:
                raise ReleaseError(
                    f"{place.repo} is visible to everybody; nothing was sent",
                    hint="add --public if that is meant, or make the repository private on its settings page",
                )
            entries = wanted_tree(bundle)
            commit, changes = _bring(git, place, entries, bundle, progress)
            if any(change.status != "same" for change in changes):
                _verify(git, place, entries, commit)
        sent = [change for change in changes if change.status in ("new", "changed")]
        steps = [] if options.is_private or is_open else [f"make it public on its settings page: {place.page}"]
        if self._own.has_app:
            app = write_app(bundle, app_place(bundle), place.url, commit)
            if self._own.app_remote:
                push_app(app, self._own.app_remote)
            left = steps_left(bundle, place, app, self._own.app_remote, is_private=not is_open)
            steps += left[-1:] if self._own.app_url else left
        return Release(
            target=self.about.name,
            repo=place.repo,
            revision=commit,
            url=place.page,
            uploaded_files=sum(change.bytes > 0 for change in sent),
            uploaded_bytes=sum(change.bytes for change in sent),
            unchanged_files=len(entries) - len(sent),
            verified=True,
            verified_by=_VERIFIED_BY,
            steps_left=tuple(steps),
        )


def _bring(
    git: Git, place: Place, entries: Sequence[Entry], bundle: Bundle, progress: Progress
) -> tuple[str, tuple[Change, ...]]:
    """Make the branch what `entries` say; returns its commit and what had to change."""
    first: tuple[Change, ...] | None = None
    for _ in range(_ATTEMPTS):
        remote = _look(git, entries)
        changes = _changes(entries, remote)
        first = first or changes
        if any(change.status != "same" for change in changes):
            require_writer(git)
        send_objects(git, [entry for entry in entries if entry.oid and entry.oid not in remote.objects], progress)
        if remote.commit and remote.blobs == {entry.path: entry.blob for entry in entries}:
            return remote.commit, first
        commit = _commit(git, entries, remote, bundle)
        if _push(git, commit, remote):
            return commit, first
        progress.note("the branch moved meanwhile; looking again")
    raise TryAgainError(f"somebody else keeps pushing to {place.repo}", hint="run again when that has ended")


def _look(git: Git, entries: Sequence[Entry]) -> _Remote:
    """The head of the default branch, its tree without large files, and the LFS objects that are there."""
    lines = git.must("ls-remote", "--symref", "hub", "HEAD", "refs/heads/*").decode().splitlines()
    branch = "main"
    refs = {}
    for line in lines:
        value, _, name = line.partition("\t")
        if value.startswith("ref: refs/heads/") and name == "HEAD":
            branch = value.removeprefix("ref: refs/heads/")
        else:
            refs[name] = value
    commit = refs.get(f"refs/heads/{branch}")
    blobs: dict[str, str] = {}
    if commit:
        wanted = f"+refs/heads/{branch}:refs/remotes/hub/{branch}"
        # Small files come along: a push packs the new ones as differences to them.
        git.must("fetch", "--quiet", "--no-tags", "--filter=blob:limit=1m", "hub", wanted)
        listing = git.must("ls-tree", "-r", "-z", "--full-tree", commit).decode("utf-8", "surrogateescape")
        for line in filter(None, listing.split("\0")):
            facts, _, path = line.partition("\t")
            blobs[path] = facts.split()[2]
    return _Remote(branch, commit, blobs, present_objects(git, entries))


def _changes(entries: Sequence[Entry], remote: _Remote) -> tuple[Change, ...]:
    changes = []
    for entry in entries:
        there = remote.blobs.get(entry.path)
        is_sent = entry.oid is not None and entry.oid in remote.objects
        if there == entry.blob and (entry.oid is None or is_sent):
            changes.append(Change(entry.path, "same", 0))
        else:
            changes.append(Change(entry.path, "changed" if there else "new", 0 if is_sent else entry.size))
    known = {entry.path for entry in entries}
    changes += [Change(path, "deleted", 0) for path in remote.blobs if path not in known]
    return tuple(sorted(changes, key=lambda change: change.path))


def _commit(git: Git, entries: Sequence[Entry], remote: _Remote, bundle: Bundle) -> str:
    """A commit with exactly `entries`, on top of what is there; the same input gives the same id."""
    when = _FIRST_COMMIT_S
    if remote.commit:
        when = int(git.must("log", "-1", "--format=%ct", remote.commit)) + 1
    message = f"Publish {bundle.name}\n\nBundle {bundle.digest}\n".encode()
    stream = [f"commit refs/deploytk/next\ncommitter {_AUTHOR} {when} +0000\n".encode()]
    stream.append(b"data %d\n%b\n" % (len(message), message))
    if remote.commit:
        stream.append(b"from %b\ndeleteall\n" % remote.commit.encode())
    for entry in entries:
        quoted = entry.path.replace("\\", "\\\\").replace('"', '\\"')
        stream.append(f'M 100644 inline "{quoted}"\ndata {len(entry.content)}\n'.encode() + entry.content + b"\n")
    git.must("fast-import", "--quiet", "--force", stdin=b"".join(stream))
    return git.must("rev-parse", "refs/deploytk/next").decode().strip()


def _push(git: Git, commit: str, remote: _Remote) -> bool:
    """Move the branch in one step; False when it was moved by somebody else before."""
    ref = f"refs/heads/{remote.branch}"

    def head() -> str:
        return git.must("ls-remote", "hub", ref).decode().partition("\t")[0]

    for _ in range(_ATTEMPTS):
        done = git.run("push", "--quiet", "--no-verify", "hub", f"{commit}:{ref}")
        # The answer may be lost while the branch has moved: what counts is where it is.
        if done.code == 0:
            return True
        if done.trouble not in ("gone", "moved"):
            raise git.error(done)
        now = head()
        if now == commit:
            return True
        if done.trouble == "moved" or now != (remote.commit or ""):
            return False
    raise git.error(done)


def _verify(git: Git, place: Place, entries: Sequence[Entry], commit: str) -> None:
    """Raises ReleaseError unless the branch is at `commit` and the server has every LFS object."""
    heads = git.must("ls-remote", "hub", "refs/heads/*").decode()
    if commit not in heads:
        raise ReleaseError(f"{place.repo} is not at {commit} after the push", hint="somebody pushed over it; run again")
    missing = {entry.oid for entry in entries if entry.oid} - present_objects(git, entries)
    if missing:
        path = next(entry.path for entry in entries if entry.oid in missing)
        raise ReleaseError(
            f"{git.host} lost {path} ({len(missing)} LFS objects are not there)", hint="run again: they are sent again"
        )


def lock_of(place: Place) -> Path:
    """The lock that a publisher to `place` holds."""
    return cache_directory() / "openxlab" / f".{_key(place)}.lock"


def _key(place: Place) -> str:
    return hashlib.sha256(place.url.encode()).hexdigest()[:16]


@contextmanager
def _workplace(place: Place) -> Iterator[Path]:
    """A directory of this repository's own, for one publisher at a time; it goes when all is done."""
    work = cache_directory() / "openxlab" / _key(place)
    with disk_errors(work, ReleaseError), locked(lock_of(place), place.repo):
        yield work
        shutil.rmtree(work, ignore_errors=True)
