"""Tells what is signed about an image, by whom, and whether it is about this very image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploytk.base.errors import SignatureError
from deploytk.bundle import MANIFEST
from deploytk.image.attachment import Attachment, Subject
from deploytk.image.attachments import attached_to
from deploytk.signing.attach import PROVENANCE, SBOM, SIGNED
from deploytk.signing.dsse import BUNDLE_TYPE
from deploytk.signing.files import PREDICATE, files_in
from deploytk.signing.value import Statement, Verification
from deploytk.signing.verifiers import Verifier

_SAYS = {SIGNED: "signature", SBOM: "sbom", PROVENANCE: "provenance", PREDICATE: "model files"}
_REVISION = "org.opencontainers.image.revision"


def verify_image(place: str, verifier: Verifier) -> Verification:
    """What is signed about the image at `place`: HOST/NAME:TAG, HOST/NAME@DIGEST or oci:DIR:NAME.

    Raises SignatureError when nobody has signed it, or somebody else has.
    """
    found = attached_to(place)
    bundles = [one for one in found.attachments if one.artifact_type == BUNDLE_TYPE]
    statements, files = [], 0
    for one in bundles:
        statement, count = _statement(one, found.subject, verifier)
        statements.append(statement)
        files = max(files, count)
    if not any(one.says == "signature" and not one.trouble for one in statements):
        troubles = [one.trouble for one in statements if one.says == "signature" or "is not signed by" in one.trouble]
        why = troubles[0] if troubles else "nothing is attached to it that says so"
        hint = "check that it is the right key and the right image; if they are, do not run it"
        raise SignatureError(f"{place} is not signed by {verifier.name}: {why}", hint=hint)
    return Verification(
        source=place,
        kind="image",
        verified=not any(one.trouble.startswith(_OTHERS) for one in statements),
        signed_by=verifier.name,
        compared="the digest of its manifest, which has that of every layer",
        files=files,
        statements=tuple(statements),
        digest=found.subject.digest,
        image_id=found.subject.image_id,
    )


_OTHERS = "it is about another"


def _statement(attachment: Attachment, subject: Subject, verifier: Verifier) -> tuple[Statement, int]:
    kind = dict(attachment.annotations).get("dev.sigstore.bundle.predicateType", "")
    says = _SAYS.get(kind, kind)
    try:
        content = verifier.opened(attachment.content, f"the statement {says!r}")
        kind = str(content["predicateType"])
        says = _SAYS.get(kind, kind)
        trouble, count = _trouble(content, kind, subject)
    except SignatureError as error:
        trouble, count = str(error), 0
    return Statement(says, kind, attachment.digest, trouble), count


def _trouble(content: Mapping[str, Any], kind: str, subject: Subject) -> tuple[str, int]:
    """Why a statement that is signed rightly does not count, and how many files it is about."""
    if kind == PREDICATE:
        signed = files_in(content, "the statement 'model files'")
        is_ours = signed.digests.get(MANIFEST) == subject.annotations.get(_REVISION)
        return ("" if is_ours else f"{_OTHERS} bundle than the one in this image"), len(signed.digests)
    digests = [one.get("digest", {}).get("sha256") for one in content["subject"] if isinstance(one, dict)]
    is_ours = subject.digest.removeprefix("sha256:") in digests
    return ("" if is_ours else f"{_OTHERS} image"), 0
