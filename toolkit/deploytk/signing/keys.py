"""Elliptic keys in PEM files. A password comes from the environment or a person, never from a command line."""

from __future__ import annotations

import base64
import getpass
import hashlib
import os
import re
import sys
from pathlib import Path
from typing import Any

from deploytk.base.credentials import can_ask
from deploytk.base.errors import SignatureError, UsageError
from deploytk.base.files import read_bounded
from deploytk.base.terminal import quoted

PASSWORD = "DEPLOYTK_SIGN_PASSWORD"  # noqa: S105 (the name of a variable)
"""The variable with the password of an encrypted key."""

_LARGEST_KEY_BYTES = 2**16
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_LABEL = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,60})-----")
_LOCKED = re.compile(rb"ENCRYPTED(?! (?:SIGSTORE|COSIGN))")
_OF_COSIGN = "only cosign opens it: let both use a key of openssl, which cosign import-key-pair --key key.pem takes"
_OTHERS = {
    "SIGSTORE": _OF_COSIGN,
    "COSIGN": _OF_COSIGN,
    "OPENSSH": "ssh-keygen -p -m PEM -f COPY turns a copy of it into PEM",
    "CERTIFICATE": "its public key: openssl x509 -in certificate.pem -pubkey -noout > key.pub",
}
"""Hints for what is kept in forms of other programs, by a word in its label."""

_HINT = "openssl ecparam -name prime256v1 -genkey -noout -out key.pem; openssl ec -in key.pem -pubout -out key.pub"


def private_key(path: Path) -> tuple[Any, bytes | None]:
    """The key in the PEM file `path`, and its password; raises SignatureError where there is none that can sign."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content, password = _read(path), None
    try:
        if _LOCKED.search(content):
            password = _password(path)
        found = load_pem_private_key(content, password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if not password:
            raise _refused(path, "private", content) from error
        raise SignatureError(f"{path} does not open with this password", hint=f"check {PASSWORD}") from error
    _check(path, found)
    return found, password


def public_key(path: Path) -> Any:
    """The key in the PEM file `path`; raises SignatureError where there is none that can verify."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content = _read(path)
    try:
        found = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        if b"PRIVATE KEY" in content:
            hint = f"give the public one: openssl ec -in {quoted(path)} -pubout -out key.pub"
            raise SignatureError(f"{path} is a private key", hint=hint) from error
        raise _refused(path, "public", content) from error
    _check(path, found)
    return found


def fingerprint(key: Any) -> str:
    """SHA-256 of a public key in DER: how a key is called here."""
    return f"sha256:{hashlib.sha256(_der(key)).hexdigest()}"


def hint_of(key: Any) -> str:
    """How cosign names a public key in its bundles."""
    return base64.b64encode(hashlib.sha256(_der(key)).digest()).decode()


def algorithm_of(key: Any) -> Any:
    """ECDSA with the digest that belongs to the size of the key, as in Sigstore's specification."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    digests = {256: hashes.SHA256, 384: hashes.SHA384, 521: hashes.SHA512}
    return ec.ECDSA(digests[key.curve.key_size]())


def _der(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der


def _read(path: Path) -> bytes:
    try:
        return read_bounded(path, _LARGEST_KEY_BYTES)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise SignatureError(f"the key {path} cannot be read: {why}", hint=_HINT) from error


def _label(content: bytes) -> str:
    """What a PEM file says that it holds; empty for what is none."""
    found = _LABEL.search(content)
    return found[1].decode() if found else ""


def _refused(path: Path, wanted: str, content: bytes) -> SignatureError:
    label = _label(content)
    hint = next((hint for word, hint in _OTHERS.items() if word in label), _HINT)
    there = f"it is a PEM file of {label}" if label else "it is no PEM file"
    return SignatureError(f"{path} holds no {wanted} key that can be read here: {there}", hint=hint)


def _password(path: Path) -> bytes:
    given = os.environ.get(PASSWORD)
    if given:
        return given.encode()
    if not can_ask():
        raise UsageError(f"{path} is encrypted, and no password is given", hint=f"set {PASSWORD}")
    return getpass.getpass(f"Password of {path} (not shown): ", stream=sys.stderr).encode()


def _check(path: Path, key: object) -> None:
    curve = getattr(getattr(key, "curve", None), "name", "")
    if curve not in _CURVES:
        raise SignatureError(f"{path} is not a key of the curves P-256, P-384 or P-521", hint=_HINT)
