"""Whether an engine would run code that a model names, and whether somebody said that it may."""

from __future__ import annotations

from collections.abc import Sequence

from deploytk import lmdeploy
from deploytk.artifact import Artifact
from deploytk.base.errors import TrustError
from deploytk.plan.value import ServingPlan

FLAG = "--trust-remote-code"


def require_trust(named: Sequence[str], version: str | None, what: str, *, is_trusted: bool) -> None:
    """Raises TrustError when LMDeploy `version` would run code of the model `what` that nobody trusts."""
    refuse_code(code_that_runs(named, version, what), is_trusted=is_trusted)


def refuse_code(why: str, *, is_trusted: bool) -> None:
    """Raises TrustError for what `code_that_runs` says, unless somebody trusts it."""
    if why and not is_trusted:
        raise TrustError(why, hint=f"read that code, then say {FLAG}, or take a model without code")


def code_that_runs(named: Sequence[str], version: str | None, what: str, *, asks: bool = False) -> str:
    """Which code of the model `what` LMDeploy `version` would run, in a sentence; "" for none.

    `named` are the files that name code; `asks` says that the server is started with --trust-remote-code. The CPU
    engine, whose version is None, runs none.
    """
    if not named or version is None:
        return ""
    if asks:
        return f"{what} is to be served with {FLAG}, and {named[0]} names code"
    if lmdeploy.asks_before_remote_code(version):
        return ""
    return f"LMDeploy {version} runs unasked the code that {named[0]} of {what} names (auto_map)"


def require_trusted_plan(artifact: Artifact, plan: ServingPlan, *, is_trusted: bool) -> None:
    """The same for what is planned: a plan says what it would be, whoever starts it asks this."""
    require_trust(artifact.remote_code, plan.lmdeploy, str(artifact.root), is_trusted=is_trusted)


def require_trust_here(named: Sequence[str], what: str, *, is_trusted: bool) -> None:
    """The same for the LMDeploy that is installed here, which is not always the one of a plan."""
    if named and not is_trusted:
        require_trust(named, lmdeploy.installed_version() or "of unknown version", what, is_trusted=False)
