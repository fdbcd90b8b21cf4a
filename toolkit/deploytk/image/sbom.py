"""What is in an image, as data: a CycloneDX bill of materials."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Set
from urllib.parse import quote

from deploytk import __version__, lmdeploy
from deploytk.bundle import Bundle
from deploytk.image.value import Base


def sbom_of(bundle: Bundle, base: Base) -> bytes:
    """A CycloneDX 1.6 document in JSON: the model with a digest per weight file, and the Python environment.

    It has no time and its serial number follows from its content: the same image has the same document.
    """
    card = bundle.manifest.card
    model: dict[str, object] = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": bundle.name,
        "version": bundle.digest,
        "components": [
            {
                "type": "file",
                "bom-ref": f"file:{file.path}",
                "name": file.path,
                "hashes": [{"alg": "SHA-256", "content": file.sha256}],
            }
            for file in bundle.files
            if file.kind in ("weights", "model")
        ],
    }
    if card.license:
        model["licenses"] = [{"license": {"name": card.license}}]
    if card.base_model:
        model["pedigree"] = {"ancestors": [{"type": "machine-learning-model", "name": card.base_model}]}
    runtime = {
        "type": "container",
        "bom-ref": "runtime",
        "name": base.reference,
        "version": base.image_id,
        "hashes": [{"alg": "SHA-256", "content": base.image_id.removeprefix("sha256:")}],
    }
    packages = [
        {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
        for name, version in sorted(set(base.packages))
        for purl in [_purl(name, version)]
    ]
    document: dict[str, object] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "deploytk", "version": __version__}]},
            "component": {"type": "container", "bom-ref": "image", "name": bundle.name, "version": bundle.digest},
        },
        "components": [model, runtime, *packages],
        "vulnerabilities": _vulnerabilities(bundle, base),
        "dependencies": [
            {"ref": "image", "dependsOn": ["model", "runtime"]},
            {"ref": "runtime", "dependsOn": [package["bom-ref"] for package in packages]},
        ],
    }
    content = json.dumps(document, sort_keys=True)
    serial = {"serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}"}
    return to_bytes(document | serial)


_STATES = {
    "perimeter": ("not_affected", "protected_at_perimeter"),
    "absent": ("not_affected", "code_not_reachable"),
}


def _vulnerabilities(bundle: Bundle, base: Base) -> list[dict[str, object]]:
    """Known advisories of what is installed, each with whether it can be reached in this image, and why (VEX)."""
    present = _present(bundle)
    return [
        {
            "bom-ref": f"advisory:{advisory.id}",
            "id": advisory.id,
            "references": [{"id": alias, "source": {"name": alias.split("-")[0]}} for alias in advisory.aliases],
            "description": advisory.what,
            "advisories": [{"url": url} for url in advisory.sources],
            "affects": [{"ref": _purl(advisory.package, version)}],
            "analysis": _analysis(advisory, present),
        }
        for advisory, version in lmdeploy.advisories_in(base.packages)
    ]


def _analysis(advisory: lmdeploy.Advisory, present: Set[lmdeploy.Need]) -> dict[str, object]:
    if advisory.needs is not None and advisory.needs not in present:
        detail = f"it needs {_NEEDS[advisory.needs]}, and there are none in this image"
        return {"state": "not_affected", "justification": "requires_environment", "detail": detail}
    if advisory.is_shielded:
        state, justification = _STATES[advisory.shield]
        return {"state": state, "justification": justification, "detail": advisory.why}
    return {"state": "exploitable", "response": ["workaround_available"], "detail": advisory.why}


_NEEDS = {"pickles": "weights in pickles", "code": "Python files of the model", "images": "a model that takes pictures"}


def _present(bundle: Bundle) -> Set[lmdeploy.Need]:
    model = bundle.manifest.model
    is_huggingface = model.layout != "workspace"
    of_model = [file.path for file in bundle.files if file.kind in ("model", "weights")]
    found: set[lmdeploy.Need] = set()
    if is_huggingface and any(path.endswith(".py") for path in of_model):
        found.add("code")
    if is_huggingface and any(path.endswith((".bin", ".pt", ".pth", ".ckpt")) for path in of_model):
        found.add("pickles")
    if model.tensors.tower_bytes:
        found.add("images")
    return found


def _purl(name: str, version: str) -> str:
    """The package URL: names as PyPI normalizes them, versions percent-encoded where a URL needs it."""
    return f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{quote(version, safe='.-')}"


def to_bytes(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()
