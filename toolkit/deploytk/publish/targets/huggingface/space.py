"""The app on Hugging Face: a Space that has its model from the hub."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from deploytk.base.digests import hash_file
from deploytk.base.errors import ReleaseError
from deploytk.bundle import Bundle
from deploytk.publish.plan import AppPlan
from deploytk.publish.targets.huggingface.client import Client
from deploytk.publish.targets.huggingface.hardware import check_hardware, needs_gpu, suggested_hardware
from deploytk.publish.targets.huggingface.options import SpaceRequest
from deploytk.publish.targets.huggingface.repository import LocalFile, bring, changes_of, open_repository
from deploytk.publish.targets.huggingface.space_files import ModelSource, space_files
from deploytk.publish.targets.huggingface.space_waiting import Waiting

TOKEN_VARIABLE = "HF_APP_TOKEN"  # noqa: S105 (its name)
"""A token that may read; the Space gets it as its secret HF_TOKEN, to fetch a private model."""

_SECRETS = {TOKEN_VARIABLE: "HF_TOKEN", "DEPLOYTK_API_KEYS": "DEPLOYTK_API_KEYS"}


def check_space(client: Client, bundle: Bundle, source: ModelSource, wish: SpaceRequest) -> None:
    """Raises what speaks against the Space before anything is sent: its SDK, its hardware, a model it may not read."""
    space_files(bundle, source, wish.sdk)
    doubt = check_hardware(wish.hardware, bundle) if wish.hardware else None
    if doubt:
        client.progress.note(doubt)
    if source.is_private and not os.environ.get(TOKEN_VARIABLE):
        raise ReleaseError(
            f"the Space could not read its model: {source.repo} is private",
            hint=f"set {TOKEN_VARIABLE} to a token that may only read it ({client.hub.tokens_page}), or add --public",
        )


def plan_space(client: Client, bundle: Bundle, source: ModelSource, wish: SpaceRequest) -> AppPlan:
    """What `publish_space` would do, as far as it is known before the model is published."""
    name = _name(source.repo)
    head = client.head(name, "space")
    doubt = check_hardware(wish.hardware, bundle) if wish.hardware else None
    with tempfile.TemporaryDirectory(prefix="deploytk-") as directory:
        wanted = _write(space_files(bundle, source, wish.sdk), Path(directory))
        changes = changes_of(wanted, client.listing(name, kind="space") if head else {})
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
) -> tuple[str, ...]:
    """Create or update the Space MODEL-app and wait until this very commit of it answers; returns what is left to do.

    Raises ReleaseError with the end of its log when it fails, TryAgainError when it does not run in time.
    """
    name, secrets = _name(source.repo), _secrets()
    space: dict[str, Any] = {
        "space_sdk": wish.sdk,
        "space_secrets": [{"key": k, "value": v} for k, v in secrets.items()] or None,
    }
    if wish.hardware:
        space["space_hardware"] = wish.hardware
    repository = open_repository(client, name, "space", is_private=wish.is_private, **space)
    with tempfile.TemporaryDirectory(prefix="deploytk-") as directory:
        texts = space_files(bundle, source, wish.sdk)
        outcome = bring(client, repository, _write(texts, Path(directory)), f"Run {bundle.name}\n\n{bundle.digest}")
    is_changed = any(change.status != "same" for change in outcome.changes)
    if is_changed and not repository.is_new:
        for key, value in secrets.items():
            client.ask(lambda key=key, value=value: client.api.add_space_secret(name, key, value), name)  # type: ignore[misc]
    page = f"{client.hub.endpoint}/spaces/{name}"
    hardware = _order(client, name, wish)
    if needs_gpu(bundle) and hardware.startswith("cpu"):
        asked = f"--app-hardware {suggested_hardware(bundle)}"
        return (f"give the Space a GPU, which costs money: run again with {asked}, or choose on {page}/settings",)
    if wish.wait_s <= 0:
        return (f"see that it runs: {page}",)
    host = repository.head.host or f"https://{re.sub(r'[^a-z0-9]+', '-', name.lower())}.hf.space"
    Waiting(client, name, outcome.commit, host, is_changed=is_changed).wait(wish.wait_s, poll_s)
    return (f"test it: deploytk smoke {host}",)


def _order(client: Client, name: str, wish: SpaceRequest) -> str:
    """The hardware that the Space will have, once what was asked for is ordered."""
    runtime = client.ask(lambda: client.api.get_space_runtime(name), name)
    hardware = str(runtime.requested_hardware or runtime.hardware or "cpu-basic")
    if wish.hardware and hardware != wish.hardware:
        client.ask(lambda: client.api.request_space_hardware(name, cast(Any, wish.hardware)), name)
        hardware = wish.hardware
    return hardware


def _name(model: str) -> str:
    return f"{model}-app"


def _secrets() -> dict[str, str]:
    """Secrets of the Space from variables of the environment."""
    return {key: os.environ[variable] for variable, key in _SECRETS.items() if os.environ.get(variable)}


def _write(texts: Mapping[str, bytes], out: Path) -> dict[str, LocalFile]:
    for path, text in texts.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(text)
    return {path: LocalFile(out / path, len(text), hash_file(out / path)) for path, text in texts.items()}
