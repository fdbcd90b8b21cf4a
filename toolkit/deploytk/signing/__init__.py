"""Beside the stages: who signed a bundle or an image, and whether it is still what was signed."""

from deploytk.signing.attach import Built, sign_image
from deploytk.signing.directory import sign_bundle, verify_directory
from deploytk.signing.image import verify_image
from deploytk.signing.remote import verify_remote
from deploytk.signing.signers import Signer, signer_for
from deploytk.signing.value import Statement, Verification
from deploytk.signing.verifiers import Verifier, verifier_for

__all__ = [
    "Built",
    "Signer",
    "Statement",
    "Verification",
    "Verifier",
    "sign_bundle",
    "sign_image",
    "signer_for",
    "verifier_for",
    "verify_directory",
    "verify_image",
    "verify_remote",
]
