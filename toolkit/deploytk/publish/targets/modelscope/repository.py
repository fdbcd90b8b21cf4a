"""A repository of ModelScope: private first, what differs is sent, the listing verifies it.

ModelScope commits up to 256 files at once: a larger first upload is several commits. The client's own memory of what
it uploaded is not trusted (it never asks the hub again); what is there is always read from the hub.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import quote

from modelscope_hub import HubApi, errors

from deploytk.base.cache import cache_directory
from deploytk.base.credentials import can_ask
from deploytk.base.digests import hash_file
from deploytk.base.errors import ReleaseError, TryAgainError, UsageError
from deploytk.base.files import disk_errors, locked
from deploytk.base.progress import Progress
from deploytk.base.retry import Retry, RetryPolicy
from deploytk.bundle import MANIFEST, Bundle
from deploytk.image.value import WeightsSource
from deploytk.publish.edited import mark_edited, refuse_edited
from deploytk.publish.obstacles import Obstacle, obstacles_in, refuse
from deploytk.publish.options import PublishOptions
from deploytk.publish.plan import Change, ReleasePlan, compare, edited_paths, paths_with
from deploytk.publish.record import Release
from deploytk.publish.samples import Samples, Sent
from deploytk.publish.superseded import named_in
from deploytk.publish.targets.modelscope.files import of_the_hub, send_files, site
from deploytk.publish.targets.modelscope.lost_commits import Listing, until_committed
from deploytk.publish.targets.modelscope.options import StudioRequest
from deploytk.publish.targets.modelscope.pending import keep_pending, read_pending
from deploytk.publish.targets.modelscope.refusals import translated
from deploytk.publish.targets.modelscope.shown import Shown, shown
from deploytk.publish.targets.modelscope.signin import (
    TOKEN_HINT,
    CommitLost,
    HubBusy,
    has_token,
    home_of,
    login_headers,
    sign_in,
)
from deploytk.publish.targets.modelscope.studio import plan_studio, publish_studio, refuse_edited_studio

_TARGET = "modelscope"
_TYPE = "model"
_PRIVATE, _PUBLIC = 1, 5
_POLICY = RetryPolicy(attempts=1000, first_s=1.0, longest_s=2.0)
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_VERIFIED_BY = "the hub's listing, path and SHA-256 of every file, and samples read back once"


@dataclass(frozen=True, slots=True)
class _Done:
    """What was brought to the hub."""

    before: Shown
    visibility: int
    changes: tuple[Change, ...]

    @property
    def sent(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.status in ("new", "changed"))


def plan_repository(bundle: Bundle, options: PublishOptions, studio: StudioRequest | None) -> ReleasePlan:
    """What `publish_repository` would do; nothing is changed."""
    repo = _checked_repo(options.repo)
    with translated(repo):
        api, user = sign_in()
        visibility = _visibility(api, repo)
        there = Shown(api, repo, {}) if visibility is None else shown(api, repo)
        changes = _look(bundle, there, options)
        edited = obstacles_in(lambda: refuse_edited(repo, bundle, changes, there.read, options))
        if studio:
            edited += obstacles_in(lambda: refuse_edited_studio(there, bundle, studio))
        app = plan_studio(there, bundle, studio) if studio else None
    size = sum(change.bytes for change in changes)
    is_private = options.is_private if visibility is None else visibility != _PUBLIC
    obstacles = (*_too_visible(repo, visibility, options), *edited)
    return ReleasePlan(_TARGET, repo, is_private, changes, size, f"signed in as {user}", app, obstacles)


def publish_repository(
    bundle: Bundle, options: PublishOptions, studio: StudioRequest | None, patience_s: float, progress: Progress
) -> Release:
    """Send what the hub has not, delete what an earlier release had, and compare the hub's listing with the manifest.

    Raises ReleaseError when refused, TryAgainError when the hub does not answer. Run again it sends only the rest.
    """
    repo = _checked_repo(options.repo)
    with _alone(repo):
        policy = replace(_POLICY, total_s=patience_s)
        patience = partial(Retry, policy, "ModelScope", progress.note)
        done = _patiently(lambda: _bring(bundle, repo, options, studio, progress, patience), repo, patience())
        with translated(repo):
            app = publish_studio(done.before, bundle, studio, progress) if studio else None
    api = done.before.api
    url = f"{site(api)}/models/{repo}"
    is_open = options.is_private or done.visibility == _PUBLIC
    return Release(
        target=_TARGET,
        repo=repo,
        revision=bundle.digest,
        url=url,
        uploaded_files=len(done.sent),
        uploaded_bytes=sum(change.bytes for change in done.sent),
        unchanged_files=len(paths_with("same", done.changes)),
        verified=True,
        verified_by=_VERIFIED_BY,
        steps_left=(
            *(() if is_open else (f"make it public on its settings page: {url}",)),
            *(app.steps_left if app else ()),
        ),
        kept_files=paths_with("kept", done.changes),
        deleted_files=paths_with("deleted", done.changes),
        replaced_files=edited_paths(done.changes),
        app_kept_files=app.kept_files if app else (),
        app_replaced_files=app.replaced_files if app else (),
        app_files=app.files if app else {},
        download=WeightsSource(f"{site(api)}/models", repo, "master"),
    )


def _patiently(bring: Callable[[], _Done], repo: str, retry: Retry) -> _Done:
    """What `bring` comes to, begun again as long as the hub is away for a while only."""
    while True:
        try:
            with translated(repo):
                return bring()
        except TryAgainError as error:  # noqa: PERF203 (it waits anyway)
            if isinstance(error.__cause__, CommitLost):
                raise
            wait_s = getattr(error.__cause__, "retry_after", None)
            problem = f"answers {error.__cause__.status}" if isinstance(error.__cause__, HubBusy) else str(error)
            retry.wait(problem.removeprefix("ModelScope "), wait_s)


def _bring(
    bundle: Bundle,
    repo: str,
    options: PublishOptions,
    studio: StudioRequest | None,
    progress: Progress,
    patience: Callable[[], Retry],
) -> _Done:
    """Make the repository what the bundle is, from whatever it is now."""
    api, _ = sign_in()
    visibility = _visibility(api, repo)
    refuse(_too_visible(repo, visibility, options))
    if visibility is None:
        progress.note(f"{repo} is not there: creating it, {'private' if options.is_private else 'public'}")
        visibility = _create(api, repo, bundle, options)
        refuse(_too_visible(repo, visibility, options))
    there = shown(api, repo)
    changes = _look(bundle, there, options)
    refuse_edited(repo, bundle, changes, there.read, options)
    if studio:
        refuse_edited_studio(there, bundle, studio)
    gone = paths_with("deleted", changes)
    wanted = [change for change in changes if change.status in ("new", "changed")]
    paths = {change.path: bundle.path / change.path for change in wanted}
    if wanted and gone:
        keep_pending(_pending(repo), {path: there.digests.get(path, "") for path in gone})
    digests = _digests(bundle)

    def send(now: Listing | None) -> None:
        left = {path: file for path, file in paths.items() if now is None or now.get(path) != digests[path]}
        send_files(api, repo, _TYPE, left, f"Publish {bundle.name}, {bundle.digest}", progress)

    def delete(now: Listing | None) -> None:
        left = [path for path in gone if now is None or path in now]
        if left:
            api.delete_files(repo, _TYPE, left, commit_message=f"Delete what {bundle.name} has no more")

    for step in (send, delete):
        until_committed(step, lambda: shown(api, repo).digests, patience)
    if wanted or gone:
        _verify(_changes(bundle, shown(api, repo).digests, gone), repo)
    _read_back(api, bundle, repo, patience)
    _pending(repo).unlink(missing_ok=True)
    return _Done(there, visibility, changes)


def _look(bundle: Bundle, there: Shown, options: PublishOptions) -> tuple[Change, ...]:
    """What is to be done to the repository, in which is what is `there`."""
    changes = _changes(bundle, there.digests)
    extra = paths_with("kept", changes)
    is_asked = extra or set(paths_with("changed", changes)) - {MANIFEST}
    named = named_in(there.read(MANIFEST) or b"") if is_asked else {}
    ours = {path: sha256 for path, (_, sha256) in named.items()} | read_pending(_pending(there.repo))
    digests = there.digests
    unchanged = {path for path in extra if digests[path] and ours.get(path) == digests[path]}
    deleted = extra if options.is_mirror else unchanged
    return mark_edited(_changes(bundle, digests, deleted), named, there.files.get)


def _too_visible(repo: str, visibility: int | None, options: PublishOptions) -> list[Obstacle]:
    if visibility != _PUBLIC or not options.is_private:
        return []
    hint = "add --public if that is meant, or make the repository private on its settings page"
    return [Obstacle(f"{repo} is visible to everybody; nothing was sent", hint)]


def _checked_repo(repo: str | None) -> str:
    if not repo or not _REPO.fullmatch(repo):
        hint = "add --repo OWNER/NAME: letters, digits, dots, dashes and underscores"
        raise UsageError(f"ModelScope takes no repository called {repo!r}", hint=hint)
    return repo


def signed_in_as(*, is_asked: bool) -> tuple[str | None, list[Obstacle]]:
    """The account of the token, None when it is not asked for or there is none that counts; and what is missing."""
    if not has_token():
        return None, [] if can_ask() else [Obstacle("no token of ModelScope is here", TOKEN_HINT)]
    if not is_asked:
        return None, []
    owners: list[str] = []

    def look() -> None:
        with translated("your account"):
            owners.append(sign_in()[1])

    missing = obstacles_in(look)
    return (owners[0] if owners else None), missing


def _visibility(api: HubApi, repo: str) -> int | None:
    """What the hub says about who sees it; None when it is not there."""
    try:
        found = api.get_repo(repo, _TYPE)
    except errors.NotExistError:
        return None
    if found.visibility is not None:
        return int(found.visibility)
    return _PRIVATE if found.private else _PUBLIC


def _create(api: HubApi, repo: str, bundle: Bundle, options: PublishOptions) -> int:
    """Make the repository, and look what it has become. The uploader would make it public."""
    asked = _PRIVATE if options.is_private else _PUBLIC
    with contextlib.suppress(errors.AlreadyExistsError):
        api.create_repo(repo, _TYPE, visibility=asked, license=bundle.manifest.card.license)
    return _visibility(api, repo) or asked


def _changes(bundle: Bundle, remote: dict[str, str], deleted: Collection[str] = ()) -> tuple[Change, ...]:
    changes = compare(bundle, remote, hash_file(bundle.path / MANIFEST), deleted)
    return tuple(change for change in changes if change.status != "kept" or not of_the_hub(change.path))


def _verify(changes: Sequence[Change], repo: str) -> None:
    odd = [change for change in changes if change.status not in ("same", "kept")]
    if odd:
        raise ReleaseError(
            f"{repo} does not hold what was sent: {odd[0].path} is {_words(odd[0].status)} ({len(odd)} such files)",
            hint="run again: only these are sent again",
        )


def _read_back(api: HubApi, bundle: Bundle, repo: str, patience: Callable[[], Retry]) -> None:
    """Raises ReleaseError unless samples of every file come back as they are."""
    url = f"{site(api)}/api/v1/models/{repo}/repo?Revision=master&FilePath="
    headers = login_headers(api)
    files = [
        Sent(path, bundle.path / path, (bundle.path / path).stat().st_size, sha256, url + quote(path, safe=""), headers)
        for path, sha256 in _digests(bundle).items()
    ]
    Samples(home_of(api), patience).check(url, files)


def _digests(bundle: Bundle) -> dict[str, str]:
    return {file.path: file.sha256 for file in bundle.files} | {MANIFEST: hash_file(bundle.path / MANIFEST)}


def _words(status: str) -> str:
    return {"new": "missing", "changed": "different", "deleted": "still there"}[status]


@contextlib.contextmanager
def _alone(repo: str) -> Iterator[None]:
    lock = _own_file(repo, "lock")
    with disk_errors(lock, ReleaseError), locked(lock, repo):
        yield


def _pending(repo: str) -> Path:
    """What is still to be deleted, when a run is killed before it has."""
    return _own_file(repo, "pending")


def _own_file(repo: str, kind: str) -> Path:
    key = hashlib.sha256(repo.encode()).hexdigest()[:16]
    return cache_directory() / _TARGET / f".{key}.{kind}"
