"""A flat model and its card by OpenXLab's own package: file by file, each verified by downloading it.

The hub's listing has names and nothing else. What of a file is there already is decided by the size that its download
names, and by the deploytk.json there, which is sent last and so names what lies beside it. When the record beside the
bundle tells of that very release, which we read back then, that is enough; else the files are read back now.
While files are sent, the deploytk.json there says so: an upload in several steps shall not pass for a release.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deploytk.base.digests import hash_file
from deploytk.base.errors import ReleaseError, TryAgainError, UsageError
from deploytk.base.progress import Progress, Silent
from deploytk.bundle import MANIFEST, Bundle, BundleFile, bundle_digest
from deploytk.publish.edited import mark_edited, refuse_edited
from deploytk.publish.obstacles import obstacles_in
from deploytk.publish.options import PublishOptions
from deploytk.publish.plan import Change, ReleasePlan, compare, edited_paths, extra_files
from deploytk.publish.record import Release, recorded_digests
from deploytk.publish.superseded import Named
from deploytk.publish.targets.openxlab.place import SITE, check_repo
from deploytk.publish.targets.openxlab.sdk import Keys, Sdk, sdk_python

_TRIES = 3
_TARGET = "openxlab"
_READ_BACK = "downloading every file and comparing its SHA-256"
_BY_RECORD = "the names and sizes on the hub, its deploytk.json, and the record of the release that was downloaded then"
_BY_BOTH = f"downloading every file that was sent; the others by {_BY_RECORD}"
_BY_MANIFEST = "the names and sizes on the hub, and its deploytk.json; publish downloads the files to be sure"
_VERIFIED_BY = (_READ_BACK, _BY_RECORD, _BY_BOTH)


@dataclass(frozen=True, slots=True)
class _There:
    """What the repository holds."""

    names: tuple[str, ...]
    sizes: dict[str, int]
    digests: dict[str, str]  # by its deploytk.json, where the size is right; that file itself by its content
    is_recorded: bool  # we downloaded all of it when it was published
    named: Named  # the files of the release that its deploytk.json tells of


def preview_flat(whole: Bundle, options: PublishOptions) -> ReleasePlan:
    """What `publish_flat` would send; nothing is changed, and of the files there only deploytk.json is downloaded."""
    repo, bundle = _check(whole, options)
    with Sdk(sdk_python(Silent()), repo, _keys()) as sdk:
        names = _names(sdk)
        there = _look(sdk, bundle, repo, names or ())
        changes = (*_changes(bundle, there, there.digests), *extra_files(_extra(bundle, there), ()))
        obstacles = obstacles_in(lambda: _refuse_edited(sdk, bundle, repo, changes, options))
    how = _BY_RECORD if there.is_recorded else _BY_MANIFEST
    says = (
        "the access key is accepted"
        if names is None
        else f"the access key is accepted; what is there is known by {how}"
    )
    size = sum(change.bytes for change in changes)
    return ReleasePlan(_TARGET, repo, options.is_private, changes, size, permissions=says, obstacles=tuple(obstacles))


def publish_flat(whole: Bundle, options: PublishOptions, progress: Progress) -> Release:
    """Upload what the repository lacks of the model and its card, each file verified by downloading it. Not atomic.

    Raises ReleaseError for a model with directories (the package keeps base names only) and for every difference.
    """
    repo, bundle = _check(whole, options)
    with Sdk(sdk_python(progress), repo, _keys()) as sdk:
        names = _names(sdk)
        if names is None:
            progress.note(f"{repo} is not there: creating it")
            sdk.create(bundle, is_private=options.is_private)
        # Told again for one that is there: what it is cannot be read.
        sdk.set_visibility(is_private=options.is_private)
        there = _look(sdk, bundle, repo, names or ())
        digests = there.digests if there.is_recorded else _read_back(sdk, bundle, there, progress)
        changes = _changes(bundle, there, digests)
        _refuse_edited(sdk, bundle, repo, changes, options)
        wanted = {change.path for change in changes if change.status != "same"}
        if wanted:
            wanted |= {MANIFEST}
            _send_all(sdk, bundle, wanted, progress, is_update=MANIFEST in there.names)
    page = f"{SITE}/models/detail/{repo}"
    extra = _extra(bundle, there)
    odd = sorted(extra & there.named.keys())
    return Release(
        target=_TARGET,
        repo=repo,
        revision=bundle.digest,
        url=page,
        uploaded_files=len(wanted),
        uploaded_bytes=sum((bundle.path / path).stat().st_size for path in wanted),
        unchanged_files=len(changes) - len(wanted),
        verified=True,
        verified_by=(_BY_BOTH if wanted else _BY_RECORD) if there.is_recorded else _READ_BACK,
        steps_left=(f"delete what an earlier release had, on {page}: {', '.join(odd)}",) if odd else (),
        kept_files=tuple(sorted(extra - there.named.keys())),
        replaced_files=edited_paths(changes),
    )


def _refuse_edited(sdk: Sdk, bundle: Bundle, repo: str, changes: Sequence[Change], options: PublishOptions) -> None:
    there = {change.path for change in changes if change.status != "new"}
    refuse_edited(repo, bundle, changes, lambda path: sdk.content(path) if path in there else None, options)


def _extra(bundle: Bundle, there: _There) -> set[str]:
    """What lies there and is not in the bundle; the package cannot delete a file, whoever wrote it."""
    return set(there.names) - {file.path for file in bundle.files} - {MANIFEST}


def _check(bundle: Bundle, options: PublishOptions) -> tuple[str, Bundle]:
    """The repository, and the bundle without its app, which has a directory."""
    if options.is_mirror:
        raise UsageError("OpenXLab's package cannot delete files, --mirror does nothing", hint="leave --via sdk out")
    files = tuple(file for file in bundle.files if file.kind != "app")
    nested = [file.path for file in files if "/" in file.path]
    if nested:
        raise ReleaseError(
            f"OpenXLab's package keeps no directories, and this model has {nested[0]}",
            hint="leave --via sdk out: git keeps them",
        )
    return check_repo(options.repo), replace(bundle, files=files, bytes=sum(file.size for file in files))


def _keys() -> Keys:
    access, secret = os.environ.get("OPENXLAB_AK", ""), os.environ.get("OPENXLAB_SK", "")
    if not (access and secret):
        raise ReleaseError(
            "no access key of OpenXLab is here", hint="set OPENXLAB_AK and OPENXLAB_SK (OpenXLab, account, 密钥管理)"
        )
    return Keys(access, secret)


def _names(sdk: Sdk) -> tuple[str, ...] | None:
    """The files that are there; None when there is no such repository."""
    try:
        return tuple(sdk.files())
    except ReleaseError as error:
        if "refused list" not in str(error):
            raise
        return None


def _look(sdk: Sdk, bundle: Bundle, repo: str, names: tuple[str, ...]) -> _There:
    wanted = [name for name in (*(file.path for file in bundle.files), MANIFEST) if name in names]
    sizes = sdk.sizes(wanted) if wanted else {}
    digests = dict.fromkeys(sizes, "")  # there, and not known what it is
    is_recorded, named = False, dict[str, tuple[int, str]]()
    if MANIFEST in sizes:
        manifest = sdk.content(MANIFEST)
        files = _files_of(manifest)
        named = {file.path: (file.size, file.sha256) for file in files}
        is_recorded = bool(files) and bundle_digest(files) in recorded_digests(bundle, _TARGET, repo, _VERIFIED_BY)
        digests |= {file.path: file.sha256 for file in files if sizes.get(file.path) == file.size}
        digests[MANIFEST] = hashlib.sha256(manifest).hexdigest()
    return _There(names, sizes, digests, is_recorded, named)


def _files_of(manifest: bytes) -> list[BundleFile]:
    """What a deploytk.json names; nothing when it is none, as during an upload."""
    try:
        files = json.loads(manifest)["files"].items()
        return [BundleFile(str(path), int(one["size"]), str(one["sha256"]), one["kind"]) for path, one in files]
    except (ValueError, LookupError, TypeError, AttributeError):
        return []


def _read_back(sdk: Sdk, bundle: Bundle, there: _There, progress: Progress) -> dict[str, str]:
    """The digests of all files whose size is right, downloaded now."""
    right = {file.path: file.size for file in bundle.files if there.sizes.get(file.path) == file.size}
    digests = dict(there.digests)
    with progress.task("reading what is there", sum(right.values())) as advance:
        for path, size in right.items():
            digests[path] = sdk.digest(path, size)
            advance(size)
    return digests


def _changes(bundle: Bundle, there: _There, digests: dict[str, str]) -> tuple[Change, ...]:
    changes = compare(bundle, digests, hash_file(bundle.path / MANIFEST))
    mine = tuple(change for change in changes if change.status != "deleted")  # the package cannot delete a file
    return mark_edited(mine, there.named, lambda path: (there.sizes[path], digests[path]))


def _send_all(sdk: Sdk, bundle: Bundle, paths: set[str], progress: Progress, *, is_update: bool) -> None:
    """Send these files; deploytk.json last: who sees it sees all the others."""
    digests = {file.path: file.sha256 for file in bundle.files} | {MANIFEST: hash_file(bundle.path / MANIFEST)}
    others = sorted(paths - {MANIFEST})
    if is_update and others:
        with tempfile.TemporaryDirectory(prefix="deploytk-") as directory:
            unfinished = Path(directory) / MANIFEST
            unfinished.write_text(json.dumps({"publishing": bundle.digest}))
            _send(sdk, MANIFEST, unfinished, hash_file(unfinished))
    total = sum((bundle.path / path).stat().st_size for path in paths)
    with progress.task("sending and reading back", total) as advance:
        for name in (*others, MANIFEST):
            _send(sdk, name, bundle.path / name, digests[name])
            advance((bundle.path / name).stat().st_size)


def _send(sdk: Sdk, name: str, path: Path, sha256: str) -> None:
    """One file, sent from its beginning each time, until it comes back as it is."""
    failure: ReleaseError | TryAgainError | None = None
    for _ in range(_TRIES):
        try:
            sdk.upload(name, path)
            found = sdk.digest(name, path.stat().st_size)
        except (ReleaseError, TryAgainError) as error:
            failure = error
            continue
        if found == sha256:
            return
        failure = ReleaseError(
            f"{name} came back with other bytes", hint="run again; by git, without --via, it is safe"
        )
    assert failure is not None  # noqa: S101 (there was at least one try)
    raise failure
