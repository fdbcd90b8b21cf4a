"""Publishes a bundle to Hugging Face: large files first, then one commit whatever the number of files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import yaml

from deploytk.base.credentials import Credential, find_credential
from deploytk.base.errors import ReleaseError
from deploytk.base.progress import Progress, Silent
from deploytk.bundle import Bundle
from deploytk.image.value import WeightsSource
from deploytk.publish.options import PublishOptions
from deploytk.publish.plan import ReleasePlan
from deploytk.publish.record import Release
from deploytk.publish.target import About, AppRequest
from deploytk.publish.targets.huggingface.options import HuggingFaceOptions
from deploytk.publish.targets.huggingface.place import check_repo, find_hub

if TYPE_CHECKING:
    from deploytk.publish.targets.huggingface.client import Client

_VERIFIED_BY = "one listing of the repository: SHA-256 of large files, git object ids of the others"


def _credential() -> Credential:
    hint = "set HF_TOKEN, or run: hf auth login"
    return find_credential("huggingface", ("HF_TOKEN",), hint, file="~/.cache/huggingface/token")


class HuggingFace:
    about = About("huggingface", "Hugging Face", options=HuggingFaceOptions, takes=("public",), credential=_credential)
    app: AppRequest | None = None  # the hub builds and starts it; it is waited for here

    def __init__(
        self,
        options: HuggingFaceOptions = HuggingFaceOptions(),  # noqa: B008 (it is frozen)
        *,
        patience_s: float | None = None,
        poll_s: float = 5.0,
    ) -> None:
        self._own = options
        self._patience_s = patience_s  # with a hub that does not answer; None: two minutes
        self._poll_s = poll_s  # how often a Space is looked at

    def preview(self, bundle: Bundle, options: PublishOptions) -> ReleasePlan:
        from deploytk.publish.targets.huggingface.repository import changes_of, wanted_files

        client = self._client(Silent())
        _check_card(bundle)
        account = client.account()
        repo = _repo(client, bundle, options, account)
        head = client.head(repo)
        remote = client.listing(repo) if head else {}
        changes = changes_of(wanted_files(bundle), remote)
        size = sum(change.bytes for change in changes)
        is_private = head.is_private if head else options.is_private
        app = None
        space = self._own.space(is_private=options.is_private)
        if space:
            from deploytk.publish.targets.huggingface.space import plan_space
            from deploytk.publish.targets.huggingface.space_files import ModelSource

            is_known = head is not None and all(change.status == "same" for change in changes)
            revision = head.commit if head and is_known else None
            source = ModelSource(client.hub.endpoint, repo, revision or "", is_private)
            app = plan_space(client, bundle, source, space)
        return ReleasePlan(self.about.name, repo, is_private, changes, size, permissions(account, repo), app)

    def publish(self, bundle: Bundle, options: PublishOptions, progress: Progress) -> Release:
        """Create the repository (private unless told otherwise), send what it lacks, commit once, list and compare.

        Nothing is seen of it before the commit. Raises ReleaseError when the hub refuses, TryAgainError when it does
        not answer or others keep committing.
        """
        from deploytk.publish.targets.huggingface.repository import bring, open_repository, wanted_files

        client = self._client(progress)
        repo = _repo(client, bundle, options, None)
        _check_card(bundle)
        repository = open_repository(client, repo, "model", is_private=options.is_private)
        space = self._own.space(is_private=options.is_private)
        if space:
            from deploytk.publish.targets.huggingface.space import check_space, publish_space
            from deploytk.publish.targets.huggingface.space_files import ModelSource

            source = ModelSource(client.hub.endpoint, repo, "", repository.head.is_private)
            check_space(client, bundle, source, space)
        outcome = bring(client, repository, wanted_files(bundle), f"Publish {bundle.name}\n\n{bundle.digest}")
        steps = []
        if repository.head.is_private and not options.is_private:
            steps.append(f"make it public on its settings page: {client.hub.endpoint}/{repo}/settings")
        if space:
            source = replace(source, revision=outcome.commit)
            steps += publish_space(client, bundle, source, space, self._poll_s)
        return Release(
            target=self.about.name,
            repo=repo,
            revision=outcome.commit,
            url=f"{client.hub.endpoint}/{repo}",
            uploaded_files=outcome.sent_files,
            uploaded_bytes=outcome.sent_bytes,
            unchanged_files=sum(change.status == "same" for change in outcome.changes),
            verified=True,
            verified_by=_VERIFIED_BY,
            steps_left=tuple(steps),
            download=WeightsSource(client.hub.endpoint, repo, outcome.commit),
        )

    def _client(self, progress: Progress) -> Client:
        hub = find_hub()
        from deploytk.publish.targets.huggingface.client import PATIENCE_S, Client

        return Client(hub, progress, PATIENCE_S if self._patience_s is None else self._patience_s)


def _repo(client: Client, bundle: Bundle, options: PublishOptions, account: Mapping[str, Any] | None) -> str:
    repo = options.repo or bundle.name
    if "/" not in repo:
        repo = f"{(account or client.account())['name']}/{repo}"
    return check_repo(repo)


def permissions(account: Mapping[str, Any], repo: str) -> str:
    """What the token may do, in words."""
    who = str(account.get("name"))
    owner = repo.split("/")[0]
    token = account.get("auth", {}).get("accessToken", {})
    role = token.get("role")
    teams = {str(team.get("name")): team.get("roleInOrg") for team in account.get("orgs", [])}
    if owner != who and owner not in teams:
        return f"the token of {who} may not write: {owner} is neither that account nor one of its organizations"
    if role == "read" or teams.get(owner) == "read":
        return f"the token of {who} may only read"
    if role == "fineGrained":
        grants = token.get("fineGrained", {}).get("scoped", [])
        allowed = {
            str(grant.get("entity", {}).get("name"))
            for grant in grants
            if {"repo.write", "repo.content.write"} & set(grant.get("permissions", []))
        }
        if repo in allowed and owner not in allowed:
            return f"the token of {who} may write to {repo}, and create nothing else"
        return f"the token of {who} {'may write' if owner in allowed else 'may not write'} to repositories of {owner}"
    return f"the token of {who} may write"


def _check_card(bundle: Bundle) -> None:
    try:
        check_front_matter((bundle.path / "README.md").read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ReleaseError("README.md is no text in UTF-8", hint="correct the card's template") from error


def check_front_matter(card: str) -> None:
    """Raises ReleaseError unless README.md starts with YAML that names a licence."""
    match = re.match(r"---\n(.*?\n)---\n", card, re.DOTALL)
    try:
        front = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError as error:
        raise ReleaseError(
            f"the head of README.md is no YAML: {' '.join(str(error).split())}", hint="correct the card's template"
        ) from error
    if not isinstance(front, dict) or not isinstance(front.get("license"), str):
        raise ReleaseError(
            "README.md has no head (---) that names a license",
            hint="package again with --license, or correct the template",
        )
