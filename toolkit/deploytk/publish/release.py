"""Stage 6: Bundle -> Release."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal, Protocol, cast

from deploytk.base.errors import UsageError
from deploytk.base.files import write_text
from deploytk.base.json import plain
from deploytk.base.progress import Progress
from deploytk.bundle import MANIFEST, Bundle, verify_bundle
from deploytk.publish.secrets import refuse_secrets

AppSdk = Literal["docker", "gradio"]

_FETCHABLE = ("huggingface", "modelscope")  # REPOSITORY/resolve/REVISION/PATH is a file


@dataclass(frozen=True, slots=True)
class Change:
    """What publishing would do to one file of the repository."""

    path: str
    status: Literal["new", "changed", "same", "deleted"]
    bytes: int  # to be sent; 0 for same and deleted


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


@dataclass(frozen=True, slots=True)
class PublishOptions:
    repo: str | None = None  # OWNER/NAME, or a directory for the target `local`; each target has a default
    is_private: bool = True
    with_app: bool = False
    wait_s: float = 0.0  # how long to wait for the app to run
    app_remote: str | None = None  # a git repository to push the app to, where the hub takes it from one
    via: Literal["git", "sdk"] = "git"  # openxlab: the hub's own package instead of git, for flat bundles
    app_url: str | None = None  # where the app runs, once a person has created it
    base: str | None = None  # oci: the runtime image; built when it is not named
    app_sdk: AppSdk = "docker"  # huggingface: what runs the Space
    app_hardware: str | None = None  # huggingface: what the Space runs on, "t4-small"; None leaves it as it is


class Target(Protocol):
    """A place that turns a bundle into a release."""

    name: str

    def preview(self, bundle: Bundle, options: PublishOptions) -> ReleasePlan:
        """What `publish` would do; changes nothing."""
        ...

    def publish(self, bundle: Bundle, options: PublishOptions, progress: Progress) -> Release:
        """Upload, make visible in one step, verify; raises ReleaseError when refused, TryAgainError when busy.

        Run again after any interruption it ends in the same remote state as without.
        """
        ...


def find_target(name: str) -> Target:
    """The target that is registered under `name`; raises UsageError for any other."""
    found = {point.name: point for point in entry_points(group="deploytk.targets")}
    if name not in found:
        raise UsageError(f"there is no target {name!r}", hint=f"installed targets: {', '.join(sorted(found))}")
    try:
        return cast(Target, found[name].load()())
    except ImportError as error:
        raise UsageError(
            f"the target {name!r} cannot be loaded: {error}", hint=f"pip install 'deploytk[{name}]'"
        ) from error


def plan_release(bundle: Bundle, target: Target, options: PublishOptions, progress: Progress) -> ReleasePlan:
    """What `publish_bundle` would do; refuses what that would refuse before it sends anything."""
    verify_bundle(bundle, progress)
    refuse_secrets(bundle, progress)
    return target.preview(bundle, options)


def publish_bundle(bundle: Bundle, target: Target, options: PublishOptions, progress: Progress) -> Release:
    """Verify the bundle, look for secrets, publish, and keep a record beside the bundle.

    Raises BundleError when the bundle is not what its manifest says or holds a secret: then nothing was sent.
    """
    verify_bundle(bundle, progress)
    refuse_secrets(bundle, progress)
    release = target.publish(bundle, options, progress)
    try:
        _keep_record(bundle, release)
    except OSError as error:  # what was published stays published
        progress.note(f"no record is kept: {record_path(bundle)} cannot be written: {error.strerror}")
    return release


def record_path(bundle: Bundle) -> Path:
    """The publish record: what went where, newest last."""
    return bundle.path.with_name(f"{bundle.path.name}.published.json")


def fetchable_release(bundle: Bundle) -> Release | None:
    """The last release of this very bundle to a hub that gives out single files; None when there is none."""
    try:
        records = json.loads(record_path(bundle).read_text(encoding="utf-8"))["releases"]
        found = [one for one in records if one["digest"] == bundle.digest and one["target"] in _FETCHABLE]
        fields = {name: found[-1][name] for name in Release.__slots__}
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return Release(**fields | {"steps_left": tuple(fields["steps_left"])})


def recorded_digests(bundle: Bundle, target: str, repo: str, verified_by: Sequence[str]) -> set[str]:
    """The digests of the bundles that the record tells of, at that place and verified in one of these ways."""
    try:
        records = json.loads(record_path(bundle).read_text(encoding="utf-8"))["releases"]
        mine = [one for one in records if (one["target"], one["repo"]) == (target, repo)]
        return {str(one["digest"]) for one in mine if one["verified"] and one["verified_by"] in verified_by}
    except (OSError, ValueError, LookupError, TypeError):
        return set()


def _keep_record(bundle: Bundle, release: Release) -> None:
    path = record_path(bundle)
    try:
        records = list(json.loads(path.read_text(encoding="utf-8"))["releases"])
    except (OSError, ValueError, KeyError, TypeError):
        records = []
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    entry = {"time": now, "digest": bundle.digest, **cast(Mapping[str, object], plain(release))}
    write_text(path, json.dumps({"releases": [*records, entry]}, ensure_ascii=False, indent=1) + "\n")


def compare(bundle: Bundle, remote: Mapping[str, str], manifest_sha256: str) -> tuple[Change, ...]:
    """What publishing changes, against the paths and SHA-256 digests of what is there."""
    wanted = {file.path: (file.sha256, file.size) for file in bundle.files}
    wanted[MANIFEST] = (manifest_sha256, (bundle.path / MANIFEST).stat().st_size)
    return changes_between(wanted, remote)


def changes_between(wanted: Mapping[str, tuple[str, int]], remote: Mapping[str, str]) -> tuple[Change, ...]:
    """What makes of the paths and digests `remote` those of `wanted`, which has sizes as well."""
    changes = [
        Change(path, _status(remote.get(path), digest), 0 if remote.get(path) == digest else size)
        for path, (digest, size) in wanted.items()
    ]
    changes += [Change(path, "deleted", 0) for path in remote if path not in wanted]
    return tuple(sorted(changes, key=lambda change: change.path))


def _status(there: str | None, digest: str) -> Literal["new", "changed", "same"]:
    if there is None:
        return "new"
    return "same" if there == digest else "changed"
