"""Names of images."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from deploytk.base.errors import UsageError
from deploytk.base.origin import is_loopback

# The grammar of https://github.com/distribution/reference.
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LONGEST_REPOSITORY = 255


@dataclass(frozen=True, slots=True)
class Reference:
    host: str  # with its port when that is not the usual one
    repository: str
    tag: str

    @property
    def is_loopback(self) -> bool:
        """Whether the registry is on this machine: only then plain HTTP is used."""
        return is_loopback(re.sub(r":\d+$", "", self.host))

    @property
    def url(self) -> str:
        # Docker Hub is called by one name and answers at another.
        host = "registry-1.docker.io" if self.host == "docker.io" else self.host
        return f"{'http' if self.is_loopback else 'https'}://{host}"

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}:{self.tag}"


def parse_reference(text: str) -> Reference:
    """The parts of HOST/NAME:TAG, the tag `latest` by default; raises UsageError for anything else."""
    host, name, tag = _split(text)
    if not host:
        raise UsageError(
            f"{text[:200]!r} names no registry", hint="write HOST/NAME:TAG: registry.example.com/team/chat:1"
        )
    _check(text, name, tag or "latest")
    return Reference(host, name, tag or "latest")


def digest_or_tag(text: str) -> Reference:
    """As `parse_reference`, and HOST/NAME@sha256:... as well, whose digest stands in the place of the tag."""
    name, at, digest = text.rpartition("@")
    if not at or not _DIGEST.fullmatch(digest):
        return parse_reference(text)
    return replace(parse_reference(name), tag=digest)


def parse_tag(text: str) -> Reference:
    """The parts of NAME:TAG or HOST/NAME:TAG, as Docker completes the former; raises UsageError for anything else."""
    host, name, tag = _split(text)
    if not tag:
        raise _refused(text, "it has no tag")
    _check(text, name, tag)
    if host:
        return Reference(host, name, tag)
    return Reference("docker.io", name if "/" in name else f"library/{name}", tag)


def _split(text: str) -> tuple[str, str, str]:
    """Host, name and tag, each perhaps empty."""
    host, slash, path = text.partition("/")
    if "@" in host:  # perhaps a password: not repeated
        raise UsageError("the name of an image cannot hold a user", hint="log in with: docker login HOST")
    if not slash or not (any(sign in host for sign in ".:[") or host == "localhost"):
        host, path = "", text
    elif not _HOST.fullmatch(host):
        raise UsageError(
            f"{text[:200]!r} names no registry", hint="write HOST/NAME:TAG: registry.example.com/team/chat:1"
        )
    name, _, tag = path.partition(":")
    return host, name, tag


def _check(text: str, name: str, tag: str) -> None:
    if not _REPOSITORY.fullmatch(name) or len(name) > _LONGEST_REPOSITORY:
        raise _refused(text, "the name is lower case: letters, digits, and between them . _ - /")
    if not _TAG.fullmatch(tag):
        raise _refused(text, "a tag has at most 128 letters, digits, and . _ -")


def _refused(text: str, why: str) -> UsageError:
    hint = "write NAME:TAG or HOST/NAME:TAG: my-model:1, registry.example.com/team/chat:1"
    return UsageError(f"{text[:200]!r} is not the name of an image: {why}", hint=hint)
