"""A real signature without a key, made in 2024 by a workflow of GitHub, is taken for that identity and for no other.

The bundle is an attestation of pypi-attestations 0.0.19 (Apache-2.0), from the tests in its own source distribution.
Sigstore's roots of trust are those that sigstore-python ships: no network. Its certificate has expired since, as all
of these do after ten minutes; what counts is when it was logged.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from deploytk.base.errors import SignatureError
from deploytk.signing.verifiers import IdentityVerifier

pytestmark = pytest.mark.skipif(not all(map(find_spec, ("model_signing", "OpenSSL"))), reason="needs deploytk[sign]")

BUNDLE = (Path(__file__).parent / "data" / "keyless.sigstore.json").read_bytes()
IDENTITY = "https://github.com/trailofbits/pypi-attestations/.github/workflows/release.yml@refs/tags/v0.0.19"
ISSUER = "https://token.actions.githubusercontent.com"


@pytest.fixture(autouse=True)
def _shipped_roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sigstore.verify import Verifier

    production = Verifier.production
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(Verifier, "production", lambda: production(offline=True))


def test_it_is_taken_for_the_identity_that_signed() -> None:
    statement = IdentityVerifier(IDENTITY, ISSUER).opened(BUNDLE, "it")

    assert statement["predicateType"] == "https://docs.pypi.org/attestations/publish/v1"
    assert [one["name"] for one in statement["subject"]] == ["pypi_attestations-0.0.19.tar.gz"]


@pytest.mark.parametrize(
    ("identity", "issuer"),
    [
        (IDENTITY.replace("trailofbits", "somebody"), ISSUER),
        (IDENTITY.replace("v0.0.19", "v0.0.20"), ISSUER),
        (IDENTITY, "https://accounts.google.com"),
    ],
    ids=["another repository", "another tag", "another issuer"],
)
def test_another_identity_is_refused(identity: str, issuer: str) -> None:
    with pytest.raises(SignatureError, match="it is not signed by https://"):
        IdentityVerifier(identity, issuer).opened(BUNDLE, "it")


def _payload(bundle: Any) -> None:
    envelope = bundle["dsseEnvelope"]
    text = base64.b64decode(envelope["payload"]).replace(b"0.0.19", b"0.0.18")
    envelope["payload"] = base64.b64encode(text).decode()


def _later(bundle: Any) -> None:
    """Logged an hour after the certificate had expired."""
    entry = bundle["verificationMaterial"]["tlogEntries"][0]
    entry["integratedTime"] = str(int(entry["integratedTime"]) + 3600)


def _unlogged(bundle: Any) -> None:
    bundle["verificationMaterial"]["tlogEntries"] = []


@pytest.mark.parametrize("change", [_payload, _later, _unlogged], ids=["another text", "expired", "in no log"])
def test_what_was_changed_is_refused(change: Callable[[Any], None]) -> None:
    bundle = json.loads(BUNDLE)
    change(bundle)

    with pytest.raises(SignatureError, match="it is not signed by https://"):
        IdentityVerifier(IDENTITY, ISSUER).opened(json.dumps(bundle).encode(), "it")
