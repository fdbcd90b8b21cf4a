"""Where on which hub, and with whose token."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from deploytk.base.credentials import ask_token
from deploytk.base.errors import ReleaseError, UsageError
from deploytk.base.origin import Origin, origin_of

OFFICIAL = "https://huggingface.co"

# Source: huggingface_hub, utils/_validators.py, validate_repo_id; the owner is there always.
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")


@dataclass(frozen=True, slots=True)
class Hub:
    """A server that speaks Hugging Face's protocol."""

    endpoint: str
    token: str = field(repr=False)

    @property
    def host(self) -> str:
        return urlsplit(self.endpoint).netloc

    @property
    def is_official(self) -> bool:
        return self.endpoint == OFFICIAL

    @property
    def origin(self) -> Origin:
        return Origin.of(self.endpoint)

    @property
    def is_loopback(self) -> bool:
        return self.origin.is_loopback

    @property
    def tokens_page(self) -> str:
        return f"{self.endpoint}/settings/tokens"

    def redact(self, text: str) -> str:
        return text.replace(self.token, "***")


def find_hub() -> Hub:
    """The hub of HF_ENDPOINT, with the token of HF_TOKEN, of `hf auth login`, or of a hidden prompt on a terminal."""
    endpoint = (os.environ.get("HF_ENDPOINT") or OFFICIAL).rstrip("/")
    origin = origin_of(endpoint)
    if not origin or "?" in endpoint or "#" in endpoint:
        raise UsageError(
            "HF_ENDPOINT is no address of a hub", hint=f"unset it, or write it like {OFFICIAL}, without a token"
        )
    if not origin.is_private:
        raise UsageError(
            f"{endpoint} is no hub that a token may be sent to",
            hint="HF_ENDPOINT is an https address; plain http only on this machine",
        )
    return Hub(endpoint, _token(origin.netloc, is_official=endpoint == OFFICIAL))


def has_token() -> bool:
    """Whether there is one for the hub of HF_ENDPOINT without asking anybody."""
    import huggingface_hub

    endpoint = (os.environ.get("HF_ENDPOINT") or OFFICIAL).rstrip("/")
    kept = huggingface_hub.get_token() if endpoint == OFFICIAL else None
    return bool(os.environ.get("HF_TOKEN", "").strip() or kept)


def _token(host: str, *, is_official: bool) -> str:
    """HF_TOKEN goes to the hub that is named beside it; a login that was kept, to the hub that it was made at."""
    import huggingface_hub

    kept = huggingface_hub.get_token() if is_official else None
    token = os.environ.get("HF_TOKEN", "").strip() or kept or ask_token(host)
    if not token:
        raise ReleaseError(
            f"there is no access token for {host}",
            hint="set HF_TOKEN to one that may write, or run: hf auth login"
            if is_official
            else f"set HF_TOKEN to one of {host} that may write; what `hf auth login` keeps is not sent to mirrors",
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ReleaseError("HF_TOKEN holds no access token", hint="copy it again: letters and digits, no spaces")
    return token


def check_repo(repo: str) -> str:
    """`repo` when a hub can have such a name; raises UsageError else."""
    parts = repo.split("/")
    if len(parts) != 2 or not all(_NAME.fullmatch(part) for part in parts) or "--" in repo or ".." in repo:
        raise UsageError(
            f"{repo!r} is no repository's name",
            hint="write OWNER/NAME: letters, digits, '-', '_' and '.', at most 96, no '--' or '..'",
        )
    if repo.endswith((".git", ".ipynb")):
        raise UsageError(f"{repo!r} is refused by hubs for its end", hint="choose a name without .git or .ipynb")
    return repo
