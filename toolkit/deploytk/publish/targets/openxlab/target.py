"""Publishes a bundle to an OpenXLab model repository: LFS objects first, then one commit by one update of one ref."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploytk.base.cache import cache_directory
from deploytk.base.credentials import Credential, find_credential
from deploytk.base.errors import ReleaseError
from deploytk.base.files import disk_errors, locked
from deploytk.base.progress import Progress, Silent
from deploytk.bundle import Bundle, HubCard
from deploytk.publish.edited import refuse_edited
from deploytk.publish.obstacles import Obstacle, obstacles_in, refuse
from deploytk.publish.options import PublishOptions
from deploytk.publish.plan import ReleasePlan, edited_paths, is_done, paths_with
from deploytk.publish.platform import Platform
from deploytk.publish.proposal import Proposal
from deploytk.publish.record import Release
from deploytk.publish.target import About, AppRequest
from deploytk.publish.targets.openxlab.access import is_public, permissions, require_writer
from deploytk.publish.targets.openxlab.app import App, steps_left
from deploytk.publish.targets.openxlab.branch import bring, look, make_commit
from deploytk.publish.targets.openxlab.foreign import small_files
from deploytk.publish.targets.openxlab.git import PATIENCE_S, Git
from deploytk.publish.targets.openxlab.options import OpenXLabOptions
from deploytk.publish.targets.openxlab.place import SERVER, SERVER_VARIABLE, Place, find_place
from deploytk.publish.targets.openxlab.proposing import propose
from deploytk.publish.targets.openxlab.tree import wanted_tree

_VERIFIED_BY = "the branch's commit, fetched once, the size of every LFS object, and samples read back once"


def _credential() -> Credential:
    hint = "set OPENXLAB_USERNAME and OPENXLAB_GIT_TOKEN (account, key management, a Git token that may write)"
    return find_credential("openxlab", ("OPENXLAB_USERNAME", "OPENXLAB_GIT_TOKEN"), hint)


def _card(repo: str) -> HubCard:
    name = repo.rpartition("/")[2]
    server = os.environ.get(SERVER_VARIABLE) or SERVER
    commands = ("git lfs install", f"git clone {server.rstrip('/')}/{repo}.git", f"cd {name}")
    return HubCard("OpenXLab", commands, is_chinese=True)


class OpenXLab:
    about = About(
        "openxlab",
        "OpenXLab",
        options=OpenXLabOptions,
        takes=("public", "mirror", "edited_card"),
        programs=("git",),
        credential=_credential,
        card=_card,
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

    def propose(self, name: str, repo: str | None) -> Proposal:
        """The owner is the account of the environment; the repository itself is made by hand, in the web form."""
        return propose(name, repo, by_sdk=self._own.via == "sdk", patience_s=self._patience_s)

    def preview(self, bundle: Bundle, options: PublishOptions) -> ReleasePlan:
        if self._own.via == "sdk":
            from deploytk.publish.targets.openxlab.flat import preview_flat

            return preview_flat(bundle, options)
        place = find_place(options.repo)
        with tempfile.TemporaryDirectory(prefix="deploytk-") as directory:
            git = Git(Path(directory) / "work", place.url, place.account, Silent(), self._patience_s)
            git.start()
            wanted = look(git, wanted_tree(bundle), is_mirror=options.is_mirror)
            is_open = is_public(git)
            obstacles = _too_visible(place, options, is_open=is_open) + obstacles_in(lambda: require_writer(git))
            read = small_files(git, wanted.remote.blobs)
            obstacles += obstacles_in(lambda: refuse_edited(place.repo, bundle, wanted.changes, read, options))
            app = None
            if self._own.has_app:
                asked = App(bundle, place, self._own.app_remote, options)
                stopped = asked.obstacles()
                obstacles += [] if stopped else obstacles_in(asked.refuse_edited)
                commit = str(wanted.remote.commit) if is_done(wanted.changes) else make_commit(git, wanted, bundle)
                app = None if stopped else asked.plan(commit, is_private=not is_open)
                obstacles += stopped
            allowed = permissions(git)
        return ReleasePlan(
            target=self.about.name,
            repo=place.repo,
            is_private=not is_open,
            changes=wanted.changes,
            upload_bytes=sum(change.bytes for change in wanted.changes),
            permissions=allowed,
            app=app,
            obstacles=tuple(obstacles),
        )

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
            app = App(bundle, place, self._own.app_remote, options) if self._own.has_app else None
            refuse([*_too_visible(place, options, is_open=is_open), *(app.obstacles() if app else ())])
            if app:
                app.refuse_edited()
            entries = wanted_tree(bundle)
            commit, changes = bring(git, place, entries, bundle, progress, options)
        sent = [change for change in changes if change.status in ("new", "changed")]
        steps = [] if options.is_private or is_open else [f"make it public on its settings page: {place.page}"]
        done = app.publish(commit) if app else None
        if app:
            left = steps_left(bundle, place, app.directory, app.remote, is_private=not is_open)
            steps += left[-1:] if self._own.app_url else left
        return Release(
            target=self.about.name,
            repo=place.repo,
            revision=commit,
            url=place.page,
            uploaded_files=sum(change.bytes > 0 for change in sent),
            uploaded_bytes=sum(change.bytes for change in sent),
            unchanged_files=len(paths_with("same", changes)),
            verified=True,
            verified_by=_VERIFIED_BY,
            steps_left=tuple(steps),
            kept_files=paths_with("kept", changes),
            deleted_files=paths_with("deleted", changes),
            replaced_files=edited_paths(changes),
            app_kept_files=done.kept_files if done else (),
            app_replaced_files=done.replaced_files if done else (),
        )


def _too_visible(place: Place, options: PublishOptions, *, is_open: bool) -> list[Obstacle]:
    if not is_open or not options.is_private:
        return []
    hint = "add --public if that is meant, or make the repository private on its settings page"
    return [Obstacle(f"{place.repo} is visible to everybody; nothing was sent", hint)]


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
