"""The app on Hugging Face: a Space that has its model from the hub."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from deploytk.base.digests import hash_file
from deploytk.bundle import Bundle
from deploytk.publish.obstacles import Obstacle, obstacles_in
from deploytk.publish.plan import AppPlan, is_done, paths_with
from deploytk.publish.record import recorded_app_files
from deploytk.publish.targets.huggingface.client import Client
from deploytk.publish.targets.huggingface.hardware import check_hardware, needs_gpu, suggested_hardware
from deploytk.publish.targets.huggingface.options import SpaceRequest
from deploytk.publish.targets.huggingface.permissions import permission
from deploytk.publish.targets.huggingface.repository import (
    LocalFile,
    Repository,
    Superseded,
    bring,
    changes_of,
    everything,
    look,
    open_repository,
    still_as_named,
    too_visible,
)
from deploytk.publish.targets.huggingface.space_files import ModelSource, space_files
from deploytk.publish.targets.huggingface.space_waiting import Waiting

TOKEN_VARIABLE = "HF_APP_TOKEN"  # noqa: S105 (its name)
"""A token that may read; the Space gets it as its secret HF_TOKEN, to fetch a private model."""

_SECRETS = {TOKEN_VARIABLE: "HF_TOKEN", "DEPLOYTK_API_KEYS": "DEPLOYTK_API_KEYS"}


@dataclass(frozen=True, slots=True)
class PublishedSpace:
    steps_left: tuple[str, ...]
    kept_files: tuple[str, ...]  # of others
    files: Mapping[str, tuple[int, str]]  # ours: path -> size, SHA-256


def space_obstacles(
    client: Client, bundle: Bundle, source: ModelSource, wish: SpaceRequest, account: Mapping[str, Any]
) -> list[Obstacle]:
    """What speaks against the Space, found before anything is sent: its SDK, hardware, name, and tokens."""
    name = space_name(source.repo)
    head = client.head(name, "space")
    hint = f"make a token that may write at {client.hub.tokens_page}, or leave --app out"
    found = [
        *obstacles_in(lambda: space_files(bundle, source, wish.sdk)),
        *obstacles_in(lambda: wish.hardware and check_hardware(wish.hardware, bundle)),
        *too_visible(name, head, is_private=wish.is_private),
        *permission(account, name).obstacles(hint, is_there=head is not None),
    ]
    if source.is_private and not os.environ.get(TOKEN_VARIABLE):
        hint = f"set {TOKEN_VARIABLE} to a token that may only read it ({client.hub.tokens_page}), or add --public"
        found.append(Obstacle(f"the Space could not read its model: {source.repo} is private", hint))
    return found


def plan_space(client: Client, bundle: Bundle, source: ModelSource, wish: SpaceRequest) -> AppPlan:
    """What `publish_space` would do, as far as it is known before the model is published."""
    name = space_name(source.repo)
    head = client.head(name, "space")
    doubt = check_hardware(wish.hardware, bundle) if wish.hardware else None
    with tempfile.TemporaryDirectory(prefix="deploytk-") as directory:
        wanted = _write(space_files(bundle, source, wish.sdk), Path(directory))
        superseded = _superseded(bundle, source.repo, wish)
        changes = look(client, name, "space", wanted, superseded) if head else changes_of(wanted, {})
    return AppPlan(
        place=f"{client.hub.endpoint}/spaces/{name}",
        sdk=wish.sdk,
        hardware=wish.hardware,
        is_private=head.is_private if head else wish.is_private,
        secrets=tuple(_secrets()),
        changes=changes,
        upload_bytes=sum(change.bytes for change in changes),
        doubt=doubt,
    )


def publish_space(
    client: Client,
    bundle: Bundle,
    source: ModelSource,
    wish: SpaceRequest,
    poll_s: float = 5.0,
) -> PublishedSpace:
    """Create or update the Space MODEL-app and wait until this very commit of it answers.

    Raises ReleaseError with the end of its log when it fails, TryAgainError when it does not run in time.
    """
    name, secrets = space_name(source.repo), _secrets()
    space: dict[str, Any] = {
        "space_sdk": wish.sdk,
        "space_secrets": [{"key": k, "value": v} for k, v in secrets.items()] or None,
    }
    if wish.hardware:
        space["space_hardware"] = wish.hardware
    doubt = check_hardware(wish.hardware, bundle) if wish.hardware else None
    if doubt:
        client.progress.note(doubt)
    repository = open_repository(client, name, "space", client.head(name, "space"), is_private=wish.is_private, **space)
    with tempfile.TemporaryDirectory(prefix="deploytk-") as directory:
        wanted = _write(space_files(bundle, source, wish.sdk), Path(directory))
        message = f"Run {bundle.name}\n\n{bundle.digest}"
        outcome = bring(client, repository, wanted, message, _superseded(bundle, source.repo, wish))
    is_changed = not is_done(outcome.changes)
    if is_changed and not repository.is_new:
        for key, value in secrets.items():
            client.ask(lambda key=key, value=value: client.api.add_space_secret(name, key, value), name)  # type: ignore[misc]
    steps = _run(client, bundle, repository, outcome.commit, wish, poll_s, is_changed=is_changed)
    files = {path: (file.size, file.sha256) for path, file in wanted.items()}
    return PublishedSpace(steps, paths_with("kept", outcome.changes), files)


def _run(
    client: Client,
    bundle: Bundle,
    repository: Repository,
    commit: str,
    wish: SpaceRequest,
    poll_s: float,
    *,
    is_changed: bool,
) -> tuple[str, ...]:
    """Order its hardware and wait until the Space runs that commit; returns what is left to do."""
    name = repository.name
    page = f"{client.hub.endpoint}/spaces/{name}"
    hardware = _order(client, name, wish)
    if needs_gpu(bundle) and hardware.startswith("cpu"):
        asked = f"--app-hardware {suggested_hardware(bundle)}"
        return (f"give the Space a GPU, which costs money: run again with {asked}, or choose on {page}/settings",)
    if wish.wait_s <= 0:
        return (f"see that it runs: {page}",)
    host = repository.head.host or f"https://{re.sub(r'[^a-z0-9]+', '-', name.lower())}.hf.space"
    Waiting(client, name, commit, host, is_changed=is_changed).wait(wish.wait_s, poll_s)
    return (f"test it: deploytk smoke {host}",)


def _superseded(bundle: Bundle, model: str, wish: SpaceRequest) -> Superseded:
    """Of the Space, what was ours is known by the record beside the bundle."""
    named = recorded_app_files(bundle, "huggingface", model)
    return (
        everything
        if wish.is_mirror
        else lambda client, name, extra: still_as_named(client, name, "space", extra, named)
    )


def _order(client: Client, name: str, wish: SpaceRequest) -> str:
    """The hardware that the Space will have, once what was asked for is ordered."""
    runtime = client.ask(lambda: client.api.get_space_runtime(name), name)
    hardware = str(runtime.requested_hardware or runtime.hardware or "cpu-basic")
    if wish.hardware and hardware != wish.hardware:
        client.ask(lambda: client.api.request_space_hardware(name, cast(Any, wish.hardware)), name)
        hardware = wish.hardware
    return hardware


def space_name(model: str) -> str:
    return f"{model}-app"


def _secrets() -> dict[str, str]:
    """Secrets of the Space from variables of the environment."""
    return {key: os.environ[variable] for variable, key in _SECRETS.items() if os.environ.get(variable)}


def _write(texts: Mapping[str, bytes], out: Path) -> dict[str, LocalFile]:
    for path, text in texts.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(text)
    return {path: LocalFile(out / path, len(text), hash_file(out / path)) for path, text in texts.items()}
