"""Docker's containerd image store, the usual one from Docker 29 on: other names of images, other rules for archives."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from bases import layer_tar, write_base
from bundles import given_bundle, whole_bundle
from conftest import MODELS
from docker_daemon import Dockerd, newer_debian, running_dockerd, shell_files

from deploytk.base.progress import Silent
from deploytk.bundle import Bundle, BundleOptions
from deploytk.image.build import build_image
from deploytk.image.docker import connected
from deploytk.image.value import BuildOptions

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockerd]:
    work = tmp_path_factory.mktemp("docker")
    with running_dockerd(system=newer_debian(work)) as daemon, pytest.MonkeyPatch.context() as environment:
        environment.setenv("DOCKER_HOST", daemon.host)
        environment.setenv("XDG_CACHE_HOME", str(work / "cache"))
        yield daemon


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return whole_bundle(MODELS / "hf-awq", tmp_path / "bundle")


def test_it_gets_the_image_that_every_other_output_gets(dockerd: Dockerd, bundle: Bundle, tmp_path: Path) -> None:
    options = BuildOptions(tag="tiny:1", base=f"oci:{write_base(tmp_path / 'base')}")
    elsewhere = build_image(bundle, dataclasses.replace(options, output=f"oci:{tmp_path / 'layout'}"), Silent())

    image = build_image(bundle, options, Silent())
    again = build_image(bundle, options, Silent())

    with connected() as daemon:
        assert not daemon.stacks_layers()
    assert (image.image_id, image.digest) == (elsewhere.image_id, elsewhere.digest)
    assert dockerd.docker("inspect", "--format", "{{.Id}}", "tiny:1") == image.digest
    assert again.sent_bytes == 0


def test_an_image_of_its_own_is_a_base(dockerd: Dockerd, bundle: Bundle, tmp_path: Path) -> None:
    """It keeps layers compressed, and says so only in what it saves."""
    dockerd.docker(
        "import",
        "-",
        "base:1",
        stdin=layer_tar(
            {**shell_files(), "bin/python": b"#!/bin/sh\nexit 0\n", "a": b"1", "lib/x-1.dist-info/METADATA": b"Name: x"}
        ),
    )
    other = given_bundle(MODELS / "hf-awq", tmp_path / "other", BundleOptions(name="tiny", app="api"))

    first = build_image(bundle, BuildOptions(tag="based:1", base="base:1"), Silent())
    second = build_image(other, BuildOptions(tag="based:2", base="base:1"), Silent())

    assert dockerd.docker("inspect", "--format", "{{.Id}}", "based:1") == first.digest
    assert dockerd.docker("inspect", "--format", "{{.Id}}", "based:2") == second.digest
    assert all(layer.reused for layer in second.layers if layer.kind in ("base", "weights"))
    assert 0 < second.sent_bytes < 1_000_000  # the app and the card; the weights are 1.9 MB
