"""Names of images in registries."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from deploytk.errors import UsageError

# The grammar of https://github.com/distribution/reference.
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_LONGEST_REPOSITORY = 255

_HINT = "write HOST/NAME:TAG, the name in lower case: registry.example.com/team/chat:1"


@dataclass(frozen=True, slots=True)
class Reference:
    host: str  # with its port when that is not the usual one
    repository: str
    tag: str

    @property
    def is_loopback(self) -> bool:
        """Whether the registry is on this machine: only then plain HTTP is used."""
        name = self.host.rpartition(":")[0] if re.search(r":\d+$", self.host) else self.host
        if name == "localhost":
            return True
        try:
            return ipaddress.ip_address(name.strip("[]")).is_loopback
        except ValueError:
            return False

    @property
    def url(self) -> str:
        # Docker Hub is called by one name and answers at another.
        host = "registry-1.docker.io" if self.host == "docker.io" else self.host
        return f"{'http' if self.is_loopback else 'https'}://{host}"

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}:{self.tag}"


def parse_reference(text: str) -> Reference:
    """The parts of HOST/NAME:TAG, the tag `latest` by default; raises UsageError for anything else."""
    host, slash, path = text.partition("/")
    if "@" in host:  # perhaps a password: not repeated
        raise UsageError("the name of an image cannot hold a user", hint="log in with: docker login HOST")
    is_host = bool(slash) and (any(sign in host for sign in ".:[") or host == "localhost")
    repository, _, tag = path.partition(":")
    if not is_host or not _HOST.fullmatch(host):
        raise UsageError(f"{text[:200]!r} names no registry", hint=_HINT)
    check_name(repository, tag or "latest", text)
    return Reference(host, repository, tag or "latest")


def check_name(repository: str, tag: str, text: str) -> None:
    """Raises UsageError, repeating `text`, unless these can name an image."""
    if not _REPOSITORY.fullmatch(repository) or len(repository) > _LONGEST_REPOSITORY:
        raise UsageError(f"{text[:200]!r}: {repository[:200]!r} cannot name an image", hint=_HINT)
    if not _TAG.fullmatch(tag):
        raise UsageError(f"{text[:200]!r}: {tag[:200]!r} cannot be a tag", hint="use letters, digits, '.', '_' and '-'")
