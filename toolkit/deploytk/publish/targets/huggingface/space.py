"""The app on Hugging Face: a Space that has its model from the hub."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

from deploytk.base.digests import hash_file
from deploytk.base.errors import ReleaseError
from deploytk.bundle import Bundle
from deploytk.publish.edited import README, Read, with_their_words
from deploytk.publish.obstacles import Obstacle, obstacles_in
from deploytk.publish.plan import AppPlan, Change, is_done, paths_with
from deploytk.publish.targets.huggingface.client import Client
from deploytk.publish.targets.huggingface.hardware import check_hardware, needs_gpu, suggested_hardware
from deploytk.publish.targets.huggingface.options import SpaceRequest
from deploytk.publish.targets.huggingface.permissions import permission
from deploytk.publish.targets.huggingface.repository import (
    LocalFile,
    Repository,
    bring,
    changes_of,
    look,
    open_repository,
    too_visible,
)
from deploytk.publish.targets.huggingface.space_files import OWNED, ModelSource, space_files, with_readme
from deploytk.publish.targets.huggingface.space_waiting import Waiting

TOKEN_VARIABLE = "HF_APP_TOKEN"  # noqa: S105 (its name)
"""A token that may read; the Space gets it as its secret HF_TOKEN, to fetch a private model."""

_SECRETS = {TOKEN_VARIABLE: "HF_TOKEN", "DEPLOYTK_API_KEYS": "DEPLOYTK_API_KEYS"}


@dataclass(frozen=True, slots=True)
class PublishedSpace:
    steps_left: tuple[str, ...]
    changes: tuple[Change, ...]  # what had to be done to its repository


def space_obstacles(
    client: Client, bundle: Bundle, source: ModelSource, wish: SpaceRequest, account: Mapping[str, Any], read: Read
) -> list[Obstacle]:
    """What speaks against the Space, found before anything is sent: its SDK, hardware, name, and tokens."""
    name = space_name(source.repo)
    head = client.head(name, "space")
    hint = f"make a token that may write at {client.hub.tokens_page}, or leave --app out"
    found = [
        *obstacles_in(lambda: _files(bundle, source, wish, read if head else None)),
        *obstacles_in(lambda: wish.hardware and check_hardware(wish.hardware, bundle)),
        *too_visible(name, head, is_private=wish.is_private),
        *permission(account, name).obstacles(hint, is_there=head is not None),
    ]
    if source.is_private and not os.environ.get(TOKEN_VARIABLE):
        hint = f"set {TOKEN_VARIABLE} to a token that may only read it ({client.hub.tokens_page}), or add --public"
        found.append(Obstacle(f"the Space could not read its model: {source.repo} is private", hint))
    return found


def plan_space(client: Client, bundle: Bundle, source: ModelSource, wish: SpaceRequest, read: Read) -> AppPlan:
    """What `publish_space` would do, as far as it is known before the model is published."""
    name = space_name(source.repo)
    head = client.head(name, "space")
    doubt = check_hardware(wish.hardware, bundle) if wish.hardware else None
    with tempfile.TemporaryDirectory(prefix="deploytk-") as directory:
        texts = space_files(bundle, source, wish.sdk)
        with suppress(ReleaseError):  # one of the obstacles
            texts = _files(bundle, source, wish, read if head else None)
        wanted = _write(texts, Path(directory))
        changes = look(client, name, "space", wanted, is_mirror=wish.is_mirror) if head else changes_of(wanted, {})
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
    read: Read,
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
    texts = _files(bundle, source, wish, None if repository.is_new else read)

    def guard(changes: Sequence[Change]) -> None:
        """Whoever edits its README.md meanwhile is asked as well."""
        if README not in paths_with("changed", changes):
            return
        if _files(bundle, source, wish, space_reader(client, source))[README] != texts[README]:
            raise ReleaseError(f"{README} of {name} was edited just now", hint="run the same command again")

    with tempfile.TemporaryDirectory(prefix="deploytk-") as directory:
        wanted = _write(texts, Path(directory))
        message = f"Run {bundle.name}\n\n{bundle.digest}"
        outcome = bring(client, repository, wanted, message, guard, is_mirror=wish.is_mirror)
    is_changed = not is_done(outcome.changes)
    if is_changed and not repository.is_new:
        for key, value in secrets.items():
            client.ask(lambda key=key, value=value: client.api.add_space_secret(name, key, value), name)  # type: ignore[misc]
    steps = _run(client, bundle, repository, outcome.commit, wish, poll_s, is_changed=is_changed)
    return PublishedSpace(steps, outcome.changes)


def space_reader(client: Client, source: ModelSource) -> Read:
    """Reads small files of the Space as it is now, each once."""
    name = space_name(source.repo)
    return cache(lambda path: client.read(name, path, "space"))


def _files(bundle: Bundle, source: ModelSource, wish: SpaceRequest, read: Read | None) -> dict[str, bytes]:
    """The files of the Space, its README.md with what people made of the one there."""
    texts = space_files(bundle, source, wish.sdk)
    if read is None:
        return texts
    made = texts[README].decode()
    readme = with_their_words(space_name(source.repo), made, read, OWNED, wish.edited_card)
    return with_readme(bundle, texts, readme, made)


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
