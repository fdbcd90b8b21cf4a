"""The Dockerfiles and what they install, the compose file, names of images: all that needs no daemon."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from bundles import make_bundle, whole_bundle
from conftest import MODELS

from deploytk import lmdeploy
from deploytk.base.errors import ImageError, UsageError
from deploytk.base.settings import load_settings
from deploytk.base.shipped import shipped
from deploytk.bundle import Bundle
from deploytk.image.compose import compose_of
from deploytk.image.docker import connected
from deploytk.image.reference import parse_tag
from deploytk.image.runtime import recipe_for
from deploytk.image.value import BuildOptions
from deploytk.plan import PlanRequest

OPTIONS = BuildOptions(tag="tiny:1")
IMAGES = shipped("images")
DOCKERFILES = sorted(path.name for path in IMAGES.glob("*.Dockerfile"))
LOCKS = sorted(path.name for path in (IMAGES / "requirements").glob("*.txt"))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return whole_bundle(MODELS / "hf-awq", tmp_path / "bundle")


def _instructions(name: str) -> list[tuple[str, str]]:
    """(instruction, its arguments) of every line, comments left out and continued lines joined."""
    lines = [line for line in (IMAGES / name).read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [(line.split()[0], line.split(None, 1)[1].strip()) for line in joined.splitlines() if line.strip()]


def _stage(name: str, stage: str) -> list[tuple[str, str]]:
    found: dict[str, list[tuple[str, str]]] = {}
    current = ""
    for instruction, rest in _instructions(name):
        if instruction == "FROM":
            current = rest.rpartition(" AS ")[2]
        found.setdefault(current, []).append((instruction, rest))
    return found[stage]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_classic_builder_understands_every_line(name: str) -> None:
    text = (IMAGES / name).read_text()

    assert not re.search(r"^#\s*(syntax|check)\s*=", text, re.MULTILINE | re.IGNORECASE)
    for instruction, rest in _instructions(name):
        assert instruction in "ARG FROM RUN COPY ENV WORKDIR USER EXPOSE STOPSIGNAL HEALTHCHECK ENTRYPOINT".split()
        assert not re.search(r"--(mount|link|chmod|parents|exclude|security|network)\b", rest)
        assert "<<" not in rest


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_runtime_runs_as_nobody_and_says_whether_it_is_well(name: str) -> None:
    runtime = dict(_stage(name, "runtime"))

    assert runtime["USER"] == "10001:10001"
    assert "HOME=/tmp" in runtime["ENV"]
    assert "PYTHONDONTWRITEBYTECODE=1" in runtime["ENV"]
    assert json.loads(runtime["ENTRYPOINT"]) == ["python", "-I", "-u", "-B", "app.py"]
    assert runtime["STOPSIGNAL"] == "SIGTERM"
    assert runtime["EXPOSE"] == "7860"
    probe = json.loads(runtime["HEALTHCHECK"].partition("CMD ")[2])
    assert probe[:3] == ["python", "-I", "-c"]  # neither a shell nor curl
    compile(probe[3], "probe", "exec")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_only_what_is_installed_leaves_the_stage_with_certificate_and_wheels(name: str) -> None:
    copies = [rest for instruction, rest in _stage(name, "runtime") if instruction == "COPY"]

    assert copies
    assert all(re.fullmatch(r"--from=packages (/opt/\w+) \1", copy) for copy in copies)
    assert [rest for instruction, rest in _stage(name, "bundle") if instruction in ("COPY", "RUN")] == [". ./"]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_every_argument_is_used_and_none_is_a_secret(name: str) -> None:
    text = (IMAGES / name).read_text()
    arguments = {rest.partition("=")[0] for instruction, rest in _instructions(name) if instruction == "ARG"}

    # pip reads its own from the environment, and so it does from a build argument.
    unused = {argument for argument in arguments if not re.search(rf"\$\{{?{argument}\b", text)}
    assert unused <= {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"}
    assert not re.search(r"token|secret|password|api_key", " ".join(arguments), re.IGNORECASE)
    assert not re.search(r"\bhf_[A-Za-z0-9]{8,}|//[^/\s]+:[^/\s]+@", text)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_base_that_is_named_has_a_version(name: str) -> None:
    base = next(rest for instruction, rest in _instructions(name) if rest.startswith("BASE_IMAGE="))

    assert re.search(r":.*(\d|_VERSION})", base)
    assert "latest" not in base


@pytest.mark.parametrize("name", LOCKS)
def test_requirements_are_pinned_and_hashed(name: str) -> None:
    text = (IMAGES / "requirements" / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]

    assert len(lines) > 20
    for line in lines:
        assert re.match(r"[A-Za-z0-9._-]+==[^ ;]+( ;[^-]*(?:-[^-][^-]*)*)?\s+--hash=sha256:[0-9a-f]{64}", line), line
        assert "://" not in line


def test_every_lmdeploy_that_is_locked_is_what_its_file_says() -> None:
    for name in (name for name in LOCKS if name.startswith("lmdeploy-")):
        version = name.removeprefix("lmdeploy-").removesuffix(".txt")

        assert f"\nlmdeploy=={version} " in "\n" + (IMAGES / "requirements" / name).read_text()


def test_what_lmdeploy_imports_and_does_not_require_is_locked_as_well() -> None:
    """`lmdeploy serve api_server --help` of 0.7.3 ends with ModuleNotFoundError without it."""
    assert "\npartial-json-parser==" in (IMAGES / "requirements" / "lmdeploy-0.7.3.txt").read_text()


def test_an_engine_has_its_dockerfile(bundle: Bundle) -> None:
    current = recipe_for(bundle, OPTIONS)
    with_pip = recipe_for(bundle, dataclasses.replace(OPTIONS, variant="pip"))
    version = current.arguments["LMDEPLOY_VERSION"]

    assert lmdeploy.legacy_base(version) is None
    assert (current.dockerfile, with_pip.dockerfile) == ("lmdeploy.Dockerfile", "lmdeploy-pip.Dockerfile")
    assert set(current.files) == {"Dockerfile", "requirements.txt"}
    assert f"lmdeploy=={version} " in with_pip.files["deploytk_app/lmdeploy-lock.txt"].decode()


def test_a_legacy_workspace_gets_the_lmdeploy_that_reads_it_on_its_python(tmp_path: Path) -> None:
    bundle = make_bundle(MODELS / "workspace-0.4.2-awq", tmp_path / "bundle", None, PlanRequest(gpu="T4"))

    recipe = recipe_for(bundle, OPTIONS)

    assert recipe.dockerfile == "lmdeploy-pip.Dockerfile"
    assert recipe.arguments["BASE_IMAGE"].endswith("ubuntu22.04")  # Python 3.10
    assert b"lmdeploy==" in recipe.files["deploytk_app/lmdeploy-lock.txt"]


def test_the_recipe_is_kilobytes_and_the_same_for_every_model(bundle: Bundle, tmp_path: Path) -> None:
    other = whole_bundle(MODELS / "hf-fp16", tmp_path / "other")

    recipe = recipe_for(bundle, OPTIONS)

    assert sum(len(content) for content in recipe.files.values()) < 512 * 1024
    assert recipe.digest == recipe_for(other, OPTIONS).digest


def test_whatever_goes_in_makes_another_runtime(bundle: Bundle) -> None:
    arguments = [{}, {"PIP_INDEX_URL": "https://mirror.example/simple"}, {"BASE_IMAGE": "mine:1"}]

    digests = {recipe_for(bundle, dataclasses.replace(OPTIONS, arguments=given)).digest for given in arguments}

    assert len(digests) == 3


def test_a_certificate_makes_no_other_runtime(bundle: Bundle, tmp_path: Path) -> None:
    certificate = tmp_path / "ca.crt"
    certificate.write_text("of a proxy")

    with_one = recipe_for(bundle, dataclasses.replace(OPTIONS, ca_certificate=certificate))

    assert with_one.digest == recipe_for(bundle, OPTIONS).digest


def test_mirrors_of_the_preset_are_arguments_of_every_dockerfile(tmp_path: Path) -> None:
    (tmp_path / "deploytk.toml").write_text('[mirrors]\npreset = "cn"\n')
    mirrors = load_settings(tmp_path / "deploytk.toml").mirrors

    assert str(mirrors.address("pip")).startswith("https://")
    assert all("ARG PIP_INDEX_URL" in (IMAGES / name).read_text() for name in DOCKERFILES)


def _service(bundle: Bundle, options: BuildOptions = OPTIONS) -> dict[str, Any]:
    service: dict[str, Any] = yaml.safe_load(compose_of(bundle, options))["services"]["model"]
    return service


def test_compose_runs_the_image_as_it_was_tested(bundle: Bundle) -> None:
    service = _service(bundle)

    assert service["image"] == "tiny:1"
    assert service["ports"] == ["127.0.0.1:7860:7860"]
    assert (service["read_only"], service["cap_drop"], service["tmpfs"]) == (True, ["ALL"], ["/tmp"])
    assert service["healthcheck"]["start_period"].endswith("s")
    [device] = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


def test_compose_mounts_weights_that_are_not_in_the_image(bundle: Bundle) -> None:
    service = _service(bundle, dataclasses.replace(OPTIONS, weights="mount"))

    assert service["volumes"] == ["${WEIGHTS:?the directory of the bundle}:/bundle:ro"]


def test_a_name_cannot_add_a_key_to_compose(bundle: Bundle) -> None:
    hostile = dataclasses.replace(OPTIONS, tag='x:1"\n    privileged: true')

    assert _service(bundle, hostile)["image"] == hostile.tag
    assert "privileged" not in _service(bundle, hostile)


@pytest.mark.parametrize("tag", ["tiny:1", "me/tiny:1.0", "127.0.0.1:5000/me/tiny:latest", "hub.example/a/b/c:v_1-x"])
def test_names_of_images_are_taken(tag: str) -> None:
    parse_tag(tag)


@pytest.mark.parametrize(
    "tag",
    ["", "tiny", "Tiny:1", "tiny:", "tiny: 1", "tiny:-1", "a//b:1", "tiny:1\n", "host:5000/", "-x:1", "t:" + "x" * 129],
)
def test_what_is_no_name_is_refused_before_anything_is_done(tag: str) -> None:
    with pytest.raises(UsageError, match="not the name of an image"):
        parse_tag(tag)


def test_without_a_daemon_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'nothing.sock'}")

    with pytest.raises(ImageError, match="no Docker daemon answers") as caught, connected():
        pass

    assert "start dockerd" in caught.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to be somebody else")
def test_without_permission_it_says_what_to_do() -> None:
    code = """
import os, sys
from deploytk.image.docker import connected
from deploytk.base.errors import ImageError
import docker
os.setuid(65534)
try:
    with connected():
        pass
except ImageError as error:
    print(error, error.hint)
"""
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
        Path(directory).chmod(0o755)
        listener.bind(f"{directory}/docker.sock")
        Path(directory, "docker.sock").chmod(0o600)
        listener.listen()
        environment = {**os.environ, "DOCKER_HOST": f"unix://{directory}/docker.sock"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
        )

    assert "may not be used by this user" in done.stdout
    assert "group docker" in done.stdout
