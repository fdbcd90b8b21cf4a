"""What was found out about signatures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Statement:
    """Something that was signed about an image."""

    says: str  # "signature", "sbom", "provenance", "model files", or the address of another predicate
    predicate_type: str
    digest: str  # of the referrer that holds it
    trouble: str  # why it does not count; "" where its signature holds and it is about this image


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether something is what was signed, and by whom."""

    source: str
    kind: Literal["directory", "image", "hub"]
    verified: bool
    signed_by: str  # the key's fingerprint, or an identity and who vouches for it
    compared: str  # what was held against the signature
    files: int  # that are signed
    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()  # there, and not signed
    statements: tuple[Statement, ...] = ()
    digest: str | None = None  # of an image's manifest
    image_id: str | None = None  # of its config
