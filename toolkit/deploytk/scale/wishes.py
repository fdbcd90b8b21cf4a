"""What a person asks of a deployment of several replicas, and what of it makes sense."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from deploytk.base.errors import UsageError
from deploytk.base.names import is_dns_label
from deploytk.bundle.own_card import REPOSITORY

MOST_REPLICAS = 10_000
_COUNT = re.compile(r"[0-9]{1,9}")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
_BY_DIGEST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]*/[a-z0-9._/-]+@sha256:[0-9a-f]{64}")
_ADDRESS = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(?:/[A-Za-z0-9._~/-]*)?")
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,2})?)\s?%")


@dataclass(frozen=True, slots=True)
class Replicas:
    """How many there are; fewer at least than at most where they come and go with the load."""

    least: int
    most: int

    @property
    def are_fixed(self) -> bool:
        return self.least == self.most

    @classmethod
    def parsed(cls, text: str) -> Replicas:
        """Those of "3" or "1:8"; raises UsageError for anything else, and for more at least than at most."""
        first, colon, last = text.partition(":")
        if not _COUNT.fullmatch(first) or (colon and not _COUNT.fullmatch(last)):
            raise UsageError(f"{text[:60]!r} is no number of replicas", hint="write 3, or MIN:MAX such as 1:8")
        least, most = int(first), int(last if colon else first)
        if least < 1 or most > MOST_REPLICAS:
            raise UsageError(f"{text} replicas cannot be", hint=f"take from 1 to {MOST_REPLICAS}: one at least serves")
        if least > most:
            raise UsageError(
                f"there cannot be {least} replicas at least and {most} at most", hint=f"write {most}:{least}"
            )
        return cls(least, most)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked for beside the bundle; None means: choose."""

    replicas: Replicas = Replicas(1, 1)
    gpu: str | None = None
    tensor_parallel: int | None = None
    gpus_per_node: int = 8
    digest: str = ""  # of the bundle
    load_s: float | None = None  # what a start was measured to take
    bundle_place: str = "/bundle"  # where nodes without a container have the bundle
    source: Path | None = None  # the bundle here
    namespace: str = "default"
    keys: bool = True  # whether clients must show an API key
    autoscaler: str = "hpa"  # or keda
    prometheus: str = "http://prometheus-operated.monitoring.svc:9090"
    has_monitoring: bool = False  # the Prometheus operator is there
    claim: str | None = None  # of a PersistentVolumeClaim that holds the bundle
    volume: str | None = None  # an image that holds the bundle, mounted as a volume
    runtime_class: str | None = None
    pull_secret: str | None = None
    nodes: tuple[str, ...] = ()  # addresses for the load balancer
    repository: str | None = None  # on the hub, for platforms that take the model from there

    @property
    def is_many(self) -> bool:
        return self.replicas.most > 1


def node_list(text: str | None) -> tuple[str, ...]:
    """Addresses with commas between; raises UsageError for what is none."""
    if text is None:
        return ()
    hosts = tuple(part.strip() for part in text.split(","))
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise UsageError(f"{host[:80]!r} is no address of a node", hint="write 10.0.0.1,10.0.0.2 or names of hosts")
    if len(set(hosts)) != len(hosts):
        raise UsageError("a node is named twice", hint="name each once")
    return hosts


def kubernetes_name(text: str, option: str) -> str:
    """A name that Kubernetes takes; raises UsageError for another."""
    if not is_dns_label(text):
        hint = "lower case letters, digits and dashes, a letter first, 63 at most"
        raise UsageError(f"{option} {text[:80]!r} is no name in Kubernetes", hint=hint)
    return text


def image_by_digest(text: str) -> str:
    """An image that is named by its digest; raises UsageError for another name."""
    if not _BY_DIGEST.fullmatch(text):
        hint = "write HOST/NAME@sha256:...; `docker buildx imagetools inspect` tells the digest of a tag"
        raise UsageError(f"{text[:120]!r} does not name an image by its digest", hint=hint)
    return text


def web_address(text: str, option: str) -> str:
    """An http address without user, query or spaces; raises UsageError for anything else."""
    if not _ADDRESS.fullmatch(text):
        raise UsageError(f"{option} is no address", hint="write http://HOST:PORT, without a user")
    return text


def repository_name(text: str) -> str:
    """OWNER/NAME; raises UsageError for anything else."""
    if not REPOSITORY.fullmatch(text):
        raise UsageError(f"{text[:120]!r} is no repository", hint="write OWNER/NAME")
    return text


def share_of(text: str) -> float:
    """Per cent of "10%"; raises UsageError for anything else, and for none or more than half."""
    match = _SHARE.fullmatch(text.strip())
    if not match or not 0 < float(match[1]) <= 50:
        raise UsageError(f"{text[:40]!r} is no share for a canary", hint="write 10%: more than 0% and at most 50%")
    return float(match[1])
