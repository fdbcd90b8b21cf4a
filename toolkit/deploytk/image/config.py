"""Image config and manifest, written by hand: the same inputs give the same image ID on every machine."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from deploytk.base.digests import hash_file
from deploytk.base.errors import ImageError
from deploytk.base.progress import Progress
from deploytk.bundle import MANIFEST, Bundle
from deploytk.image.entry import ENTRY, check_platform
from deploytk.image.fetching import fetching_files
from deploytk.image.layers import ROOT, make_layers
from deploytk.image.lock import lock_of
from deploytk.image.media_types import CONFIG_TYPE, MANIFEST_TYPE
from deploytk.image.sbom import sbom_of
from deploytk.image.tar import Content, Link
from deploytk.image.value import USER, WEIGHTS_PLACE, Base, BuildOptions, ImagePlan, Layer, WeightsMode

SBOM = f"{ROOT}/.deploytk/sbom.cdx.json"
LOCK = f"{ROOT}/.deploytk/deploytk.lock"

MODELS = "models"
"""Where KServe (`oci://`) looks for the files of a model in an image; a link, so that they are there once.

It is relative: KServe follows it through /proc of another container.
"""

LABELS = "ai.deploytk."
"""Before the name of every label that is our own."""

_DESCRIBING = ("org.opencontainers.image.", LABELS)

_ENVIRONMENT = {"HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}  # noqa: S108 (the container's)
PROBE = (
    "import os, urllib.request as r; "
    "r.urlopen('http://127.0.0.1:' + os.environ.get('PORT', '{port}') + '/ready', timeout=4)"
)
"""What a container runs to find out whether it is healthy; there is no curl."""

_NS = 10**9
_MOST_LAYERS = 127  # that Docker stacks

# What loading takes at least, whatever the size; and how fast weights come from a slow disk, and from a hub.
_START_S = 120
_READ_BYTES_PER_S: dict[WeightsMode, float] = {"layers": 50e6, "mount": 50e6, "download": 5e6}


def plan_image(bundle: Bundle, base: Base, options: BuildOptions, progress: Progress) -> ImagePlan:
    """The image of a verified bundle on a base: layers, config and manifest, with nothing sent anywhere.

    Raises ImageError when a file of the bundle, or the base, cannot be in an image that runs.
    """
    _check_base(base)
    extras: dict[str, Content] = {SBOM: sbom_of(bundle, base), LOCK: lock_of(bundle, base)}
    if options.weights == "layers":
        extras[MODELS] = Link(ROOT)
    if options.weights == "download":
        extras |= fetching_files(bundle, options.weights_source)
    layers = (*base.layers, *make_layers(bundle, options.weights, progress, extras))
    if len(layers) > _MOST_LAYERS:
        hint = "build the base anew in fewer steps"
        raise ImageError(f"{len(layers)} layers are more than the {_MOST_LAYERS} that Docker stacks", hint=hint)
    return finished(layers, _to_bytes(_config(bundle, base, options, layers)))


def finished(layers: tuple[Layer, ...], config: bytes) -> ImagePlan:
    """The image of these layers and this config. What we label it with is in its manifest as well."""
    labels = (json.loads(config).get("config") or {}).get("Labels") or {}
    image_id = content_digest(config)
    described = [{"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size} for layer in layers]
    manifest = _to_bytes(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": image_id, "size": len(config)},
            "layers": described,
            "annotations": {name: value for name, value in labels.items() if name.startswith(_DESCRIBING)},
        }
    )
    return ImagePlan(layers, config, manifest, image_id, content_digest(manifest))


def labels_of(bundle: Bundle, base: Base, options: BuildOptions) -> dict[str, str]:
    """What can be known about an image without pulling it."""
    model, plan, card = bundle.manifest.model, bundle.manifest.plan, bundle.manifest.card
    quantization = f"{model.weight_format}-{model.weight_bits}bit" if model.is_quantized else "none"
    labels = {
        "org.opencontainers.image.title": bundle.name,
        "org.opencontainers.image.version": bundle.digest.removeprefix("sha256:")[:12],
        "org.opencontainers.image.revision": hash_file(bundle.path / MANIFEST),
        "org.opencontainers.image.licenses": card.license,
        "org.opencontainers.image.created": created(),
        "org.opencontainers.image.base.name": base.reference,
        # Its image ID: the digest of its manifest depends on where it was taken from, and ours would then as well.
        "org.opencontainers.image.base.digest": base.image_id,
        f"{LABELS}model": model.architecture,
        f"{LABELS}base-model": card.base_model,
        f"{LABELS}quantization": quantization,
        f"{LABELS}lmdeploy": plan.lmdeploy,
        f"{LABELS}set-digest": bundle.digest,
        f"{LABELS}weights": options.weights,
        f"{LABELS}min-vram-mib": str(math.ceil(plan.vram.total_bytes / 2**20)),
    }
    return {key: str(value) for key, value in labels.items() if value}


def created() -> str:
    """The time that images bear: that of SOURCE_DATE_EPOCH, 1970 without it; never now."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or "0"
    try:
        return datetime.fromtimestamp(int(epoch), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError) as error:
        hint = "set it to seconds since 1970, or unset it"
        raise ImageError(f"SOURCE_DATE_EPOCH is {epoch[:40]!r}, not a time", hint=hint) from error


def start_period_s(bundle: Bundle, weights: WeightsMode) -> int:
    """How long a container may take until it is ready, in whole minutes: what loading the weights takes at worst."""
    return start_budget_s(sum(file.size for file in bundle.files if file.kind == "weights"), weights)


def start_budget_s(weights_bytes: int, weights: WeightsMode) -> int:
    """The same for that many bytes of weights."""
    return 60 * math.ceil((_START_S + weights_bytes / _READ_BYTES_PER_S[weights]) / 60)


def _check_base(base: Base) -> None:
    check_platform(base)
    if not base.layers:
        raise ImageError(f"{base.reference} has no layers", hint="name an image with Python and LMDeploy with --base")


def _config(bundle: Bundle, base: Base, options: BuildOptions, layers: Sequence[Layer]) -> dict[str, object]:
    inherited = json.loads(base.config)
    run: dict[str, Any] = dict(inherited.get("config") or {})
    port = bundle.manifest.app.port
    is_fetching = options.weights == "download"
    source = {"DEPLOYTK_WEIGHTS": WEIGHTS_PLACE} if is_fetching else {"HF_HUB_OFFLINE": "1"}
    # What describes the base does not describe this image.
    others = {name: value for name, value in (run.get("Labels") or {}).items() if not name.startswith(_DESCRIBING)}
    environment = dict(entry.partition("=")[::2] for entry in run.get("Env") or ()) | _ENVIRONMENT | source
    run |= {
        "User": f"{USER}:{USER}",
        "WorkingDir": f"/{ROOT}",
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Entrypoint": list(ENTRY),
        "Cmd": None,
        "Volumes": {**(run.get("Volumes") or {}), WEIGHTS_PLACE: {}} if is_fetching else run.get("Volumes"),
        "ExposedPorts": {f"{port}/tcp": {}},
        "StopSignal": "SIGTERM",
        "Healthcheck": {
            "Test": ["CMD", "python", "-I", "-c", PROBE.format(port=port)],
            "Interval": 10 * _NS,
            "Timeout": 5 * _NS,
            "StartPeriod": start_period_s(bundle, options.weights) * _NS,
            "Retries": 3,
        },
        "Labels": others | labels_of(bundle, base, options),
    }
    return {
        "architecture": inherited.get("architecture", "amd64"),
        "os": "linux",
        "created": created(),
        "config": {key: value for key, value in run.items() if value is not None},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": _history(inherited.get("history") or [], base, layers),
    }


def _history(theirs: list[dict[str, Any]], base: Base, layers: Sequence[Layer]) -> list[object]:
    """A line per layer; `theirs`, of the base, is kept when it fits the layers."""
    if sum(not line.get("empty_layer") for line in theirs) != len(base.layers):
        theirs = [{"created": created(), "created_by": layer.created_by} for layer in base.layers]
    ours = [{"created": created(), "created_by": layer.created_by} for layer in layers[len(base.layers) :]]
    last = {"created": created(), "created_by": "deploytk: user, health check, entry point", "empty_layer": True}
    return [*theirs, *ours, last]


def _to_bytes(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def content_digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
