"""The app on ModelScope: a Studio of the repository's name, uploaded, deployed and waited for.

The names of a Studio's states are not documented in the client: they are told apart by the words in them, and what is
not known counts as not running yet.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from modelscope_hub import HubApi, errors

from deploytk.base.errors import ReleaseError, TryAgainError
from deploytk.base.pause import pause
from deploytk.base.progress import Progress
from deploytk.bundle import EDITABLE, MANIFEST, Bundle
from deploytk.publish.edited import edited_in_app
from deploytk.publish.plan import AppPlan, Change, edited_paths, is_done, paths_with
from deploytk.publish.record import recorded_app_files, sent_cards
from deploytk.publish.superseded import Named, named_in
from deploytk.publish.targets.common.app_repository import app_changes, app_files
from deploytk.publish.targets.modelscope.files import of_the_hub, send_files, site
from deploytk.publish.targets.modelscope.options import StudioRequest
from deploytk.publish.targets.modelscope.shown import Shown, shown

TOKEN_VARIABLE = "MODELSCOPE_APP_TOKEN"  # noqa: S105 (its name)
"""A token that may read; the Studio gets it as a secret, to fetch a private model."""

_TYPE = "studio"
_PRIVATE = 1
_SECRETS = ("DEPLOYTK_MODEL_USERNAME", "DEPLOYTK_MODEL_TOKEN")
_POLL_S = 5.0
_LOG_LINES = 15
_RUNNING = re.compile(r"running|运行中", re.IGNORECASE)
_FAILED = re.compile(r"fail|error|crash|异常|失败", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PublishedStudio:
    steps_left: tuple[str, ...]
    kept_files: tuple[str, ...]  # of others
    replaced_files: tuple[str, ...]  # that somebody had edited
    files: Mapping[str, tuple[int, str]]  # ours: path -> size, SHA-256


def publish_studio(there: Shown, bundle: Bundle, wish: StudioRequest, progress: Progress) -> PublishedStudio:
    """Create or update the Studio, wait until it runs, and say what is left to a person.

    Raises ReleaseError with the end of its log when it fails, TryAgainError when it does not run in time.
    """
    api, repo = there.api, there.repo
    _ensure(api, repo, bundle, wish, progress)
    has_token = _give_token(api, repo)
    changes = _changes(there, bundle, wish)
    _upload(api, repo, bundle, changes, progress)
    if not is_done(changes) or not _RUNNING.search(_status(api, repo)):
        progress.note(f"deploying the Studio {repo}")
        api.deploy_repo(repo, _TYPE)
    _wait(api, repo, wish.wait_s, progress)
    page = f"{site(api)}/studios/{repo}"
    gib = bundle.manifest.plan.vram.total_bytes / 2**30
    steps = [f"see that {page} has a GPU with {gib:.1f} GiB of memory or more"]
    if wish.is_private and not has_token:
        steps.append(f"the model is private: set {TOKEN_VARIABLE} to a token that may read, and run again")
    address = usual_address(site(api), repo)
    if wish.is_private or not address:
        steps.append(f"test it: deploytk smoke ADDRESS, with the address of the app that {page} shows")
    else:
        steps.append(f"test it: deploytk smoke {address} (if that is not its address, {page} shows it)")
    wanted = _files(api, repo, bundle)
    files = {path: (len(content), hashlib.sha256(content).hexdigest()) for path, content in wanted.items()}
    return PublishedStudio(tuple(steps), paths_with("kept", changes), edited_paths(changes), files)


def _ensure(api: HubApi, repo: str, bundle: Bundle, wish: StudioRequest, progress: Progress) -> None:
    try:
        api.get_repo(repo, _TYPE)
    except errors.NotExistError:
        progress.note(f"the Studio {repo} is not there: creating it")
        visibility = "private" if wish.is_private else "public"
        api.create_repo(repo, _TYPE, visibility=visibility, license=bundle.manifest.card.license, sdk_type="gradio")


def _give_token(api: HubApi, repo: str) -> bool:
    token = os.environ.get(TOKEN_VARIABLE)
    if not token:
        return False
    there = {str(secret.get("key", secret.get("name", ""))) for secret in api.list_secrets(repo, _TYPE)}
    for key, value in zip(_SECRETS, ("oauth2", token), strict=True):
        (api.update_secret if key in there else api.add_secret)(repo, key, value, _TYPE)
    return True


def usual_address(site: str, repo: str) -> str | None:
    """Where a public Studio answers, as known from those that are there: the hub's interface does not tell."""
    if urlsplit(site).hostname not in ("modelscope.cn", "www.modelscope.cn"):
        return None
    return f"https://{re.sub('[^a-z0-9]+', '-', repo.lower())}.ms.show"


def refuse_edited_studio(there: Shown, bundle: Bundle, wish: StudioRequest) -> None:
    """Raises ReleaseError for a card of the Studio that somebody edited there, unless it is said what becomes of it.

    It has the cards of the model's repository, in which is what is `there`.
    """
    there.read(MANIFEST)  # remembered: it is another one when the Studio's turn comes
    try:
        there.api.get_repo(there.repo, _TYPE)
    except errors.NotExistError:
        return
    edited = _edited_cards(there, bundle, shown(there.api, there.repo, _TYPE).files)
    if edited and wish.edited_card == "refuse":
        raise edited_in_app(f"the Studio {there.repo}", edited)


def plan_studio(there: Shown, bundle: Bundle, wish: StudioRequest) -> AppPlan:
    """What `publish_studio` would do to the Studio; nothing is changed."""
    api, repo = there.api, there.repo
    try:
        found = api.get_repo(repo, _TYPE)
        changes = _changes(there, bundle, wish)
        is_private = bool(found.private) if found.visibility is None else int(found.visibility) == _PRIVATE
    except errors.NotExistError:
        changes = app_changes(_files(api, repo, bundle), {}, {}, is_mirror=False)
        is_private = wish.is_private
    return AppPlan(
        place=f"{site(api)}/studios/{repo}",
        sdk="gradio",
        hardware=None,
        is_private=is_private,
        secrets=_SECRETS if os.environ.get(TOKEN_VARIABLE) else (),
        changes=changes,
        upload_bytes=sum(change.bytes for change in changes),
    )


def _files(api: HubApi, repo: str, bundle: Bundle) -> dict[str, bytes]:
    return app_files(bundle, f"{site(api)}/{repo}.git", "master")


def _changes(there: Shown, bundle: Bundle, wish: StudioRequest) -> tuple[Change, ...]:
    """What has to be done to the files of the Studio; cards that are to be kept count as files of others."""
    wanted = _files(there.api, there.repo, bundle)
    listed = shown(there.api, there.repo, _TYPE).files
    files = {path: facts for path, facts in listed.items() if path in wanted or not of_the_hub(path)}
    kept = _edited_cards(there, bundle, files) if wish.edited_card == "keep" else ()
    left = {path: content for path, content in wanted.items() if path not in kept}
    return app_changes(left, files, _ours(there, bundle), is_mirror=wish.is_mirror)


def _ours(there: Shown, bundle: Bundle) -> Named:
    """What an earlier release wrote into the Studio, of which the client hands out no file.

    The record beside the bundle knows it; of the cards, which the model's repository has as well, its deploytk.json.
    """
    named = named_in(there.read(MANIFEST) or b"")
    cards = {path: facts for path, facts in named.items() if path in EDITABLE}
    return {**cards, **recorded_app_files(bundle, "modelscope", there.repo)}


def _edited_cards(there: Shown, bundle: Bundle, files: Named) -> tuple[str, ...]:
    """The cards among these files of the Studio that are none that deploytk sent; what is in them is not known."""
    wanted, ours, sent = _files(there.api, there.repo, bundle), _ours(there, bundle), sent_cards(bundle)
    ours_now = {path: hashlib.sha256(content).hexdigest() for path, content in wanted.items()}
    suspects = [path for path in EDITABLE if path in files and path in wanted and files[path] != ours.get(path)]
    return tuple(path for path in suspects if files[path][1] not in {ours_now[path], *sent})


def _upload(api: HubApi, repo: str, bundle: Bundle, changes: Sequence[Change], progress: Progress) -> None:
    """Make the Studio have the files of the app."""
    wanted = _files(api, repo, bundle)
    odd = [change.path for change in changes if change.status in ("new", "changed")]
    gone = [change.path for change in changes if change.status == "deleted"]
    with tempfile.TemporaryDirectory(prefix="deploytk-") as directory:
        paths = {name: Path(directory) / name for name in odd}
        for name, path in paths.items():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(wanted[name])
        send_files(api, repo, _TYPE, paths, "Update the app", progress)
    if gone:
        api.delete_files(repo, _TYPE, gone)


def _status(api: HubApi, repo: str) -> str:
    runtime = api.get_repo(repo, _TYPE).runtime or {}
    return str(runtime.get("status") or "unknown")


def _wait(api: HubApi, repo: str, limit_s: float, progress: Progress) -> None:
    started = time.monotonic()
    last = ""
    while True:
        status = _status(api, repo)
        if status != last:
            progress.note(f"the Studio is {status}")
            last = status
        if _RUNNING.search(status):
            return
        if _FAILED.search(status):
            raise ReleaseError(
                f"the Studio {repo} is {status}\n{_log(api, repo)}", hint="the lines above are the end of its log"
            )
        left = limit_s - (time.monotonic() - started)
        if left <= 0:
            raise TryAgainError(
                f"the Studio {repo} is still {status} after {limit_s:.0f} s",
                hint="run the same command again later, with a longer --wait; pre-flight shows whether it can start",
            )
        pause(min(_POLL_S, left))


def _log(api: HubApi, repo: str) -> str:
    found = api.get_repo_logs(repo, _TYPE, log_type="run", page_size=_LOG_LINES)
    lines = found.get("logs") or []
    texts = [str(line.get("content", line.get("message", line)) if isinstance(line, dict) else line) for line in lines]
    return "\n".join(f"  {text[:300]}" for text in texts[-_LOG_LINES:]) or "  (no log)"
