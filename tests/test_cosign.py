"""cosign 3 and oras themselves find, read and copy what is attached to an image, and deploytk what cosign signs.

`make clients` installs both, as the next Debian has them. In a registry without a list of referrers (Debian's
docker-registry) and in one with it.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bases import write_base
from bundles import given_bundle
from commands import run
from conftest import MODELS
from odd_registry import odd_registry
from registries import running_registry
from test_foreign_verifiers import installed
from test_signed_images import BUNDLE_TYPE, FILES, PROVENANCE, SBOM, SIGNED, verified
from test_signing import write_key

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

KINDS = {"cyclonedx": SBOM, "slsaprovenance1": PROVENANCE}
"""What cosign calls them, and what they are."""


@dataclass(frozen=True)
class Signed:
    """A signed image in a registry, which others sign and copy too."""

    host: str
    digest: str
    key: Path
    home: Path

    @property
    def image(self) -> str:
        return f"{self.host}/me/tiny@{self.digest}"

    def run(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Without a network but this machine's, and with the settings of nobody."""
        command = [installed("cosign") / "usr" / "bin" / program, *words]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "COSIGN_PASSWORD": "of this test"}
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)

    def checked(self, what: str, *words: str, key: Path | None = None) -> subprocess.CompletedProcess[str]:
        """What cosign says of the image. A key that is not Sigstore's is in no log, and this registry has no TLS."""
        public = (key or self.key).with_suffix(".pub")
        return self.run("cosign", what, "--key", str(public), "--insecure-ignore-tlog", *words, self.image)


@pytest.fixture(scope="module", params=[False, True], ids=["without a list of referrers", "with one"])
def signed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signed]:
    place = tmp_path_factory.mktemp("signed")
    installed("cosign")
    key = write_key(place / "key.pem")
    bundle, base = given_bundle(MODELS / "hf-awq", place / "bundle").path, write_base(place / "base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_CONFIG", str(place / "docker"))
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        with odd_registry() if request.param else running_registry(place / "registry") as registry:
            registry.lists_referrers = request.param
            words = ["build", str(bundle), "-t", f"{registry.host}/me/tiny:1", "--output", "registry", "--json"]
            done = run(*words, "--base", f"oci:{base}", "--sign", str(key))
            assert done.code == 0, done.stderr
            yield Signed(registry.host, json.loads(done.stdout)["digest"], key, place)


def _statements(said: str) -> list[dict[str, Any]]:
    """Those in the envelopes that cosign prints, one a line."""
    return [json.loads(base64.b64decode(json.loads(line)["payload"])) for line in said.splitlines() if line]


def test_cosign_and_oras_list_all_that_is_attached(signed: Signed) -> None:
    tree = signed.run("cosign", "tree", signed.image)
    assert tree.returncode == 0, tree.stderr
    for kind in (SIGNED, SBOM, PROVENANCE, FILES, "application/vnd.cyclonedx+json"):
        assert f"{kind} artifacts via OCI referrer" in tree.stdout

    found = signed.run("oras", "discover", "--plain-http", "--format", "json", signed.image)
    assert found.returncode == 0, found.stderr
    listed = json.loads(found.stdout)["referrers"]
    kinds = sorted(one["artifactType"] for one in listed)
    assert kinds == ["application/vnd.cyclonedx+json", *[BUNDLE_TYPE] * 4]


def test_cosign_verifies_the_signature_and_by_no_other_key(signed: Signed, tmp_path: Path) -> None:
    done = signed.checked("verify")
    assert done.returncode == 0, done.stderr
    says = {one["critical"]["type"]: one["critical"]["image"] for one in json.loads(done.stdout)}
    assert says[SIGNED] == {"docker-manifest-digest": signed.digest}

    refused = signed.checked("verify", key=write_key(tmp_path / "other.pem"))
    assert refused.returncode == 1
    assert "failed to verify signature" in refused.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_cosign_verifies_sbom_and_provenance_as_attestations(kind: str, signed: Signed) -> None:
    done = signed.checked("verify-attestation", "--type", kind)

    assert done.returncode == 0, done.stderr
    [statement] = _statements(done.stdout)
    assert statement["predicateType"] == KINDS[kind]
    assert statement["subject"] == [{"digest": {"sha256": signed.digest.removeprefix("sha256:")}}]


def test_an_image_that_nobody_signed_is_none_for_cosign(signed: Signed, tmp_path: Path) -> None:
    bundle, base = given_bundle(MODELS / "hf-fp16", tmp_path / "bundle").path, write_base(tmp_path / "base")
    tag = f"{signed.host}/me/tiny:2"
    done = run("build", str(bundle), "-t", tag, "--output", "registry", "--base", f"oci:{base}", "--json")
    assert done.code == 0, done.stderr

    other = Signed(signed.host, json.loads(done.stdout)["digest"], signed.key, signed.home)

    refused = other.checked("verify")
    assert refused.returncode != 0
    assert "no signatures found" in refused.stderr


def test_oras_pulls_the_sbom(signed: Signed, tmp_path: Path) -> None:
    words = ["--plain-http", "--format", "json", "--artifact-type", "application/vnd.cyclonedx+json", signed.image]
    [sbom] = json.loads(signed.run("oras", "discover", *words).stdout)["referrers"]
    manifest = json.loads(signed.run("oras", "manifest", "fetch", "--plain-http", sbom["reference"]).stdout)
    blob = f"{signed.host}/me/tiny@{manifest['layers'][0]['digest']}"

    done = signed.run("oras", "blob", "fetch", "--plain-http", "--output", str(tmp_path / "sbom"), blob)

    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "sbom").read_text())["bomFormat"] == "CycloneDX"


def test_what_oras_copies_with_its_referrers_is_still_verified(signed: Signed, tmp_path: Path) -> None:
    """Into an OCI layout, and from there into another registry."""
    layout = tmp_path / "layout"
    there = ["cp", "--recursive", "--from-plain-http", "--to-oci-layout", signed.image, f"{layout}:tiny"]
    done = signed.run("oras", *there)
    assert done.returncode == 0, done.stderr
    code, found = verified(f"oci:{layout}:tiny", signed.key)
    assert (code, found.get("digest"), found.get("verified")) == (0, signed.digest, True)

    with running_registry(tmp_path / "registry") as registry:
        words = ["--recursive", "--from-oci-layout", "--to-plain-http", f"{layout}:tiny", f"{registry.host}/a/b:1"]
        done = signed.run("oras", "cp", *words)
        assert done.returncode == 0, done.stderr
        assert verified(f"{registry.host}/a/b:1", signed.key)[0] == 0


def test_what_cosign_signs_is_verified_beside_our_own(signed: Signed, tmp_path: Path) -> None:
    """With a key that cosign made, and no service of Sigstore's."""
    prefix = str(tmp_path / "cosign")
    assert signed.run("cosign", "generate-key-pair", "--output-key-prefix", prefix).returncode == 0
    services = tmp_path / "services.json"
    services.write_text('{"mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json"}')

    words = ["--key", f"{prefix}.key", "--signing-config", str(services), "--allow-http-registry", "--yes"]
    done = signed.run("cosign", "sign", *words, signed.image)

    assert done.returncode == 0, done.stderr
    code, found = verified(signed.image, Path(f"{prefix}.key"))
    assert (code, found.get("verified")) == (0, True), found
    assert [one["says"] for one in found["statements"] if not one["trouble"]] == ["signature"]
    assert verified(signed.image, signed.key)[0] == 0
