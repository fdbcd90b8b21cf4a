"""Where on which server, and as whom."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from deploytk.base.credentials import ask_token
from deploytk.base.errors import ReleaseError, UsageError
from deploytk.base.origin import origin_of

SERVER = "https://code.openxlab.org.cn"
SERVER_VARIABLE = "OPENXLAB_GIT_ENDPOINT"
SITE = "https://openxlab.org.cn"

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


@dataclass(frozen=True, slots=True)
class Account:
    username: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Place:
    server: str  # without a slash at the end
    repo: str  # OWNER/NAME
    account: Account

    @property
    def url(self) -> str:
        return f"{self.server}/{self.repo}.git"

    @property
    def page(self) -> str:
        """Where a person looks at it."""
        return f"{SITE}/models/detail/{self.repo}" if self.server == SERVER else self.url


def find_place(repo: str | None) -> Place:
    """The repository OWNER/NAME with the account of the environment.

    Raises UsageError for a name or server that cannot be, ReleaseError when there are no credentials.
    """
    repo = check_repo(repo)
    owner = repo.partition("/")[0]
    server = check_server(os.environ.get(SERVER_VARIABLE) or SERVER)
    username, token = os.environ.get("OPENXLAB_USERNAME", ""), os.environ.get("OPENXLAB_GIT_TOKEN", "")
    token = token or ask_token("OpenXLab's git server")
    if not token:
        raise ReleaseError(
            "no Git access token of OpenXLab is here",
            hint="make one that may write (OpenXLab, account, 密钥管理, Git 令牌), set OPENXLAB_GIT_TOKEN and "
            "OPENXLAB_USERNAME",
        )
    return Place(server, repo, Account(username or owner, token))


def check_repo(repo: str | None) -> str:
    """`repo` when it is OWNER/NAME; raises UsageError for anything else."""
    if not repo:
        raise UsageError("OpenXLab needs the name of the repository", hint="add --repo OWNER/NAME")
    owner, _, name = repo.partition("/")
    if not (_PART.fullmatch(owner) and _PART.fullmatch(name)) or name.endswith(".git"):
        hint = "OWNER/NAME, each of letters, digits, dots, dashes and underscores, at most 96, without .git"
        raise UsageError(f"OpenXLab takes no repository called {repo!r}", hint=hint)
    return repo


def check_server(address: str) -> str:
    """`address` without a slash at its end; raises UsageError unless a token may be sent there."""
    if "@" in address:
        raise UsageError(
            f"{SERVER_VARIABLE} holds a name or password", hint="set OPENXLAB_USERNAME and OPENXLAB_GIT_TOKEN"
        )
    origin = origin_of(address)
    if not origin or not origin.is_private or "?" in address or "#" in address:
        hint = f"{SERVER_VARIABLE} is an https address; plain http only on this machine"
        raise UsageError(f"{address!r} is no server that a token may be sent to", hint=hint)
    # As git compares it when it asks for a login.
    return f"{origin}{urlsplit(address).path}".rstrip("/")
