"""The app on OpenXLab: a repository beside the bundle, pushed, and the form that only a person can fill in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deploytk.bundle import Bundle
from deploytk.publish.edited import refuse_edited
from deploytk.publish.obstacles import Obstacle, obstacles_in
from deploytk.publish.options import PublishOptions
from deploytk.publish.plan import AppPlan, edited_paths, paths_with
from deploytk.publish.targets.common.app_repository import (
    app_files,
    changes_in_directory,
    read_small,
    refuse_other_directory,
    write_app,
)
from deploytk.publish.targets.openxlab.app_remote import AppRemote
from deploytk.publish.targets.openxlab.place import SITE, Place


@dataclass(frozen=True, slots=True)
class App:
    """The app of a bundle, its model at a place."""

    bundle: Bundle
    place: Place
    remote: str | None  # where it is pushed to
    options: PublishOptions

    @property
    def directory(self) -> Path:
        return app_place(self.bundle)

    def obstacles(self) -> list[Obstacle]:
        """What would stop it after the model is published: found before."""
        found = obstacles_in(lambda: refuse_other_directory(self.directory))
        return found + (obstacles_in(self._ask_remote) if self.remote else [])

    def refuse_edited(self) -> None:
        """Raises EditedError for a card of the app that somebody edited where it lies, here or there."""
        wanted, is_mirror = app_files(self.bundle, self.place.url, ""), self.options.is_mirror
        here = changes_in_directory(self.directory, wanted, is_mirror=is_mirror)
        refuse_edited(str(self.directory), self.bundle, here, partial(read_small, self.directory), self.options)
        if self.remote:
            with AppRemote(self.remote) as there:
                changes = there.changes(wanted, is_mirror=is_mirror)
                refuse_edited(self.remote, self.bundle, changes, there.read, self.options)

    def plan(self, revision: str, *, is_private: bool) -> AppPlan:
        """What would be written, against what is there, and what a person would give the app."""
        wanted = app_files(self.bundle, self.place.url, revision)
        if self.remote:
            with AppRemote(self.remote) as there:
                changes = there.changes(wanted, is_mirror=self.options.is_mirror)
        else:
            changes = changes_in_directory(self.directory, wanted, is_mirror=self.options.is_mirror)
        return AppPlan(
            place=f"{self.directory}, pushed to {self.remote}" if self.remote else str(self.directory),
            sdk="gradio",
            hardware=None,
            is_private=None,
            secrets=("OPENXLAB_USERNAME", "OPENXLAB_GIT_TOKEN") if is_private else (),
            changes=changes,
            upload_bytes=sum(change.bytes for change in changes),
        )

    def publish(self, revision: str) -> PublishedApp:
        """Write it beside the bundle, and push it; what others wrote stays in both places."""
        wanted, is_mirror = app_files(self.bundle, self.place.url, revision), self.options.is_mirror
        changes = changes_in_directory(self.directory, wanted, is_mirror=is_mirror)
        write_app(self.bundle, self.directory, self.place.url, revision, paths_with("deleted", changes))
        if self.remote:
            with AppRemote(self.remote) as there:
                pushed = there.changes(wanted, is_mirror=is_mirror)
                there.push(wanted, pushed)
            changes += pushed
        kept, replaced = set(paths_with("kept", changes)), set(edited_paths(changes))
        return PublishedApp(tuple(sorted(kept)), tuple(sorted(replaced)))

    def _ask_remote(self) -> None:
        with AppRemote(str(self.remote)):
            pass


@dataclass(frozen=True, slots=True)
class PublishedApp:
    kept_files: tuple[str, ...]  # of others
    replaced_files: tuple[str, ...]  # that somebody had edited


def app_place(bundle: Bundle) -> Path:
    """Where the app repository of a bundle is written: beside it."""
    return bundle.beside("app")


def steps_left(bundle: Bundle, place: Place, app: Path, remote: str | None, *, is_private: bool) -> tuple[str, ...]:
    """What only a person can do, one sentence each: OpenXLab has no way to make an app but its web form."""
    gib = bundle.manifest.plan.vram.total_bytes / 2**30
    code = remote or "the repository that you pushed to"
    push = () if remote else (f"push {app} to a new GitHub repository, or run again with --app-remote URL",)
    secrets = (
        " Under 高级配置 (advanced) set the variables OPENXLAB_USERNAME and OPENXLAB_GIT_TOKEN (one that may read)."
    )
    return (
        *push,
        f"open {SITE}/apps, 创建应用 (create), Gradio: name {bundle.name}, task Text Generation, code {code}, "
        f"start file app.py, hardware with {gib:.1f} GiB of GPU memory or more ({SITE}/apps/apply-hardware)."
        + (secrets if is_private else ""),
        "when the app has an address: deploytk publish with the same options and --app-url ADDRESS --wait 2h",
        f"once it runs, 公开 (make it public) on the app's page; the model repository is {place.page}",
    )
