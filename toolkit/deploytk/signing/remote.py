"""Whether what a hub hands out is still what was signed, without downloading the weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from deploytk.artifact.remote import RemoteFile, RemoteModel, fetch, list_files
from deploytk.base.errors import SignatureError
from deploytk.base.progress import Progress
from deploytk.bundle import SIGNATURE
from deploytk.signing.files import SignedFiles, difference, files_in
from deploytk.signing.value import Verification
from deploytk.signing.verifiers import Verifier

_LARGEST_FETCHED_BYTES = 64 * 2**20


def verify_remote(model: RemoteModel, verifier: Verifier, progress: Progress) -> Verification:
    """What of the repository differs from what was signed. The digests that the hub states are believed."""
    name = f"{model.hub}:{model.repo}@{model.revision}"
    there = list_files(model)
    if SIGNATURE not in there:
        hint = "have it signed: deploytk publish --sign KEY"
        raise SignatureError(f"{name} has no signature: there is no {SIGNATURE}", hint=hint)
    what = f"{name}/{SIGNATURE}"
    signed = files_in(verifier.opened(fetch(model, SIGNATURE, _LARGEST_FETCHED_BYTES), what), what)
    found = difference(signed, _digests(model, there, signed, progress))
    return Verification(
        source=name,
        kind="hub",
        verified=found.is_none,
        signed_by=verifier.name,
        compared="digests that the hub states for large files, every byte of the others",
        files=len(signed.digests),
        changed=found.changed,
        missing=found.missing,
        extra=found.extra,
    )


def _digests(
    model: RemoteModel, there: Mapping[str, RemoteFile], signed: SignedFiles, progress: Progress
) -> dict[str, str | None]:
    found: dict[str, str | None] = {path: file.sha256 for path, file in there.items()}
    small = [path for path, file in there.items() if file.sha256 is None and path in signed.digests]
    progress.note(f"reading {len(small)} small files of {model.repo}")
    for path in small:
        if there[path].bytes <= _LARGEST_FETCHED_BYTES:
            found[path] = hashlib.sha256(fetch(model, path, _LARGEST_FETCHED_BYTES)).hexdigest()
    return found
