"""Publishes a bundle to ModelScope; the hub's client is an extra, and loaded when it is needed."""

from __future__ import annotations

import importlib.util

from deploytk.base.credentials import Credential, find_credential
from deploytk.base.progress import Progress
from deploytk.bundle import Bundle, HubCard
from deploytk.publish.obstacles import Obstacle, refuse
from deploytk.publish.options import PublishOptions
from deploytk.publish.plan import ReleasePlan
from deploytk.publish.proposal import Proposal, repository
from deploytk.publish.record import Release
from deploytk.publish.target import About, AppRequest
from deploytk.publish.targets.modelscope.options import ModelScopeOptions

# What its pages are sorted by. Source: modelscope.cn/docs, model card.
_HEAD = "tasks:\n- text-generation\nframeworks:\n- pytorch\n"
_PATIENCE_S = 90.0
_CLIENT = Obstacle("the client of ModelScope is not installed", "pip install 'deploytk[modelscope]'", exit_code=2)


def _credential() -> Credential:
    hint = "set MODELSCOPE_API_TOKEN (ModelScope, account, access token)"
    return find_credential("modelscope", ("MODELSCOPE_API_TOKEN",), hint, file="~/.modelscope/credentials/cookies")


def _card(repo: str) -> HubCard:
    name = repo.rpartition("/")[2]
    commands = ("pip install modelscope", f"modelscope download --model {repo} --local_dir {name}", f"cd {name}")
    return HubCard("ModelScope", commands, "modelscope login --token TOKEN", is_chinese=True, head=_HEAD)


class ModelScope:
    about = About(
        "modelscope",
        "ModelScope",
        options=ModelScopeOptions,
        takes=("public", "mirror", "edited_card"),
        credential=_credential,
        extra=("modelscope", "modelscope_hub"),
        card=_card,
    )

    def __init__(
        self,
        options: ModelScopeOptions = ModelScopeOptions(),  # noqa: B008 (it is frozen)
        *,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._own = options
        self._patience_s = patience_s  # with a hub that does not answer, beyond the 16 s of the client's own

    @property
    def app(self) -> AppRequest | None:
        return AppRequest(is_preflighted=True) if self._own.app else None

    def propose(self, name: str, repo: str | None) -> Proposal:
        """The owner is the account of the token."""
        if importlib.util.find_spec("modelscope_hub") is None:
            return Proposal(repository(repo, None, name), (_CLIENT,))
        from deploytk.publish.targets.modelscope.repository import signed_in_as

        owner, missing = signed_in_as(is_asked=not (repo and "/" in repo))
        return Proposal(repository(repo, owner, name), tuple(missing))

    def preview(self, bundle: Bundle, options: PublishOptions) -> ReleasePlan:
        _require_client()
        from deploytk.publish.targets.modelscope.repository import plan_repository

        return plan_repository(bundle, options, self._own.studio(options))

    def publish(self, bundle: Bundle, options: PublishOptions, progress: Progress) -> Release:
        _require_client()
        from deploytk.publish.targets.modelscope.repository import publish_repository

        studio = self._own.studio(options)
        return publish_repository(bundle, options, studio, self._patience_s, progress)


def _require_client() -> None:
    if importlib.util.find_spec("modelscope_hub") is None:
        refuse([_CLIENT])
