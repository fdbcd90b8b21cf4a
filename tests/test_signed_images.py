"""Images are signed as cosign does: statements are attached, in registries of any age and in layouts."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from bases import write_base
from bundles import given_bundle
from commands import run
from conftest import MODELS
from docker_daemon import running_dockerd
from odd_registry import Odd, odd_registry
from registries import running_registry
from test_signing import write_key

from deploytk.base.errors import SignatureError
from deploytk.cli.signing import require_signed_source

# Looked for, not imported by all that collect tests: that takes a second.
pytestmark = pytest.mark.skipif(not all(map(find_spec, ("model_signing", "OpenSSL"))), reason="needs deploytk[sign]")

SIGNED, SBOM, PROVENANCE, FILES = (
    "https://sigstore.dev/cosign/sign/v1",
    "https://cyclonedx.org/bom",
    "https://slsa.dev/provenance/v1",
    "https://model_signing/signature/v1.0",
)
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


@pytest.fixture(autouse=True)
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return write_key(tmp_path / "key.pem")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return given_bundle(MODELS / "hf-awq", tmp_path / "bundle").path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / "base")


@pytest.fixture(params=[True, False], ids=["with a list of referrers", "with the fallback tag"])
def odd(request: pytest.FixtureRequest) -> Iterator[Odd]:
    with odd_registry() as server:
        server.lists_referrers = request.param
        yield server


def _build(bundle: Path, base: Path, key: Path, tag: str, output: str) -> str:
    """Build and sign; the digest of the image."""
    words = ["build", str(bundle), "-t", tag, "--output", output, "--base", f"oci:{base}", "--sign", str(key), "--json"]
    done = run(*words)
    assert done.code == 0, done.stderr
    return str(json.loads(done.stdout)["digest"])


def verified(place: str, key: Path) -> tuple[int, dict[str, Any]]:
    done = run("verify", place, "--key", str(key.with_suffix(".pub")), "--json")
    assert "Traceback" not in done.stderr
    return done.code, json.loads(done.stdout)


def _attached(odd: Odd, digest: str) -> list[dict[str, Any]]:
    """The manifests that name the image as their subject."""
    found = [json.loads(content) for name, content in odd.manifests.items() if name.startswith("sha256:")]
    return [one for one in found if (one.get("subject") or {}).get("digest") == digest]


def _statement(odd: Odd, manifest: dict[str, Any]) -> Any:
    content = json.loads(odd.blobs[manifest["layers"][0]["digest"]])
    return json.loads(base64.b64decode(content["dsseEnvelope"]["payload"]))


def test_signature_sbom_and_provenance_are_attached_as_cosign_does(
    bundle: Path, base: Path, key: Path, odd: Odd
) -> None:
    digest = _build(bundle, base, key, f"{odd.host}/a/b:1", "registry")

    attached = _attached(odd, digest)
    for one in attached:
        # https://github.com/sigstore/cosign/blob/main/specs/BUNDLE_SPEC.md
        assert one["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
        empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        assert one["config"] == {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2}
        assert [layer["mediaType"] for layer in one["layers"]] == [one["artifactType"]]
        assert one["subject"]["size"] == len(odd.manifests[digest])
    bundles = {
        one["annotations"]["dev.sigstore.bundle.predicateType"]: one
        for one in attached
        if one["artifactType"] == BUNDLE_TYPE
    }
    assert bundles.keys() == {SIGNED, SBOM, PROVENANCE, FILES}
    assert {one["annotations"]["dev.sigstore.bundle.content"] for one in bundles.values()} == {"dsse-envelope"}
    subject = [{"digest": {"sha256": digest.removeprefix("sha256:")}}]
    for kind in (SIGNED, SBOM, PROVENANCE):
        statement = _statement(odd, bundles[kind])
        assert (statement["predicateType"], statement["subject"]) == (kind, subject)
    assert _statement(odd, bundles[SBOM])["predicate"]["bomFormat"] == "CycloneDX"
    assert [one["artifactType"] for one in attached].count("application/vnd.cyclonedx+json") == 1


def test_verify_says_what_is_signed_and_by_whom(bundle: Path, base: Path, key: Path, odd: Odd) -> None:
    digest = _build(bundle, base, key, f"{odd.host}/a/b:1", "registry")

    for place in (f"{odd.host}/a/b:1", f"{odd.host}/a/b@{digest}"):
        code, found = verified(place, key)
        assert (code, found["verified"], found["digest"]) == (0, True, digest)
        says = {one["says"]: one["trouble"] for one in found["statements"]}
        assert says == {"signature": "", "sbom": "", "provenance": "", "model files": ""}


def test_a_list_in_pages_is_read_to_its_end(bundle: Path, base: Path, key: Path, odd: Odd) -> None:
    odd.page_size = 1
    _build(bundle, base, key, f"{odd.host}/a/b:1", "registry")

    assert len(verified(f"{odd.host}/a/b:1", key)[1]["statements"]) == 4


def test_signing_again_attaches_nothing_twice(bundle: Path, base: Path, key: Path, odd: Odd) -> None:
    digest = _build(bundle, base, key, f"{odd.host}/a/b:1", "registry")
    before = dict(odd.manifests)

    assert _build(bundle, base, key, f"{odd.host}/a/b:1", "registry") == digest
    assert odd.manifests == before


def test_two_keys_sign_one_beside_the_other(bundle: Path, base: Path, key: Path, odd: Odd, tmp_path: Path) -> None:
    other = write_key(tmp_path / "other.pem")
    tag = f"{odd.host}/a/b:1"
    digest = _build(bundle, base, key, tag, "registry")
    # Of the image that is there, as somebody else would.
    done = run("publish", tag, "--target", "oci", "--repo", tag, "--sign", str(other))
    assert done.code == 0, done.stderr

    for one in (key, other):
        assert verified(f"{odd.host}/a/b@{digest}", one)[0] == 0


def test_an_image_by_another_signer_is_refused(bundle: Path, base: Path, key: Path, odd: Odd, tmp_path: Path) -> None:
    _build(bundle, base, key, f"{odd.host}/a/b:1", "registry")

    code, found = verified(f"{odd.host}/a/b:1", write_key(tmp_path / "other.pem"))

    assert code == 1
    assert "a/b:1 is not signed by the key sha256:" in found["error"]["what"]


def test_an_image_that_nobody_signed_is_refused(bundle: Path, base: Path, key: Path, odd: Odd) -> None:
    done = run("build", str(bundle), "-t", f"{odd.host}/a/b:1", "--output", "registry", "--base", f"oci:{base}")
    assert done.code == 0, done.stderr

    code, found = verified(f"{odd.host}/a/b:1", key)

    assert code == 1
    assert "nothing is attached to it that says so" in found["error"]["what"]


def _move(odd: Odd, old: str, new: str) -> None:
    """Attach all that is attached to one image to another, as who may push could."""
    subject = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": new,
        "size": len(odd.manifests[new]),
    }
    entries = []
    for manifest in _attached(odd, old):
        content = json.dumps(manifest | {"subject": subject}).encode()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        odd.manifests[digest] = content
        entries.append({"digest": digest, "size": len(content), "mediaType": manifest["mediaType"]})
    if not odd.lists_referrers:
        odd.manifests[new.replace(":", "-")] = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()


def test_the_signature_of_another_image_is_refused(
    bundle: Path, base: Path, key: Path, odd: Odd, tmp_path: Path
) -> None:
    digest = _build(bundle, base, key, f"{odd.host}/a/b:1", "registry")
    other = given_bundle(MODELS / "hf-fp16", tmp_path / "evil").path
    done = run(
        "build", str(other), "-t", f"{odd.host}/a/b:2", "--output", "registry", "--base", f"oci:{base}", "--json"
    )
    evil = json.loads(done.stdout)["digest"]
    _move(odd, digest, evil)

    code, found = verified(f"{odd.host}/a/b:2", key)

    assert code == 1
    assert "it is about another image" in found["error"]["what"]


def test_a_signed_statement_about_another_bundle_is_named(
    bundle: Path, base: Path, key: Path, odd: Odd, tmp_path: Path
) -> None:
    """Both images are signed; one has the other's signature of the files attached as well."""
    first = _build(bundle, base, key, f"{odd.host}/a/b:1", "registry")
    other = given_bundle(MODELS / "hf-fp16", tmp_path / "second").path
    second = _build(other, base, key, f"{odd.host}/a/b:2", "registry")
    kept = odd.manifests.get(second.replace(":", "-"))
    _move(odd, first, second)
    if kept:
        entries = [*json.loads(kept)["manifests"], *json.loads(odd.manifests[second.replace(":", "-")])["manifests"]]
        index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
        odd.manifests[second.replace(":", "-")] = index

    code, found = verified(f"{odd.host}/a/b:2", key)

    assert (code, found["verified"]) == (1, False)
    troubles = {one["trouble"] for one in found["statements"]}
    assert "it is about another bundle than the one in this image" in troubles


@pytest.mark.parametrize("damage", [b"{}", b"[" * 5000, b"\xff", b'{"manifests": 3}', b'{"manifests": [3, {}]}'])
def test_a_registry_that_lists_nonsense_is_no_traceback(
    bundle: Path, base: Path, key: Path, odd: Odd, damage: bytes
) -> None:
    digest = _build(bundle, base, key, f"{odd.host}/a/b:1", "registry")
    odd.lists_referrers = False
    odd.manifests[digest.replace(":", "-")] = b"{}"
    odd.shows["tag"] = lambda body: damage

    done = run("verify", f"{odd.host}/a/b@{digest}", "--key", str(key.with_suffix(".pub")))

    assert done.code == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("what", ["blob", "manifest"])
def test_bytes_that_are_others_than_those_of_the_digest_are_refused(
    bundle: Path, base: Path, key: Path, odd: Odd, what: str
) -> None:
    digest = _build(bundle, base, key, f"{odd.host}/a/b:1", "registry")
    [manifest] = [
        one for one in _attached(odd, digest) if one["annotations"].get("dev.sigstore.bundle.predicateType") == SIGNED
    ]
    if what == "blob":
        odd.blobs[manifest["layers"][0]["digest"]] = b"{}"
    else:  # the same to whoever reads it
        [name] = [
            name for name, content in odd.manifests.items() if name[:7] == "sha256:" and json.loads(content) == manifest
        ]
        odd.manifests[name] += b" "

    code, found = verified(f"{odd.host}/a/b:1", key)

    assert code == 1
    assert re.search("has another digest than it says|has another manifest under", found["error"]["what"])


def test_an_oci_layout_keeps_what_is_attached_and_its_image(
    bundle: Path, base: Path, key: Path, tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    digest = _build(bundle, base, key, "tiny:1", f"oci:{layout}")

    for place in (f"oci:{layout}", f"oci:{layout}:tiny:1"):
        code, found = verified(place, key)
        assert (code, found.get("digest"), len(found.get("statements", []))) == (0, digest, 4), found
    index = json.loads((layout / "index.json").read_text())
    assert [one.get("artifactType") for one in index["manifests"]].count(BUNDLE_TYPE) == 4
    assert _build(bundle, base, key, "tiny:1", f"oci:{layout}") == digest
    assert json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]


def test_a_layout_with_one_flipped_bit_in_its_image_is_refused(
    bundle: Path, base: Path, key: Path, tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    digest = _build(bundle, base, key, "tiny:1", f"oci:{layout}")
    place = layout / "blobs" / "sha256" / digest.removeprefix("sha256:")
    place.write_bytes(place.read_bytes().replace(b"tiny", b"tinz").replace(b'"schemaVersion":2', b'"schemaVersion":3'))

    code, found = verified(f"oci:{layout}", key)

    assert code == 1
    assert "is damaged" in found["error"]["what"]


@pytest.mark.services
def test_oras_and_any_client_find_what_is_attached_in_a_registry_without_a_list(
    bundle: Path, base: Path, key: Path, tmp_path: Path
) -> None:
    """Debian's docker-registry has no referrers API; oras-py reads the index of the fallback tag, and pulls."""
    oras = pytest.importorskip("oras.provider")
    with running_registry(tmp_path / "registry") as registry:
        digest = _build(bundle, base, key, f"{registry.host}/me/tiny:1", "registry")
        client = oras.Registry(registry.host, insecure=True)
        index = client.get_manifest(
            f"{registry.host}/me/tiny:{digest.replace(':', '-')}",
            allowed_media_type=["application/vnd.oci.image.index.v1+json"],
            validation_schema={},
        )
        kinds = sorted(one["artifactType"] for one in index["manifests"])
        assert kinds == ["application/vnd.cyclonedx+json", *[BUNDLE_TYPE] * 4]
        for one in index["manifests"]:
            name = f"{registry.host}/me/tiny@{one['digest']}"
            manifest = client.get_manifest(name, validation_schema={})
            assert manifest["subject"]["digest"] == digest
            [layer] = manifest["layers"]
            there = client.download_blob(name, layer["digest"], str(tmp_path / "blob"))
            assert hashlib.sha256(Path(there).read_bytes()).hexdigest() == layer["digest"].removeprefix("sha256:")
        assert verified(f"{registry.host}/me/tiny:1", key)[0] == 0


@pytest.mark.services
def test_publish_signs_a_bundle_in_a_real_registry_and_a_push_over_the_tag_is_found(
    bundle: Path, base: Path, key: Path, tmp_path: Path
) -> None:
    with running_registry(tmp_path / "registry") as registry:
        tag = f"{registry.host}/me/tiny:1"
        words = ["publish", str(bundle), "--target", "oci", "--repo", tag, "--base", f"oci:{base}"]
        done = run(*words, "--sign", str(key))
        assert done.code == 0, done.stderr
        assert verified(tag, key)[0] == 0

        other = given_bundle(MODELS / "hf-fp16", tmp_path / "evil").path
        words = ["build", str(other), "-t", tag, "--output", "registry", "--base", f"oci:{base}", "--mirror"]
        done = run(*words)
        assert done.code == 0, done.stderr

        code, found = verified(tag, key)
        assert code == 1
        assert "is not signed by" in found["error"]["what"]


@pytest.mark.docker
@pytest.mark.timeout(600)
def test_an_image_in_docker_is_served_only_when_it_is_the_one_that_was_signed(
    bundle: Path, base: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_registry(tmp_path / "registry") as registry, running_dockerd() as daemon:
        monkeypatch.setenv("DOCKER_HOST", daemon.host)
        tag, public = f"{registry.host}/me/tiny:1", key.with_suffix(".pub")
        _build(bundle, base, key, tag, "registry")
        _build(bundle, base, key, tag, "daemon")  # the same files, the same signature, the same image

        require_signed_source(tag, public)

        other = given_bundle(MODELS / "hf-fp16", tmp_path / "evil").path
        done = run("build", str(other), "-t", tag, "--base", f"oci:{base}")
        assert done.code == 0, done.stderr
        with pytest.raises(SignatureError, match="that is in Docker is not what was signed in its registry"):
            require_signed_source(tag, public)
