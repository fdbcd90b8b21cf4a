"""The image: layers that deploytk writes itself, on top of a runtime that a builder made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deploytk.image.media_types import CONFIG_TYPE

LayerKind = Literal["base", "weights", "model", "app", "card"]
WeightsMode = Literal["layers", "mount", "download"]

RUNTIME = "deploytk-runtime"
"""The name of the images that `build` makes to put bundles on."""

USER = 10001
"""Who a container runs as."""

WEIGHTS_PLACE = "/weights"
"""Where a container keeps weights that it fetches itself: a volume."""

Read = Callable[[int], Iterator[bytes]]
"""The bytes of a blob from an offset on; raises ImageError when what they are made of has changed."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer as every output sends it."""

    digest: str  # sha256:... of the blob
    diff_id: str  # sha256:... of the uncompressed tar; equal to digest for layers of our own
    size: int  # bytes of the blob
    kind: LayerKind
    media_type: str
    created_by: str  # one line for the image's history
    read: Read
    repository: str | None = None  # HOST/NAME of a registry that has the blob: another one there can mount it


@dataclass(frozen=True, slots=True)
class Base:
    """The runtime image that bundles are put on."""

    reference: str  # as a user would name it
    image_id: str  # sha256:... of its config
    layers: tuple[Layer, ...]
    config: bytes  # its image config, JSON
    packages: tuple[tuple[str, str], ...] = ()  # name and version of what pip installed, for SBOM and lock file
    is_in_daemon: bool = False


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """All that an output needs; nothing has been sent. The same inputs give the same bytes anywhere."""

    layers: tuple[Layer, ...]  # those of the base first
    config: bytes  # JSON
    manifest: bytes  # JSON, an OCI image manifest
    image_id: str  # sha256:... of config
    digest: str  # sha256:... of manifest
    config_type: str = CONFIG_TYPE


@dataclass(frozen=True, slots=True)
class WeightsSource:
    """The published bundle that a container fetches its weights from; https://ENDPOINT/REPO/resolve/REVISION/PATH."""

    endpoint: str
    repo: str
    revision: str


@dataclass(frozen=True, slots=True)
class BuildOptions:
    tag: str  # NAME:TAG or HOST/NAME:TAG
    output: str = "daemon"  # daemon, registry, or oci:DIR
    weights: WeightsMode = "layers"
    weights_source: WeightsSource | None = None  # for weights="download"
    base: str | None = None  # a runtime image to use as it is, instead of building one
    ca_certificate: Path | None = None  # trusted while the runtime is built, kept in no layer
    wheels: Path | None = None  # a directory of wheels that pip takes before the index
    is_offline: bool = False  # ... or instead of it
    variant: Literal["official", "pip"] = "official"  # LMDeploy's own image, or NVIDIA's with LMDeploy from pip
    arguments: Mapping[str, str] = field(default_factory=dict)  # of the Dockerfile: BASE_IMAGE, mirrors
    is_locked: bool = False  # refuse a runtime that is not the one of the lock file
    takes_over: bool = False  # the tag in a registry, whatever image it names
    uses_host_network: bool = False  # while the runtime is built: for a mirror or proxy on this machine


@dataclass(frozen=True, slots=True)
class SentLayer:
    """What happened to one layer."""

    digest: str
    size: int  # bytes
    kind: LayerKind
    reused: bool  # it was there already: nothing was sent


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is where it was wanted."""

    tag: str
    image_id: str
    digest: str  # of its manifest
    output: str  # daemon, registry, or oci:DIR
    layers: tuple[SentLayer, ...]
    sent_bytes: int
    seconds: float
