"""Implementations of others read what deploytk signs and attaches, and refuse it once it is changed.

`make clients` installs them: sigstore-js, CycloneDX's library, in-toto's. model-signing's own command is in
test_signing.py, oras in test_signed_images.py and test_modelpack.py.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bases import write_base
from bundles import whole_bundle
from commands import run
from conftest import MODELS
from odd_registry import Odd, odd_registry
from test_clients import INSTALLED, PROGRAMS
from test_signed_images import BUNDLE_TYPE, FILES, PROVENANCE, SBOM, SIGNED
from test_signing import write_key

pytestmark = pytest.mark.services


def installed(name: str) -> Path:
    place = INSTALLED / name
    if not (place / ".ready").is_file():
        if os.environ.get("CI") or os.environ.get("DEPLOYTK_REQUIRE_SERVICES"):
            pytest.fail("run `make clients`")
        pytest.skip("needs `make clients`")
    return place


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Odd, Path]]:
    """A signed bundle, a registry with its signed image, and the public key."""
    place = tmp_path_factory.mktemp("signed")
    key = write_key(place / "key.pem")
    bundle = whole_bundle(MODELS / "hf-awq", place / "bundle").path
    base = write_base(place / "base")
    with pytest.MonkeyPatch.context() as patch, odd_registry() as registry:
        patch.setenv("DOCKER_CONFIG", str(place / "docker"))
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        words = ["build", str(bundle), "-t", f"{registry.host}/a/b:1", "--output", "registry", "--base", f"oci:{base}"]
        done = run(*words, "--sign", str(key))
        assert done.code == 0, done.stderr
        done = run("publish", str(bundle), "--target", "local", "--repo", str(place / "hub"), "--sign", str(key))
        assert done.code == 0, done.stderr
        yield bundle, registry, key.with_suffix(".pub")


def _attached(registry: Odd, artifact_type: str) -> list[bytes]:
    manifests = [json.loads(content) for name, content in registry.manifests.items() if name.startswith("sha256:")]
    layers = [one["layers"][0]["digest"] for one in manifests if one.get("artifactType") == artifact_type]
    return [registry.blobs[digest] for digest in layers]


def _payload(content: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(json.loads(content)["dsseEnvelope"]["payload"]))
    return found


def _bundles(bundle: Path, registry: Odd) -> dict[str, bytes]:
    """By what it says: the signature in the bundle, and those beside the image."""
    images = {_payload(content)["predicateType"]: content for content in _attached(registry, BUNDLE_TYPE)}
    return {"model.sig": (bundle / "model.sig").read_bytes(), **images}


def _sigstore_js(content: bytes, key: Path, place: Path) -> subprocess.CompletedProcess[str]:
    place_of_packages = installed("vercel")
    program = place_of_packages / "sigstore_verifier.mjs"  # Node looks for packages beside the program
    program.write_bytes((PROGRAMS / program.name).read_bytes())
    place.write_bytes(content)
    return subprocess.run(["node", program, place, key], capture_output=True, text=True, timeout=60, check=False)


def _reader(kind: str, content: bytes, place: Path) -> subprocess.CompletedProcess[str]:
    python = installed("attestations") / "bin" / "python"
    place.write_bytes(content)
    command = [python, PROGRAMS / "attestations_reader.py", kind, place]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("what", ["model.sig", SIGNED, SBOM, PROVENANCE, FILES])
def test_sigstore_js_takes_every_signature_and_none_of_another_text_or_key(
    what: str, signed: tuple[Path, Odd, Path], tmp_path: Path
) -> None:
    bundle, registry, key = signed
    content = _bundles(bundle, registry)[what]
    changed = json.loads(content)
    payload = base64.b64decode(changed["dsseEnvelope"]["payload"]).replace(b"sha256", b"sha512", 1)
    changed["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    stranger = write_key(tmp_path / "other.pem").with_suffix(".pub")

    taken = _sigstore_js(content, key, tmp_path / "a.json")
    of_another_text = _sigstore_js(json.dumps(changed).encode(), key, tmp_path / "b.json")
    of_another_key = _sigstore_js(content, stranger, tmp_path / "c.json")

    assert taken.returncode == 0, taken.stderr
    found = json.loads(taken.stdout)
    assert found["type"] == "application/vnd.in-toto+json"
    assert found["predicateType"] == (FILES if what == "model.sig" else what)
    assert of_another_text.returncode == of_another_key.returncode == 1
    assert "signature verification failed" in of_another_text.stderr
    assert "signature verification failed" in of_another_key.stderr


# The predicate of SIGNED is empty, as cosign writes it; in-toto's library wants one, which its specification does not.
@pytest.mark.parametrize("what", ["model.sig", SBOM, PROVENANCE, FILES])
def test_in_toto_reads_every_statement_and_none_of_another_type(
    what: str, signed: tuple[Path, Odd, Path], tmp_path: Path
) -> None:
    bundle, registry, _ = signed
    statement = _payload(_bundles(bundle, registry)[what])

    taken = _reader("statement", json.dumps(statement).encode(), tmp_path / "a.json")
    of_another_type = _reader("statement", json.dumps({**statement, "_type": "x"}).encode(), tmp_path / "b.json")
    about_nothing = _reader("statement", json.dumps({**statement, "subject": []}).encode(), tmp_path / "c.json")

    assert taken.returncode == 0, taken.stdout + taken.stderr
    assert (of_another_type.returncode, "Wrong statement type" in of_another_type.stdout) == (1, True)
    assert about_nothing.returncode == 1


def test_cyclonedx_holds_the_sbom_to_its_schema(signed: tuple[Path, Odd, Path], tmp_path: Path) -> None:
    bundle, registry, _ = signed
    [attached] = _attached(registry, "application/vnd.cyclonedx+json")
    beside = next(bundle.parent.glob("*.cdx.json"), None) or next(bundle.parent.glob("*sbom*.json"))
    predicate = json.dumps(_payload(_bundles(bundle, registry)[SBOM])["predicate"]).encode()
    broken = json.loads(attached)
    broken["components"][0]["type"] = "a thing"

    for number, content in enumerate((attached, beside.read_bytes(), predicate)):
        taken = _reader("sbom", content, tmp_path / f"{number}.json")
        assert taken.returncode == 0, taken.stdout + taken.stderr
    refused = _reader("sbom", json.dumps(broken).encode(), tmp_path / "broken.json")

    assert refused.returncode == 1
    assert "a thing" in refused.stdout + refused.stderr
