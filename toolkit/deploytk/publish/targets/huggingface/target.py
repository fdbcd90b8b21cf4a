"""Publishes a bundle to Hugging Face: large files first, then one commit whatever the number of files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from deploytk.base.credentials import Credential, can_ask, find_credential
from deploytk.base.errors import ReleaseError
from deploytk.base.progress import Progress, Silent
from deploytk.bundle import Bundle, HubCard
from deploytk.publish.obstacles import obstacles_in
from deploytk.publish.options import PublishOptions
from deploytk.publish.plan import ReleasePlan
from deploytk.publish.proposal import Proposal, repository
from deploytk.publish.record import Release
from deploytk.publish.target import About, AppRequest
from deploytk.publish.targets.huggingface.options import HuggingFaceOptions
from deploytk.publish.targets.huggingface.place import check_repo, find_hub, has_token

if TYPE_CHECKING:
    from deploytk.publish.targets.huggingface.client import Client

_VERIFIED_BY = (
    "the newest commit, its listing (SHA-256 of large files, git object ids of the others), and samples read back once"
)


def _credential() -> Credential:
    hint = "set HF_TOKEN, or run: hf auth login"
    return find_credential("huggingface", ("HF_TOKEN",), hint, file="~/.cache/huggingface/token")


def _card(repo: str) -> HubCard:
    name = repo.rpartition("/")[2]
    commands = ("pip install huggingface_hub", f"hf download {repo} --local-dir {name}", f"cd {name}")
    return HubCard("Hugging Face", commands, "hf auth login")


class HuggingFace:
    about = About(
        "huggingface",
        "Hugging Face",
        options=HuggingFaceOptions,
        takes=("public", "mirror", "edited_card"),
        credential=_credential,
        card=_card,
    )
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

    def propose(self, name: str, repo: str | None) -> Proposal:
        """The owner is the account of the token."""
        hub = obstacles_in(lambda: None if can_ask() and not has_token() else find_hub())
        if hub or not has_token() or (repo and "/" in repo):
            return Proposal(repository(repo, None, name), tuple(hub))
        owners: list[str] = []
        missing = obstacles_in(lambda: owners.append(str(self._client(Silent()).account()["name"])))
        return Proposal(repository(repo, owners[0] if owners else None, name), tuple(missing))

    def preview(self, bundle: Bundle, options: PublishOptions) -> ReleasePlan:
        client = self._client(Silent())
        _check_card(bundle)
        account = client.account()
        repo = _repo(client, bundle, options, account)
        from deploytk.publish.targets.huggingface.planning import plan_model

        return plan_model(client, bundle, repo, options, self._own.space(options), account)

    def publish(self, bundle: Bundle, options: PublishOptions, progress: Progress) -> Release:
        """Create the repository (private unless told otherwise), send what it lacks, commit once, list and compare.

        Nothing is seen of it before the commit. Files of others stay. Raises ReleaseError when the hub refuses,
        TryAgainError when it does not answer or others keep committing; what refuses beforehand creates nothing.
        """
        client = self._client(progress)
        _check_card(bundle)
        repo = _repo(client, bundle, options, None)
        from deploytk.publish.targets.huggingface.publishing import publish_model

        return publish_model(client, bundle, repo, options, self._own.space(options), self._poll_s)

    def _client(self, progress: Progress) -> Client:
        hub = find_hub()
        from deploytk.publish.targets.huggingface.client import PATIENCE_S, Client

        return Client(hub, progress, PATIENCE_S if self._patience_s is None else self._patience_s)


def _repo(client: Client, bundle: Bundle, options: PublishOptions, account: Mapping[str, Any] | None) -> str:
    repo = options.repo or bundle.name
    if "/" not in repo:
        repo = f"{(account or client.account())['name']}/{repo}"
    return check_repo(repo)


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
