"""What a release to OpenXLab needs before anything is done: an account, a token, git, and a repository made by hand."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from deploytk.base.credentials import can_ask
from deploytk.base.progress import Silent
from deploytk.publish.obstacles import Obstacle, obstacles_in
from deploytk.publish.proposal import UNKNOWN, Proposal, missing_programs, repository
from deploytk.publish.targets.openxlab.git import Git, creation_steps
from deploytk.publish.targets.openxlab.place import find_place

_KEYS = Obstacle("no access key of OpenXLab is here", "set OPENXLAB_AK and OPENXLAB_SK (OpenXLab, account, 密钥管理)")
_ACCOUNT = Obstacle("nothing says which account of OpenXLab is yours", "set OPENXLAB_USERNAME to its user name")
_TOKEN = Obstacle(
    "no Git access token of OpenXLab is here",
    "make one that may write (OpenXLab, account, 密钥管理, Git 令牌), set OPENXLAB_GIT_TOKEN and OPENXLAB_USERNAME",
)


def propose(name: str, repo: str | None, *, by_sdk: bool, patience_s: float) -> Proposal:
    username = os.environ.get("OPENXLAB_USERNAME")
    named = repository(repo, username, name)
    missing = [_ACCOUNT] if named.startswith(f"{UNKNOWN}/") else []
    if by_sdk:
        has_keys = os.environ.get("OPENXLAB_AK") and os.environ.get("OPENXLAB_SK")
        return Proposal(named, (*missing, *([] if has_keys else [_KEYS])))
    missing += missing_programs(("git",))
    if not os.environ.get("OPENXLAB_GIT_TOKEN"):
        missing += [] if can_ask() else [_TOKEN]
        steps = f"if it is not there yet, {creation_steps(named)}"
        form = Obstacle(f"without a token nobody can tell whether the repository {named} is there", steps)
        return Proposal(named, (*missing, form) if missing else ())
    return Proposal(named, tuple(missing or _absent(named, patience_s)))


def _absent(repo: str, patience_s: float) -> list[Obstacle]:
    """Whether the repository is there, and may be seen."""
    place = find_place(repo)
    with tempfile.TemporaryDirectory(prefix="deploytk-") as directory:
        git = Git(Path(directory) / "work", place.url, place.account, Silent(), patience_s)
        git.start()
        return obstacles_in(lambda: git.must("ls-remote", "hub", "HEAD"))
