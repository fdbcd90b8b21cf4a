"""What publishing a model, and its Space, would do; and what would stop it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploytk.bundle import Bundle
from deploytk.publish.edited import Read, refuse_edited
from deploytk.publish.obstacles import Obstacle, obstacles_in
from deploytk.publish.options import PublishOptions
from deploytk.publish.plan import AppPlan, ReleasePlan, is_done
from deploytk.publish.targets.huggingface.client import Client, Head
from deploytk.publish.targets.huggingface.options import SpaceRequest
from deploytk.publish.targets.huggingface.permissions import permission
from deploytk.publish.targets.huggingface.repository import (
    Guard,
    changes_of,
    look,
    too_visible,
    wanted_files,
)
from deploytk.publish.targets.huggingface.space import plan_space, space_obstacles, space_reader
from deploytk.publish.targets.huggingface.space_files import ModelSource


def plan_model(
    client: Client,
    bundle: Bundle,
    repo: str,
    options: PublishOptions,
    space: SpaceRequest | None,
    account: Mapping[str, Any],
) -> ReleasePlan:
    """What `publish_model` would do; nothing is changed."""
    head = client.head(repo)
    wanted = wanted_files(bundle)
    changes = look(client, repo, "model", wanted, is_mirror=options.is_mirror) if head else changes_of(wanted, {})
    is_private = head.is_private if head else options.is_private
    revision = head.commit if head and is_done(changes) else None
    source = ModelSource(client.hub.endpoint, repo, revision or "", is_private)
    found, read = permission(account, repo), space_reader(client, source)
    hint = f"check --repo, or make a token that may write at {client.hub.tokens_page}"
    obstacles = [
        *found.obstacles(hint, is_there=head is not None),
        *model_obstacles(client, bundle, repo, head, options),
        *obstacles_in(lambda: card_guard(client, repo, bundle, options)(changes)),
        *(space_obstacles(client, bundle, source, space, account, read) if space else ()),
    ]
    return ReleasePlan(
        target="huggingface",
        repo=repo,
        is_private=is_private,
        changes=changes,
        upload_bytes=sum(change.bytes for change in changes),
        permissions=found.says,
        app=_planned_space(client, bundle, source, space, read, obstacles) if space else None,
        obstacles=tuple(obstacles),
    )


def _planned_space(
    client: Client, bundle: Bundle, source: ModelSource, space: SpaceRequest, read: Read, obstacles: list[Obstacle]
) -> AppPlan | None:
    """None where an obstacle says why it cannot even be planned."""
    return None if any(one.exit_code == 2 for one in obstacles) else plan_space(client, bundle, source, space, read)


def card_guard(client: Client, repo: str, bundle: Bundle, options: PublishOptions) -> Guard:
    """Refuses to write over a card that somebody edited there."""
    return lambda changes: refuse_edited(repo, bundle, changes, lambda path: client.read(repo, path, "model"), options)


def model_obstacles(
    client: Client, bundle: Bundle, repo: str, head: Head | None, options: PublishOptions
) -> list[Obstacle]:
    """What the hub would refuse about the model's repository, found before it is created."""
    card = (bundle.path / "README.md").read_text(encoding="utf-8")
    refused = obstacles_in(lambda: client.check_card(card)) if head is None else []
    return [*too_visible(repo, head, is_private=options.is_private), *refused]
