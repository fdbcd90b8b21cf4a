"""A base of a Docker daemon is tried: what does not start there is refused before anything is built on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bases import Special, layer_tar
from bundles import Notes, whole_bundle
from conftest import MODELS
from docker_daemon import Dockerd, running_dockerd, shell_files

from deploytk.base.errors import ImageError
from deploytk.base.progress import Silent
from deploytk.image.build import build_image
from deploytk.image.value import BuildOptions

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockerd]:
    with running_dockerd() as daemon, pytest.MonkeyPatch.context() as environment:
        environment.setenv("DOCKER_HOST", daemon.host)
        environment.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield daemon


@pytest.mark.parametrize(
    ("number", "files", "message"),
    [
        (1, {}, "does not start python: .*not found"),
        (2, {"bin/python": b"MZ\x90"}, "does not start python: .*exec format error"),
        (3, {"bin/python": Special(content=b"#!/bin/sh\n", mode=0o644)}, "does not start python: .*(denied|not found)"),
        (4, {"bin/python": b"#!/bin/bash\n"}, "does not start python: .*no such file"),
        (5, {"bin/python": b"#!/bin/sh\nexit 3\n"}, r"the Python of base:5 is too old: the app needs 3\.8"),
        (6, {"bin/python": b"#!/bin/sh\nexit 1\n"}, "does not start python: it ended with 1"),
    ],
)
def test_a_base_that_does_not_start_is_refused(
    dockerd: Dockerd, number: int, files: dict[str, bytes | Special], message: str, tmp_path: Path
) -> None:
    dockerd.docker("import", "-", f"base:{number}", stdin=layer_tar({**shell_files(), **files}))
    bundle = whole_bundle(MODELS / "hf-awq", tmp_path / "bundle")

    with pytest.raises(ImageError, match=message):
        build_image(bundle, BuildOptions(tag="tiny:1", base=f"base:{number}"), Silent())

    assert dockerd.docker("images", "--quiet", "tiny") == dockerd.docker("ps", "--all", "--quiet") == ""


def test_a_base_that_starts_is_built_on(dockerd: Dockerd, tmp_path: Path) -> None:
    dockerd.docker("import", "-", "good:1", stdin=layer_tar({**shell_files(), "bin/python": b"#!/bin/sh\nexit 0\n"}))
    bundle = whole_bundle(MODELS / "hf-awq", tmp_path / "bundle")

    image = build_image(bundle, BuildOptions(tag="fine:1", base="good:1"), Silent())

    assert dockerd.docker("inspect", "--format", "{{.Id}}", "fine:1") == image.image_id
    assert dockerd.docker("ps", "--all", "--quiet") == ""


def test_an_image_is_tried_once_and_another_by_its_name_again(dockerd: Dockerd, tmp_path: Path) -> None:
    bundle = whole_bundle(MODELS / "hf-awq", tmp_path / "bundle")

    def tried() -> int:
        notes = Notes()
        build_image(bundle, BuildOptions(tag="named-app:1", base="named:1"), notes)
        return sum(note.startswith("trying") for note in notes.lines)

    def name(python: bytes) -> None:
        dockerd.docker("import", "-", "named:1", stdin=layer_tar({**shell_files(), "bin/python": python}))

    name(b"#!/bin/sh\nexit 0\n")
    assert [tried(), tried()] == [1, 0]
    name(b"#!/bin/sh\nexit 1\n")
    with pytest.raises(ImageError, match="ended with 1"):
        tried()
