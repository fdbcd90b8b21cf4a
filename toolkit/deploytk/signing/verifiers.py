"""Who must have signed: a key, or an identity that Sigstore vouches for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from deploytk.base.errors import SignatureError, UsageError
from deploytk.signing.dsse import Envelope, read_bundle, signed_bytes, statement_in
from deploytk.signing.extra import require_extra
from deploytk.signing.keys import algorithm_of, fingerprint, public_key


class Verifier(Protocol):
    @property
    def name(self) -> str:
        """Whose signatures it takes."""
        ...

    def opened(self, content: bytes, what: str) -> dict[str, Any]:
        """The statement in the bundle `content`, called `what`; raises SignatureError unless they have signed it."""
        ...


def verifier_for(key: Path | None = None, identity: str | None = None, issuer: str | None = None) -> Verifier:
    """That of the options; raises UsageError unless it is one key, or one identity with its issuer."""
    require_extra()
    if key is not None and identity is None and issuer is None:
        return KeyVerifier(public_key(key))
    if key is None and identity and issuer:
        return IdentityVerifier(identity, issuer)
    hint = "give --key PUB, or --identity WHO and --issuer URL"
    raise UsageError("who must have signed is not said", hint=hint)


class KeyVerifier:
    def __init__(self, key: Any) -> None:
        self._key = key
        self.name = f"the key {fingerprint(key)}"

    def opened(self, content: bytes, what: str) -> dict[str, Any]:
        from cryptography.exceptions import InvalidSignature

        envelope = read_bundle(content, what)
        self._refuse_keyless(envelope, what)
        try:
            self._key.verify(envelope.signature, signed_bytes(envelope.payload), algorithm_of(self._key))
        except InvalidSignature as error:
            hint = "check that it is the right key; if it is, do not use what it signs"
            raise SignatureError(f"{what} is not signed by {self.name}", hint=hint) from error
        return statement_in(envelope.payload, what)

    @staticmethod
    def _refuse_keyless(envelope: Envelope, what: str) -> None:
        if envelope.is_keyless:
            hint = "verify it with --identity and --issuer"
            raise SignatureError(f"{what} is signed with a certificate, not with a key", hint=hint)


@dataclass(frozen=True, slots=True)
class IdentityVerifier:
    identity: str
    issuer: str

    @property
    def name(self) -> str:
        return f"{self.identity} by {self.issuer}"

    def opened(self, content: bytes, what: str) -> dict[str, Any]:
        from sigstore.errors import Error, VerificationError
        from sigstore.models import Bundle, InvalidBundle
        from sigstore.verify import Verifier as SigstoreVerifier
        from sigstore.verify.policy import Identity

        read_bundle(content, what)
        try:
            found = SigstoreVerifier.production().verify_dsse(
                Bundle.from_json(content), Identity(identity=self.identity, issuer=self.issuer)
            )
        except (VerificationError, InvalidBundle) as error:
            hint = "check identity and issuer; if they are right, do not use what it signs"
            raise SignatureError(f"{what} is not signed by {self.name}", hint=hint) from error
        except Error as error:
            hint = "run again where there is a network, or verify with --key"
            raise SignatureError("Sigstore's roots of trust cannot be fetched", hint=hint) from error
        return statement_in(found[1], what)
