"""Statements in envelopes (DSSE), in Sigstore's bundles: written with a key, and opened again."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from deploytk.base.errors import SignatureError
from deploytk.base.json import parse_json

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
LARGEST_BYTES = 64 * 2**20

_HINT = "fetch it again, or have it signed again"


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a bundle holds. Nothing of it is believed before its signature is checked."""

    payload: bytes
    signature: bytes
    is_keyless: bool  # it comes with a certificate, not with a key that one has


def signed_bytes(payload: bytes) -> bytes:
    """What a signature is made over: https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md"""
    return f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} ".encode() + payload


def bundle_of(payload: bytes, signature: bytes, hint: str) -> bytes:
    """A bundle of a statement that was signed with a key; `hint` tells which."""
    content = {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return json.dumps(content, separators=(",", ":"), sort_keys=True).encode()


def read_bundle(content: bytes, what: str) -> Envelope:
    """The envelope in a bundle; raises SignatureError, which calls it `what`, for anything else."""
    try:
        found: Any = parse_json(content, has_unique_keys=True)
        material, envelope = found["verificationMaterial"], found["dsseEnvelope"]
        if not str(found["mediaType"]).startswith("application/vnd.dev.sigstore.bundle"):
            raise ValueError("it is of another type")
        if envelope["payloadType"] != PAYLOAD_TYPE:
            raise ValueError("it signs no statement")
        [signature] = envelope["signatures"]
        return Envelope(_decoded(envelope["payload"]), _decoded(signature["sig"]), "publicKey" not in material)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise SignatureError(f"{what} is no signature that can be read", hint=_HINT) from error


def statement_in(payload: bytes, what: str) -> dict[str, Any]:
    """The statement of an envelope whose signature holds."""
    try:
        found: Any = parse_json(payload, has_unique_keys=True)
        if found["_type"] != STATEMENT_TYPE or not isinstance(found["predicateType"], str):
            raise ValueError("it is of another type")
        if not isinstance(found["subject"], list):
            raise TypeError("it is about nothing")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise SignatureError(f"{what} signs something that is no statement", hint=_HINT) from error
    statement: dict[str, Any] = found
    return statement


def _decoded(text: object) -> bytes:
    if not isinstance(text, str):
        raise TypeError("it is no text")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("it is not base64") from error
