"""A model without an app as an OCI artifact: CNCF's ModelPack, a layer per file, each as it is.

https://github.com/modelpack/model-spec, docs/spec.md, docs/config.md and docs/annotations.md at d78bf32 (2026-06).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from deploytk.artifact import Artifact
from deploytk.base.digests import hash_file
from deploytk.bundle import MANIFEST, Bundle, BundleFile
from deploytk.image.config import LABELS, content_digest
from deploytk.image.layers import place_of
from deploytk.image.media_types import MANIFEST_TYPE
from deploytk.image.reading import read_checked
from deploytk.image.tar import File
from deploytk.image.value import ImagePlan, Layer, LayerKind

_PREFIX = "application/vnd.cncf.model."
ARTIFACT = f"{_PREFIX}manifest.v1+json"
CONFIG = f"{_PREFIX}config.v1+json"
WEIGHTS, SETTINGS, CODE, DOCS = (f"{_PREFIX}{kind}.v1.raw" for kind in ("weight", "weight.config", "code", "doc"))

_PATH, _METADATA = "org.cncf.model.filepath", "org.cncf.model.file.metadata+json"
_TITLE = "org.opencontainers.image.title"
_PROSE = (".md", ".txt", ".pdf", ".rst")
_DOCS = ("license", "notice", "copying", "readme")
_FORMATS = {".safetensors": "safetensors", ".bin": "pt", ".pt": "pt", ".pth": "pt", ".weight": "turbomind"}
_SCALES = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K"))


def plan_artifact(bundle: Bundle) -> ImagePlan:
    """The artifact of a verified bundle: weights, settings, code and card, no app. Nothing is read or sent.

    The digest of a layer is that of its file, which the manifest of the bundle knows. Raises ImageError for a file that
    leads out of the bundle.
    """
    files = [file for file in bundle.files if _kind(file)]
    layers = tuple(_layer(bundle.path.resolve(), file) for file in files)
    config = _to_bytes(_config(bundle, layers))
    described = [
        {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size, "annotations": _notes(file)}
        for layer, file in zip(layers, files, strict=True)
    ]
    manifest = _to_bytes(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT,
            "config": {"mediaType": CONFIG, "digest": content_digest(config), "size": len(config)},
            "layers": described,
            "annotations": _annotations(bundle),
        }
    )
    return ImagePlan(layers, config, manifest, content_digest(config), content_digest(manifest), CONFIG)


def _kind(file: BundleFile) -> str:
    """The media type of its layer; "" for what belongs to the app."""
    path = PurePosixPath(file.path)
    if file.kind == "weights":
        return WEIGHTS
    if file.kind == "app":
        return ""
    if path.suffix == ".py":
        return CODE
    is_prose = path.name.lower().startswith(_DOCS) or (path.suffix == ".md" and len(path.parts) == 1)
    if is_prose or file.kind == "card":
        return DOCS if path.suffix in _PROSE or path.name.lower().startswith(_DOCS) else ""
    return SETTINGS


def _layer(root: Path, file: BundleFile) -> Layer:
    digest = f"sha256:{file.sha256}"
    content = File(place_of(root, file.path), file.size, file.sha256)
    read = partial(read_checked, content.read, digest)
    kind: LayerKind = "weights" if file.kind == "weights" else "model"
    return Layer(digest, digest, file.size, kind, _kind(file), f"deploytk: {file.path}", read)


def _notes(file: BundleFile) -> dict[str, str]:
    """Its path; no owner and no time of this machine: the same bundle gives the same artifact."""
    name = PurePosixPath(file.path).name
    attributes = {"name": name, "mode": 0o644, "uid": 0, "gid": 0, "size": file.size}
    attributes |= {"mtime": "1970-01-01T00:00:00Z", "typeflag": ord("0")}
    return {_PATH: file.path, _METADATA: _to_bytes(attributes).decode(), _TITLE: file.path}


def _annotations(bundle: Bundle) -> dict[str, str]:
    card = bundle.manifest.card
    found = {
        _TITLE: bundle.name,
        "org.opencontainers.image.version": bundle.digest.removeprefix("sha256:")[:12],
        "org.opencontainers.image.revision": hash_file(bundle.path / MANIFEST),
        "org.opencontainers.image.licenses": card.license,
        f"{LABELS}set-digest": bundle.digest,
    }
    return {name: value for name, value in found.items() if value}


def _config(bundle: Bundle, layers: Sequence[Layer]) -> dict[str, object]:
    model, card = bundle.manifest.model, bundle.manifest.card
    descriptor: dict[str, object] = {
        "name": bundle.name,
        "title": bundle.manifest.app.title,
        "version": bundle.digest.removeprefix("sha256:")[:12],
        "family": model.architecture,
    }
    if card.license:
        descriptor["licenses"] = [card.license]
    return {
        "descriptor": descriptor,
        "config": _technical(model, bundle.files),
        "modelfs": {"type": "layers", "diffIds": [layer.diff_id for layer in layers]},
    }


def _technical(model: Artifact, files: Sequence[BundleFile]) -> dict[str, object]:
    found: dict[str, object] = {
        "architecture": "transformer",
        "paramSize": _in_short(model.parameters),
        "precision": model.weight_dtype,
        "capabilities": {"inputTypes": ["text"], "outputTypes": ["text"]},
    }
    suffixes = [PurePosixPath(file.path).suffix for file in files if file.kind == "weights"]
    formats = {_FORMATS[suffix] for suffix in suffixes if suffix in _FORMATS}
    if len(formats) == 1:
        found["format"] = formats.pop()
    if model.is_quantized:
        found["quantization"] = model.weight_format
    return found


def _in_short(parameters: int) -> str:
    """7.3B: one digit after the point, as the specification wants it."""
    size, letter = next(((size, letter) for size, letter in _SCALES if parameters >= size), (10**3, "K"))
    return f"{parameters / size:.1f}{letter}"


def _to_bytes(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
