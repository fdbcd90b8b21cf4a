"""What --sign and --require-signature mean for the commands that have them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from deploytk.base.terminal import quoted
from deploytk.cli.session import Session

if TYPE_CHECKING:
    from deploytk.bundle import Bundle
    from deploytk.image.value import Image
    from deploytk.signing import Signer


def signer_of(sign: str | None) -> Signer | None:
    """Who signs; raises SignatureError for a key that cannot, before anything is done."""
    if sign is None:
        return None
    from deploytk.signing import signer_for

    return signer_for(sign)


def signed(bundle: Bundle, signer: Signer | None) -> Bundle:
    if signer is None:
        return bundle
    from deploytk.signing import sign_bundle

    return sign_bundle(bundle, signer, Session.progress)


def sign_built(image: Image, bundle: Bundle, signer: Signer, weights: str) -> None:
    """Attach signature, SBOM and provenance to an image that `build` has made, where such things can be kept."""
    if image.output == "daemon":
        Session.progress.note("Docker keeps no signatures of images: they are attached in a registry or an OCI layout")
        return
    place = f"{image.output}:{image.tag}" if image.output.startswith("oci:") else _by_digest(image.tag, image.digest)
    sign_at(place, signer, bundle, weights)


def sign_at(
    place: str, signer: Signer, bundle: Bundle | None = None, weights: str = "layers", *, has_sbom: bool = True
) -> None:
    """The same for an image by its place; without a bundle it is only signed."""
    from deploytk.image.build import sbom_place
    from deploytk.signing import Built, sign_image

    asked = {"bundle": bundle.name, "weights": weights} if bundle else {}
    built = Built(bundle, sbom_place(bundle) if has_sbom else None, asked) if bundle else None
    sign_image(place, signer, Session.progress, built)


def require_signed(source: Path, public_key: Path | None) -> None:
    """Raises SignatureError unless the directory is what the owner of the key has signed, to the last byte."""
    if public_key is None:
        return
    from deploytk.base.errors import SignatureError
    from deploytk.signing import verifier_for, verify_directory

    found = verify_directory(source, verifier_for(public_key), Session.progress)
    if not found.verified:
        named = [*found.changed, *found.missing, *found.extra]
        more = f" and {len(named) - 1} more" if len(named) > 1 else ""
        hint = f"deploytk verify {quoted(source)} --key {quoted(public_key)} names every file"
        raise SignatureError(f"{source} is not what was signed: {named[0]}{more} differs", hint=hint)
    Session.progress.note(f"{source} is what {found.signed_by} has signed")


def require_signed_source(source: str, public_key: Path | None) -> None:
    """The same for what `serve` is given; of an image in Docker, that it is the one that was signed in its registry."""
    from deploytk.serve import source_kind

    if public_key is None:
        return
    if source_kind(source) != "image":
        require_signed(Path(source.removeprefix("file://")), public_key)
        return
    from deploytk.base.errors import SignatureError
    from deploytk.serve.container import is_same_image
    from deploytk.signing import verifier_for, verify_image

    found = verify_image(source, verifier_for(public_key))
    if not found.verified or not is_same_image(source, {str(found.digest), str(found.image_id)}):
        hint = f"docker pull {quoted(source)}, and deploytk verify {quoted(source)} --key {quoted(public_key)}"
        raise SignatureError(f"the {source} that is in Docker is not what was signed in its registry", hint=hint)
    Session.progress.note(f"{source} is what {found.signed_by} has signed")


def _by_digest(tag: str, digest: str) -> str:
    from deploytk.image.reference import parse_reference

    reference = parse_reference(tag)
    return f"{reference.host}/{reference.repository}@{digest}"
