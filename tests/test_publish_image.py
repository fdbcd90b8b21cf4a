"""`publish IMAGE --target oci`: images that are there already, into a registry as they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bases import write_base
from bundles import whole_bundle
from commands import run
from conftest import MODELS
from registries import Registry, running_registry

from deploytk.base.progress import Silent
from deploytk.image.build import build_image
from deploytk.image.registry.pull import read_registry
from deploytk.image.value import BuildOptions, Image
from deploytk.publish.options import PublishOptions
from deploytk.publish.targets.oci import Oci


@pytest.fixture(autouse=True)
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No daemon, nobody's logins, no uploads of other tests."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'nothing.sock'}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with running_registry(tmp_path / "registry") as registry:
        yield registry


@pytest.fixture
def layout(tmp_path: Path) -> Image:
    """An image of ours in the OCI layout `layout`."""
    bundle = whole_bundle(MODELS / "hf-awq", tmp_path / "bundle")
    options = BuildOptions("tiny:1", f"oci:{tmp_path / 'layout'}", base=f"oci:{write_base(tmp_path / 'base')}")
    return build_image(bundle, options, Silent())


@pytest.mark.services
def test_from_a_layout_it_arrives_as_it_is(layout: Image, registry: Registry) -> None:
    options = PublishOptions(repo=f"{registry.host}/me/tiny:1")

    planned = Oci().preview_image(layout.output, options)
    release = Oci().publish_image(layout.output, options, Silent())
    again = Oci().publish_image(layout.output, options, Silent())

    assert release.revision == layout.digest
    assert read_registry(f"{registry.host}/me/tiny:1").image_id == layout.image_id
    assert planned.upload_bytes == sum(layer.size for layer in layout.layers)
    assert (release.uploaded_files, again.uploaded_files, again.uploaded_bytes) == (len(layout.layers), 0, 0)


@pytest.mark.services
def test_from_one_repository_to_another_nothing_is_sent(layout: Image, registry: Registry) -> None:
    source = f"{registry.host}/me/tiny:1"
    Oci().publish_image(layout.output, PublishOptions(repo=source), Silent())

    release = Oci().publish_image(source, PublishOptions(repo=f"{registry.host}/you/tiny:2"), Silent())

    assert release.revision == layout.digest
    assert release.uploaded_bytes < 10_000  # the config


@pytest.mark.services
def test_an_image_of_a_registry_is_a_base_without_docker(layout: Image, registry: Registry, tmp_path: Path) -> None:
    source = f"{registry.host}/me/tiny:1"
    Oci().publish_image(layout.output, PublishOptions(repo=source), Silent())
    other = whole_bundle(MODELS / "hf-fp16", tmp_path / "other")

    image = build_image(other, BuildOptions(f"{registry.host}/me/other:1", "registry", base=source), Silent())

    assert [layer.digest for layer in image.layers[: len(layout.layers)]] == [layer.digest for layer in layout.layers]
    assert read_registry(f"{registry.host}/me/other:1").image_id == image.image_id


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nowhere:1", "--target", "oci", "--repo", "127.0.0.1:9/me/x:1"], 1, "no Docker daemon answers"),
        (["oci:nowhere", "--target", "oci", "--repo", "127.0.0.1:9/me/x:1"], 1, "nowhere has no index.json"),
        (["tiny:1", "--target", "oci"], 2, "needs --repo"),
        (["tiny:1", "--target", "oci", "--repo", "127.0.0.1:9/me/x:1", "--name", "x"], 2, "an image already"),
        (["tiny:1", "--target", "local"], 1, "tiny:1 does not exist"),
    ],
)
def test_what_cannot_be_published_is_named(arguments: list[str], code: int, says: str) -> None:
    done = run("--quiet", "publish", *arguments)

    assert says in done.stderr
    assert done.code == code
