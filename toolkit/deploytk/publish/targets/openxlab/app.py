"""The app on OpenXLab: a repository beside the bundle, pushed, and the form that only a person can fill in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploytk.bundle import Bundle
from deploytk.publish.obstacles import Obstacle, obstacles_in
from deploytk.publish.plan import AppPlan, paths_with
from deploytk.publish.record import recorded_app_files
from deploytk.publish.superseded import Named
from deploytk.publish.targets.common.app_repository import (
    app_files,
    changes_in_directory,
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
    is_mirror: bool  # files of others that lie there are deleted

    @property
    def directory(self) -> Path:
        return app_place(self.bundle)

    @property
    def ours(self) -> Named:
        """What an earlier release wrote."""
        return recorded_app_files(self.bundle, "openxlab", self.place.repo)

    def obstacles(self) -> list[Obstacle]:
        """What would stop it after the model is published: found before."""
        found = obstacles_in(lambda: refuse_other_directory(self.directory))
        return found + (obstacles_in(self._ask_remote) if self.remote else [])

    def plan(self, revision: str, *, is_private: bool) -> AppPlan:
        """What would be written, against what is there, and what a person would give the app."""
        wanted = app_files(self.bundle, self.place.url, revision)
        if self.remote:
            with AppRemote(self.remote) as there:
                changes = there.changes(wanted, self.ours, is_mirror=self.is_mirror)
        else:
            changes = changes_in_directory(self.directory, wanted, self.ours, is_mirror=self.is_mirror)
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
        wanted = app_files(self.bundle, self.place.url, revision)
        here = changes_in_directory(self.directory, wanted, self.ours, is_mirror=self.is_mirror)
        write_app(self.bundle, self.directory, self.place.url, revision, paths_with("deleted", here))
        kept = set(paths_with("kept", here))
        if self.remote:
            with AppRemote(self.remote) as there:
                changes = there.changes(wanted, self.ours, is_mirror=self.is_mirror)
                there.push(wanted, changes)
            kept |= set(paths_with("kept", changes))
        files = {path: (len(content), hashlib.sha256(content).hexdigest()) for path, content in wanted.items()}
        return PublishedApp(tuple(sorted(kept)), files)

    def _ask_remote(self) -> None:
        with AppRemote(str(self.remote)):
            pass


@dataclass(frozen=True, slots=True)
class PublishedApp:
    kept_files: tuple[str, ...]  # of others
    files: Mapping[str, tuple[int, str]]  # ours: path -> size, SHA-256


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
