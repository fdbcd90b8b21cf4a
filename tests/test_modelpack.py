"""publish --target oci --format modelpack: a model without an app, for whoever reads CNCF's ModelPack."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bundles import given_bundle, whole_bundle
from conftest import MODELS
from odd_registry import Odd, odd_registry
from pydantic import BaseModel, ConfigDict

from deploytk.base.errors import ImageError, UsageError
from deploytk.base.progress import Silent
from deploytk.bundle import Bundle, BundleOptions
from deploytk.image.modelpack import plan_artifact
from deploytk.publish.options import PublishOptions
from deploytk.publish.targets.oci import Oci, OciOptions

# docs/spec.md and specs-go/v1/mediatype.go at d78bf32.
TYPES = {f"application/vnd.cncf.model.{kind}.v1.raw" for kind in ("weight", "weight.config", "doc", "code", "dataset")}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Descriptor(_Strict):
    """docs/config.md, as far as we write it; no key beyond those is allowed there."""

    name: str
    title: str
    version: str
    family: str
    licenses: list[str]


class _Capabilities(_Strict):
    inputTypes: list[str]  # noqa: N815 (theirs)
    outputTypes: list[str]  # noqa: N815


class _Technical(_Strict):
    architecture: str
    format: str
    paramSize: str  # noqa: N815
    precision: str
    quantization: str
    capabilities: _Capabilities


class _Layers(_Strict):
    type: str
    diffIds: list[str]  # noqa: N815


class _Config(_Strict):
    descriptor: _Descriptor
    config: _Technical
    modelfs: _Layers


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    options = BundleOptions(name="tiny", license="apache-2.0", base_model="me/tiny")
    return given_bundle(MODELS / "hf-awq", tmp_path_factory.mktemp("modelpack") / "bundle", options)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Odd]:
    monkeypatch.setenv("DEPLOYTK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'nothing.sock'}")
    with odd_registry() as odd:
        yield odd


def _published(bundle: Bundle, registry: Odd) -> tuple[Any, Any]:
    repo = PublishOptions(repo=f"{registry.host}/me/tiny:1")
    release = Oci(OciOptions(format="modelpack")).publish(bundle, repo, Silent())
    return release, json.loads(registry.manifests[release.revision])


def test_the_manifest_is_the_one_of_the_specification(bundle: Bundle, registry: Odd) -> None:
    release, manifest = _published(bundle, registry)

    assert release.verified
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert manifest["config"]["mediaType"] == "application/vnd.cncf.model.config.v1+json"
    assert {layer["mediaType"] for layer in manifest["layers"]} <= TYPES
    for layer in [*manifest["layers"], manifest["config"]]:
        blob = registry.blobs[layer["digest"]]
        assert (f"sha256:{hashlib.sha256(blob).hexdigest()}", len(blob)) == (layer["digest"], layer["size"])


def test_the_config_has_the_keys_of_the_specification_and_no_others(bundle: Bundle, registry: Odd) -> None:
    _, manifest = _published(bundle, registry)
    config = json.loads(registry.blobs[manifest["config"]["digest"]])

    assert _Config.model_validate(config).modelfs.type == "layers"
    assert re.fullmatch(r"\d+(\.\d)?[QTBMKqtbmk]", config["config"]["paramSize"])
    assert config["modelfs"]["diffIds"] == [layer["digest"] for layer in manifest["layers"]]
    assert config["config"]["format"] == "safetensors"
    assert config["config"]["quantization"] == "awq"
    assert config["descriptor"]["licenses"] == ["apache-2.0"]


def test_every_file_of_the_model_is_a_layer_under_its_path_and_none_of_the_app(bundle: Bundle, registry: Odd) -> None:
    _, manifest = _published(bundle, registry)
    there = {layer["annotations"]["org.cncf.model.filepath"]: layer for layer in manifest["layers"]}

    wanted = {file.path for file in bundle.files if file.kind in ("weights", "model")} | {"README.md", "README_zh.md"}
    assert there.keys() == wanted
    for file in bundle.files:
        if file.path in there:
            assert there[file.path]["digest"] == f"sha256:{file.sha256}"
            attributes = json.loads(there[file.path]["annotations"]["org.cncf.model.file.metadata+json"])
            assert attributes["size"] == file.size
    assert there["config.json"]["mediaType"].endswith("weight.config.v1.raw")
    assert there["model.safetensors"]["mediaType"].endswith("weight.v1.raw")
    assert there["README.md"]["mediaType"].endswith("doc.v1.raw")


def test_the_same_bundle_gives_the_same_artifact_and_nothing_is_sent_twice(bundle: Bundle, registry: Odd) -> None:
    first, _ = _published(bundle, registry)
    again, _ = _published(bundle, registry)

    assert first.revision == again.revision == plan_artifact(bundle).digest
    assert (again.uploaded_files, again.uploaded_bytes) == (0, 0)
    planned = Oci(OciOptions(format="modelpack")).preview(bundle, PublishOptions(repo=f"{registry.host}/me/tiny:1"))
    assert planned.upload_bytes == 0


def test_a_file_that_changed_is_never_sent_as_the_one_that_was_planned(tmp_path: Path, registry: Odd) -> None:
    bundle = whole_bundle(MODELS / "hf-awq", tmp_path / "b")
    place = bundle.path / "model.safetensors"
    content = bytearray(place.read_bytes())
    content[-1] ^= 1
    place.unlink()
    place.write_bytes(content)

    with pytest.raises(ImageError):
        _published(bundle, registry)
    assert not registry.manifests


def test_options_that_do_nothing_for_an_artifact_are_refused(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="--base does nothing"):
        Oci(OciOptions(format="modelpack", base="x")).publish(bundle, PublishOptions(repo="localhost/a:1"), Silent())
    with pytest.raises(UsageError, match="is an image already"):
        Oci(OciOptions(format="modelpack")).publish_image("a:1", PublishOptions(repo="localhost/a:1"), Silent())


@pytest.mark.services
def test_oras_pulls_the_files_as_they_were(bundle: Bundle, tmp_path: Path) -> None:
    from registries import running_registry

    oras = pytest.importorskip("oras.client")
    with running_registry(tmp_path / "registry") as registry:
        name = f"{registry.host}/me/tiny:1"
        Oci(OciOptions(format="modelpack")).publish(bundle, PublishOptions(repo=name), Silent())
        client = oras.OrasClient(insecure=True)
        client.pull(target=name, outdir=str(tmp_path / "out"))

    for file in bundle.files:
        if file.kind in ("weights", "model"):
            assert (tmp_path / "out" / file.path).read_bytes() == (bundle.path / file.path).read_bytes()
