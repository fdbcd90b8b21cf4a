"""Signs an image, and says where it comes from: statements that are attached to it as cosign does.

https://github.com/sigstore/cosign/blob/main/specs/BUNDLE_SPEC.md
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploytk import __version__
from deploytk.base.errors import SignatureError
from deploytk.base.files import read_bounded
from deploytk.base.progress import Progress
from deploytk.bundle import SIGNATURE, Bundle
from deploytk.image.attachment import Attached, Attachment
from deploytk.image.attachments import attach, attached_to
from deploytk.image.config import created
from deploytk.signing.dsse import BUNDLE_TYPE, LARGEST_BYTES, STATEMENT_TYPE, read_bundle
from deploytk.signing.files import PREDICATE
from deploytk.signing.signers import Signer
from deploytk.signing.verifiers import Verifier

SIGNED = "https://sigstore.dev/cosign/sign/v1"
SBOM = "https://cyclonedx.org/bom"
PROVENANCE = "https://slsa.dev/provenance/v1"
SBOM_TYPE = "application/vnd.cyclonedx+json"

_BUILD_TYPE = "https://github.com/deploytk/deploytk/build/v1"
_BUILDER = "https://github.com/deploytk/deploytk"


@dataclass(frozen=True, slots=True)
class Built:
    """What an image was made of."""

    bundle: Bundle
    sbom: Path | None  # None: nothing was installed beside the model
    options: Mapping[str, str]  # as they were asked for


def sign_image(place: str, signer: Signer, progress: Progress, built: Built | None = None) -> tuple[str, ...]:
    """Attach to the image at `place` (HOST/NAME:TAG or oci:DIR:NAME) that it is signed; returns what was attached.

    With `built` also the signature of the bundle's files, the SBOM, and where the image comes from. What is attached
    already, by the same key, is left as it is.
    """
    there = attached_to(place)
    subject = {"digest": {"sha256": there.subject.digest.removeprefix("sha256:")}}
    statements: dict[str, object] = {SIGNED: {}}
    attachments = []
    if built:
        statements |= {SBOM: _json(built.sbom)} if built.sbom else {}
        statements |= {PROVENANCE: _provenance(built, there)}
        attachments += _of_files(built)
    for kind, predicate in statements.items():
        statement = {"_type": STATEMENT_TYPE, "subject": [subject], "predicateType": kind, "predicate": predicate}
        content = json.dumps(statement, separators=(",", ":"), sort_keys=True).encode()
        if not _is_there(there, content, signer.verifier):
            attachments.append(_attachment(signer.sign(content), kind))
    new = [one for one in attachments if one.content not in [other.content for other in there.attachments]]
    if new:
        progress.note(f"attaching {len(new)} statements to {place}, as {signer.name}")
        attach(place, new)
    return tuple(dict(one.annotations).get("dev.sigstore.bundle.predicateType", one.artifact_type) for one in new)


def _of_files(built: Built) -> list[Attachment]:
    """The signature of the bundle's files, and the SBOM as it is, for whoever looks for that type."""
    signature = _attachment((built.bundle.path / SIGNATURE).read_bytes(), PREDICATE)
    if built.sbom is None:
        return [signature]
    sbom = Attachment(SBOM_TYPE, built.sbom.read_bytes(), (("org.opencontainers.image.created", created()),))
    return [signature, sbom]


def _attachment(content: bytes, kind: str) -> Attachment:
    notes = {
        "dev.sigstore.bundle.content": "dsse-envelope",
        "dev.sigstore.bundle.predicateType": kind,
        "org.opencontainers.image.created": created(),
    }
    return Attachment(BUNDLE_TYPE, content, tuple(notes.items()))


def _is_there(there: Attached, statement: bytes, verifier: Verifier | None) -> bool:
    return verifier is not None and any(
        _says(one, statement, verifier) for one in there.attachments if one.artifact_type == BUNDLE_TYPE
    )


def _says(attachment: Attachment, statement: bytes, verifier: Verifier) -> bool:
    try:
        verifier.opened(attachment.content, "it")
        return read_bundle(attachment.content, "it").payload == statement
    except SignatureError:
        return False


def _json(path: Path) -> object:
    value: object = json.loads(read_bounded(path, LARGEST_BYTES))
    return value


def _provenance(built: Built, there: Attached) -> object:
    """SLSA provenance: what went in, and what made it. No time and no machine: the same input says the same."""
    notes = there.subject.annotations
    base = notes.get("org.opencontainers.image.base.digest", "").removeprefix("sha256:")
    materials = [{"name": built.bundle.name, "digest": {"sha256": built.bundle.digest.removeprefix("sha256:")}}]
    if base:
        name = notes.get("org.opencontainers.image.base.name", "base")
        materials.append({"name": name, "digest": {"sha256": base}})
    return {
        "buildDefinition": {
            "buildType": _BUILD_TYPE,
            "externalParameters": dict(built.options),
            "internalParameters": {},
            "resolvedDependencies": materials,
        },
        "runDetails": {"builder": {"id": _BUILDER, "version": {"deploytk": __version__}}, "metadata": {}},
    }
