"""A repository of the hub: opened, compared, brought to what a bundle says by one commit, verified."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import CommitOperationDelete

from deploytk.base.digests import hash_file
from deploytk.base.errors import ReleaseError, TryAgainError
from deploytk.base.pause import pause
from deploytk.base.retry import Retry, RetryPolicy
from deploytk.bundle import MANIFEST, Bundle
from deploytk.publish.edited import mark_edited
from deploytk.publish.obstacles import Obstacle, refuse
from deploytk.publish.plan import Change, extra_files, is_done, paths_with
from deploytk.publish.samples import Samples, Sent
from deploytk.publish.superseded import named_in
from deploytk.publish.targets.huggingface.client import Client, Head, MovedError, RemoteFile
from deploytk.publish.targets.huggingface.uploads import addition

_HUBS_OWN = {".gitattributes"}  # made with the repository; the hub knows best which files are large
_ATTEMPTS = 8  # while others commit, or answers are lost: half a minute with the pauses between
_LONGEST_PAUSE_S = 8.0
_WITHIN_S = 600.0
_SHOWN_AFTER_S = (0.5, 2.0)


@dataclass(frozen=True, slots=True)
class Repository:
    name: str
    kind: str  # "model" or "space"
    head: Head
    is_new: bool  # just created: it holds nothing but what the hub puts there


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file as the repository shall have it."""

    source: Path
    size: int
    sha256: str

    def is_same(self, there: RemoteFile) -> bool:
        if there.size != self.size:
            return False
        return there.sha256 == self.sha256 if there.sha256 else there.blob == self._blob()

    def _blob(self) -> str:
        content = self.source.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Outcome:
    commit: str
    changes: tuple[Change, ...]  # what had to be done
    sent_files: int
    sent_bytes: int


Guard = Callable[[Sequence[Change]], None]
"""Looks at what is to be done to a repository, and raises where it must not be."""


def open_repository(
    client: Client, name: str, kind: str, seen: Head | None, *, is_private: bool, **space: Any
) -> Repository:
    """The repository as it was `seen`, created if it was not there; raises ReleaseError when it is too visible."""
    head, is_new = (seen, False) if seen else client.create(name, kind, is_private=is_private, **space)
    refuse(too_visible(name, head, is_private=is_private))
    return Repository(name, kind, head, is_new)


def too_visible(name: str, head: Head | None, *, is_private: bool) -> list[Obstacle]:
    if head is None or head.is_private or not is_private:
        return []
    hint = "add --public if that is meant, or make the repository private on its settings page"
    return [Obstacle(f"{name} is visible to everybody; nothing was sent", hint)]


def wanted_files(bundle: Bundle) -> dict[str, LocalFile]:
    manifest = bundle.path / MANIFEST
    files = {file.path: LocalFile(bundle.path / file.path, file.size, file.sha256) for file in bundle.files}
    return files | {MANIFEST: LocalFile(manifest, manifest.stat().st_size, hash_file(manifest))}


def look(
    client: Client, name: str, kind: str, wanted: Mapping[str, LocalFile], *, is_mirror: bool
) -> tuple[Change, ...]:
    """What has to be done to the repository as it is now.

    Of what is in no release goes what the deploytk.json there names, and is as it says; all of it with `is_mirror`.
    """
    remote = client.listing(name, kind=kind)
    changes = changes_of(wanted, remote)
    extra = paths_with("kept", changes)
    is_asked = extra or set(paths_with("changed", changes)) - {MANIFEST}
    named = named_in(client.read(name, MANIFEST, kind) or b"") if is_asked else {}

    def facts(path: str) -> tuple[int, str]:
        """A small file that has the named size is read."""
        file = remote[path]
        if file.sha256 or file.size != named[path][0]:
            return file.size, file.sha256 or ""
        return file.size, hashlib.sha256(client.read(name, path, kind) or b"").hexdigest()

    deleted = [path for path in extra if is_mirror or (path in named and facts(path) == named[path])]
    return mark_edited(changes_of(wanted, remote, deleted), named, facts)


def changes_of(
    wanted: Mapping[str, LocalFile], remote: Mapping[str, RemoteFile], deleted: Collection[str] = ()
) -> tuple[Change, ...]:
    changes = []
    for path, file in wanted.items():
        there = remote.get(path)
        if there and file.is_same(there):
            changes.append(Change(path, "same", 0))
        else:
            changes.append(Change(path, "changed" if there else "new", file.size))
    changes += extra_files(remote.keys() - wanted.keys() - _HUBS_OWN, deleted)
    return tuple(sorted(changes, key=lambda change: change.path))


def bring(
    client: Client,
    repository: Repository,
    wanted: Mapping[str, LocalFile],
    message: str,
    guard: Guard,
    *,
    is_mirror: bool,
) -> Outcome:
    """Make the repository have what `wanted` says, by one commit.

    After a lost answer or somebody else's commit it looks again: what landed is not committed twice.
    """
    stats = {path: _stat(file.source) for path, file in wanted.items()}
    try:
        return _bring(client, repository, wanted, stats, message, guard, is_mirror=is_mirror)
    except OSError as error:
        _refuse_changed(wanted, stats, error)
        raise ReleaseError(
            f"{error.filename} cannot be read: {error.strerror}", hint="see that it can, then run again"
        ) from error


def _bring(
    client: Client,
    repository: Repository,
    wanted: Mapping[str, LocalFile],
    stats: Mapping[str, tuple[int, ...]],
    message: str,
    guard: Guard,
    *,
    is_mirror: bool,
) -> Outcome:
    name, kind = repository.name, repository.kind
    first: tuple[Change, ...] | None = None
    head: Head | None = repository.head
    files = size = 0
    policy = RetryPolicy(_ATTEMPTS, max(_WITHIN_S, client.patience_s), longest_s=_LONGEST_PAUSE_S)
    retry = Retry(policy, client.hub.host, client.progress.note)
    while True:
        if first is not None:
            head = client.head(name, kind)
        if head is None:
            raise ReleaseError(f"{name} is gone from {client.hub.host}", hint="somebody removed it; run again")
        is_empty = repository.is_new and first is None
        changes = changes_of(wanted, {}) if is_empty else look(client, name, kind, wanted, is_mirror=is_mirror)
        guard(changes)
        first = first or changes
        if is_done(changes):
            read_back(client, name, kind, head.commit or "", wanted)
            return Outcome(head.commit or "", first, files, size)
        try:
            sent = _send(client, repository, wanted, changes)
            _refuse_changed(wanted, stats, None)
            files, size = files + len(sent.large), size + sum(wanted[path].size for path in sent.large)
            commit = client.commit(name, sent.operations, head, message, kind)
        except MovedError as error:
            if error.is_slow:
                _await_commit(client, name, kind, head)
            elif error.wait_s > client.patience_s:
                raise client.not_now(error.why, error.wait_s) from error
            else:
                retry.wait(error.why, error.wait_s)
            continue
        except (ReleaseError, TryAgainError) as error:
            _refuse_changed(wanted, stats, error)
            raise
        files, size = files + len(sent.small), size + sum(wanted[path].size for path in sent.small)
        _verify(client, repository, wanted, paths_with("deleted", changes), commit)
        _refuse_changed(wanted, stats, None, "was committed")
        return Outcome(commit, first, files, size)


def _await_commit(client: Client, name: str, kind: str, before: Head) -> None:
    """Return when the hub shows another commit than `before`: ours, which it has and takes its time for, or not.

    Raises TryAgainError when it shows none: asked for once more it would have the same work twice.
    """
    host, until_s = client.hub.host, time.monotonic() + client.patience_s
    client.progress.note(f"{host} has the commit and has not answered: looking for it for {client.patience_s:.0f} s")
    pause_s = _SHOWN_AFTER_S[0]
    while time.monotonic() < until_s:
        pause(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        head = client.head(name, kind)
        if head is None or head.commit != before.commit:
            return
    hint = "look at the repository in some minutes, then run again: what has arrived is not sent again"
    raise TryAgainError(f"{host} has not finished the commit", hint=hint)


@dataclass(frozen=True, slots=True)
class _Sent:
    operations: Sequence[Any]
    large: tuple[str, ...]  # files whose content went out apart from the commit
    small: tuple[str, ...]  # files that go within the commit


def _send(
    client: Client,
    repository: Repository,
    wanted: Mapping[str, LocalFile],
    changes: Sequence[Change],
) -> _Sent:
    """Upload what the hub keeps apart from git; the content of equal files goes once."""
    paths = [change.path for change in changes if change.status in ("new", "changed")]
    if "README.md" in paths and not repository.is_new:  # that of a new one was asked about before it was created
        client.check_card(wanted["README.md"].source.read_text(encoding="utf-8"), repository.kind)
    is_xet = client.choose_storage(repository.name, repository.kind)
    with client.progress.task("sending", sum(wanted[path].size for path in paths)) as advance:
        additions = [addition(path, wanted[path].source, wanted[path].sha256, advance) for path in paths]
        unique = {wanted[made.path_in_repo].sha256: made for made in reversed(additions)}
        client.send(repository.name, list(unique.values()), repository.kind)
    is_large = {made.path_in_repo: made._upload_mode == "lfs" for made in unique.values()}
    large = tuple(m.path_in_repo for m in unique.values() if is_large[m.path_in_repo] and (m.is_sent or is_xet))
    small = tuple(path for path in paths if not is_large.get(path, True))
    deletions = [CommitOperationDelete(change.path) for change in changes if change.status == "deleted"]
    return _Sent([*additions, *deletions], large, small)


def _stat(path: Path) -> tuple[int, ...]:
    """Empty where there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _refuse_changed(
    wanted: Mapping[str, LocalFile],
    stats: Mapping[str, tuple[int, ...]],
    cause: BaseException | None,
    when: str = "was sent; nothing is visible of it",
) -> None:
    """Raises ReleaseError when a file is no longer what was hashed: the hub would keep it under a wrong digest."""
    for path, file in wanted.items():
        now = _stat(file.source)
        if not now or now != stats[path]:
            raise ReleaseError(
                f"{path} changed while it {when}",
                hint="package the model again when nothing writes to it, then publish",
            ) from cause


def _verify(
    client: Client,
    repository: Repository,
    wanted: Mapping[str, LocalFile],
    deleted: Collection[str],
    commit: str,
) -> None:
    """Raises ReleaseError unless the newest commit is ours, its listing has all of `wanted` and nothing of `deleted`,
    and samples of the files come back."""
    name, kind, host = repository.name, repository.kind, client.hub.host
    head = _head_after(client, name, kind, commit)
    if head is None or head.commit != commit:
        raise ReleaseError(
            f"{host} shows {name} at {head.commit if head else 'no commit'}, not at {commit}, which it has just taken",
            hint="run again; if it stays so, somebody else commits to the repository",
        )
    for change in changes_of(wanted, client.listing(name, kind=kind), deleted):
        if not is_done([change]):
            raise ReleaseError(
                f"{host} shows {change.path} otherwise than it was committed ({change.status})",
                hint="run again; if it stays so, somebody else commits to the repository",
            )
    read_back(client, name, kind, commit, wanted)


def _head_after(client: Client, name: str, kind: str, commit: str) -> Head | None:
    """The newest commit; a hub may show one a moment later than it takes it."""
    for pause_s in _SHOWN_AFTER_S:
        head = client.head(name, kind)
        if head is None or head.commit == commit:
            return head
        pause(pause_s)
    return client.head(name, kind)


def read_back(client: Client, name: str, kind: str, commit: str, wanted: Mapping[str, LocalFile]) -> None:
    """Raises ReleaseError unless samples of the files at that commit are what was sent."""
    prefix = f"{client.hub.endpoint}/{'' if kind == 'model' else kind + 's/'}{name}/resolve/{commit}"
    headers = {"Authorization": f"Bearer {client.hub.token}"}
    files = [
        Sent(path, file.source, file.size, file.sha256, f"{prefix}/{quote(path)}", headers)
        for path, file in wanted.items()
    ]
    Samples(client.hub.origin, client.retry).check(f"{client.hub.endpoint}/{kind}/{name}", files)
