"""Who signs: a key in a file, or an identity that Sigstore vouches for. Files are signed by OpenSSF's model-signing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from deploytk.base.credentials import can_ask
from deploytk.base.errors import SignatureError
from deploytk.signing.dsse import bundle_of, signed_bytes
from deploytk.signing.extra import require_extra
from deploytk.signing.keys import algorithm_of, fingerprint, hint_of, private_key
from deploytk.signing.verifiers import KeyVerifier, Verifier

SIGSTORE = "sigstore"


class Signer(Protocol):
    @property
    def name(self) -> str:
        """Who it is."""
        ...

    @property
    def verifier(self) -> Verifier | None:
        """What takes its signatures; None where that is not known before."""
        ...

    def sign_directory(self, directory: Path, signature: Path) -> None:
        """Write a model-signing bundle over all files of `directory`, itself aside, to `signature`."""
        ...

    def sign(self, statement: bytes) -> bytes:
        """A bundle of the statement."""
        ...


def signer_for(option: str) -> Signer:
    """That of `--sign KEY|sigstore`; raises SignatureError where it cannot sign."""
    require_extra()
    return SigstoreSigner() if option == SIGSTORE else KeySigner(Path(option))


class KeySigner:
    def __init__(self, path: Path) -> None:
        self._key, self._password = private_key(path)
        self._path = path
        self.verifier: Verifier | None = KeyVerifier(self._key.public_key())
        self.name = f"the key {fingerprint(self._key.public_key())}"

    def sign_directory(self, directory: Path, signature: Path) -> None:
        from model_signing.signing import Config

        with _translated():
            config: Any = Config().use_elliptic_key_signer(private_key=self._path, password=self._password)
            _sign(config, directory, signature)

    def sign(self, statement: bytes) -> bytes:
        signature = self._key.sign(signed_bytes(statement), algorithm_of(self._key))
        return bundle_of(statement, signature, hint_of(self._key.public_key()))


class SigstoreSigner:
    name = "an identity of Sigstore"
    verifier: Verifier | None = None

    def sign_directory(self, directory: Path, signature: Path) -> None:
        from model_signing.signing import Config

        with _translated():
            config: Any = Config().use_sigstore_signer(use_ambient_credentials=True, identity_token=_ambient_token())
            _sign(config, directory, signature)

    def sign(self, statement: bytes) -> bytes:
        from sigstore.dsse import Statement
        from sigstore.models import ClientTrustConfig
        from sigstore.oidc import IdentityToken, Issuer
        from sigstore.sign import SigningContext

        with _translated():
            trust: Any = ClientTrustConfig.production()
            token = _ambient_token()
            whose: Any = IdentityToken(token) if token else Issuer(trust.signing_config.get_oidc_url()).identity_token()
            with SigningContext.from_trust_config(trust).signer(whose) as signer:
                content: str = signer.sign_dsse(Statement(statement)).to_json()
        return content.encode()


def _sign(config: Any, directory: Path, signature: Path) -> None:
    from model_signing.hashing import Config

    hashing: Any = Config().set_ignored_paths(paths=[signature.name])
    config.set_hashing_config(hashing).sign(directory, signature)


def _ambient_token() -> str | None:
    """The identity that a CI system vouches for; None on a terminal, where a person logs in."""
    from sigstore.oidc import detect_credential

    detect: Callable[[], str | None] = detect_credential
    token = detect()
    if token is None and not can_ask():
        hint = "run it on a terminal, or in a CI job that may ask for an identity (id-token: write), or sign with a key"
        raise SignatureError("Sigstore knows nobody here to sign for", hint=hint)
    return token


@contextmanager
def _translated() -> Iterator[None]:
    """What the libraries raise, in our words."""
    from sigstore.errors import Error
    from sigstore.oidc import IdentityError

    try:
        yield
    except (Error, IdentityError, ConnectionError) as error:
        hint = "run again where there is a network, or sign with a key"
        raise SignatureError(f"Sigstore does not sign: {_first(error)}", hint=hint) from error
    except ValueError as error:
        hint = "sign a bundle as deploytk writes it: plain files, no links"
        raise SignatureError(f"model-signing refuses this: {_first(error)}", hint=hint) from error


def _first(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
