"""Brings a model to its repository by one commit, and then the Space that runs it."""

from __future__ import annotations

from dataclasses import replace

from deploytk.bundle import Bundle
from deploytk.image.value import WeightsSource
from deploytk.publish.obstacles import refuse
from deploytk.publish.options import PublishOptions
from deploytk.publish.plan import edited_paths, paths_with
from deploytk.publish.record import Release
from deploytk.publish.targets.huggingface.client import Client, Head
from deploytk.publish.targets.huggingface.options import SpaceRequest
from deploytk.publish.targets.huggingface.planning import card_guard, model_obstacles
from deploytk.publish.targets.huggingface.repository import (
    bring,
    open_repository,
    wanted_files,
)
from deploytk.publish.targets.huggingface.space import publish_space, space_obstacles, space_reader
from deploytk.publish.targets.huggingface.space_files import ModelSource

_VERIFIED_BY = (
    "the newest commit, its listing (SHA-256 of large files, git object ids of the others), and samples read back once"
)


def publish_model(
    client: Client, bundle: Bundle, repo: str, options: PublishOptions, space: SpaceRequest | None, poll_s: float
) -> Release:
    """What refuses it is found before anything is created."""
    seen = client.head(repo)
    source = ModelSource(client.hub.endpoint, repo, "", seen.is_private if seen else options.is_private)
    obstacles, read = model_obstacles(client, bundle, repo, seen, options), space_reader(client, source)
    if space:
        obstacles += space_obstacles(client, bundle, source, space, client.account(), read)
    refuse(obstacles)
    repository = open_repository(client, repo, "model", seen, is_private=options.is_private)
    message = f"Publish {bundle.name}\n\n{bundle.digest}"
    guard = card_guard(client, repo, bundle, options)
    outcome = bring(client, repository, wanted_files(bundle), message, guard, is_mirror=options.is_mirror)
    release = Release(
        target="huggingface",
        repo=repo,
        revision=outcome.commit,
        url=f"{client.hub.endpoint}/{repo}",
        uploaded_files=outcome.sent_files,
        uploaded_bytes=outcome.sent_bytes,
        unchanged_files=len(paths_with("same", outcome.changes)),
        verified=True,
        verified_by=_VERIFIED_BY,
        steps_left=_to_make_public(client, repo, repository.head, options),
        kept_files=paths_with("kept", outcome.changes),
        deleted_files=paths_with("deleted", outcome.changes),
        replaced_files=edited_paths(outcome.changes),
        download=WeightsSource(client.hub.endpoint, repo, outcome.commit),
    )
    if space is None:
        return release
    done = publish_space(client, bundle, replace(source, revision=outcome.commit), space, read, poll_s)
    return replace(
        release,
        steps_left=(*release.steps_left, *done.steps_left),
        app_kept_files=paths_with("kept", done.changes),
        app_replaced_files=edited_paths(done.changes),
    )


def _to_make_public(client: Client, repo: str, head: Head, options: PublishOptions) -> tuple[str, ...]:
    if options.is_private or not head.is_private:
        return ()
    return (f"make it public on its settings page: {client.hub.endpoint}/{repo}/settings",)
