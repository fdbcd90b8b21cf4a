"""What is in an image, as data: a CycloneDX bill of materials."""

from __future__ import annotations

import json
import re
import uuid
from urllib.parse import quote

from deploytk import __version__
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
        "dependencies": [
            {"ref": "image", "dependsOn": ["model", "runtime"]},
            {"ref": "runtime", "dependsOn": [package["bom-ref"] for package in packages]},
        ],
    }
    content = json.dumps(document, sort_keys=True)
    serial = {"serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}"}
    return to_bytes(document | serial)


def _purl(name: str, version: str) -> str:
    """The package URL: names as PyPI normalizes them, versions percent-encoded where a URL needs it."""
    return f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{quote(version, safe='.-')}"


def to_bytes(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()
