"""Real images with a real dockerd: built, loaded, run, judged, pushed and pulled back."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from bases import layer_tar, write_base
from bundles import Notes, given_bundle, make_bundle, whole_bundle
from conftest import MODELS
from docker_daemon import BASE, Dockerd, import_debian, running_dockerd
from hf_hub import READER, WRITER, hf_hub
from huggingface_hub import constants
from registries import running_registry

from deploytk.base.errors import EndpointError, ImageError
from deploytk.base.progress import Silent
from deploytk.bundle import Bundle, BundleOptions, read_bundle, read_golden
from deploytk.image.base import find_base
from deploytk.image.build import build_image
from deploytk.image.config import plan_image
from deploytk.image.docker import Build, connected
from deploytk.image.docker.load import PARTIAL, load_image
from deploytk.image.registry.pull import read_registry
from deploytk.image.registry.upload_process import is_picklable
from deploytk.image.runtime import runtime_base
from deploytk.image.value import BuildOptions, Image
from deploytk.plan import PlanRequest
from deploytk.publish.options import PublishOptions
from deploytk.publish.record import fetchable_source
from deploytk.publish.release import publish_bundle
from deploytk.publish.targets.huggingface import HuggingFace
from deploytk.serve import ServeOptions, open_endpoint
from deploytk.serve.container import running_image
from deploytk.smoke import Budget, Workload, smoke

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

CANARY = "hf_CanaryOfTheTests0123456789abcdef"
ON_DEBIAN = BuildOptions(tag="tiny:1", base=BASE)


@pytest.fixture(scope="module")
def environment() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def dockerd(tmp_path_factory: pytest.TempPathFactory, environment: pytest.MonkeyPatch) -> Iterator[Dockerd]:
    """A daemon that DOCKER_HOST names, with the image BASE."""
    work = tmp_path_factory.mktemp("docker")
    with running_dockerd() as daemon:
        import_debian(daemon, work)
        environment.setenv("DOCKER_HOST", daemon.host)
        environment.setenv("XDG_CACHE_HOME", str(work / "cache"))
        yield daemon
        assert daemon.docker("ps", "--all", "--quiet") == ""  # nothing is left of what was run


@pytest.fixture(scope="module")
def cpu_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    golden = read_golden(MODELS / "dialogs.json")
    options = BundleOptions(name="tiny", license="apache-2.0", app="api", golden=golden)
    request = PlanRequest(serving_engine="cpu")
    return make_bundle(MODELS / "hf-awq", tmp_path_factory.mktemp("cpu") / "bundle", options, request)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """torch for the Python of Debian 12, as pip finds it here."""
    place = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--python-version", "3.11", "--dest", str(place), "torch==2.13.0"]
    subprocess.run(command, check=True, timeout=400)
    return place


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, environment: pytest.MonkeyPatch, cpu_bundle: Bundle) -> None:
    """A token wherever one may lie about, before anything is built."""
    home = tmp_path_factory.mktemp("home")
    for path in (".netrc", ".cache/huggingface/token", ".docker/config.json", ".config/pip/pip.conf"):
        (home / path).parent.mkdir(parents=True, exist_ok=True)
    (home / ".netrc").write_text(f"machine example.org login me password {CANARY}\n")
    (home / ".cache/huggingface/token").write_text(CANARY)
    git = cpu_bundle.path / ".git"
    git.mkdir()
    (git / "config").write_text(f'[remote "origin"]\n  url = https://me:{CANARY}@example.org/x\n')
    environment.setenv("HOME", str(home))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MODELSCOPE_API_TOKEN", "TWINE_PASSWORD"):
        environment.setenv(name, CANARY)


@pytest.fixture(scope="module")
def built(dockerd: Dockerd, planted: None, cpu_bundle: Bundle, wheels: Path) -> tuple[Image, BuildOptions, list[str]]:
    """The CPU image, from a Debian without anything, with packages from the index."""
    options = BuildOptions(
        tag="deploytk-test/tiny:1", wheels=wheels, arguments={"BASE_IMAGE": BASE}, uses_host_network=True
    )
    notes = Notes()
    return build_image(cpu_bundle, options, notes), options, notes.lines


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return whole_bundle(MODELS / "hf-awq", tmp_path / "bundle")


def _touched(place: Path) -> Bundle:
    """The same model with another app."""
    return given_bundle(MODELS / "hf-awq", place / "touched", BundleOptions(name="tiny", app="api"))


def _files(dockerd: Dockerd, reference: str) -> Iterator[tuple[str, bytes]]:
    """Every file of every layer of an image as Docker saves it, and every config and manifest."""
    command = ["docker", "--host", dockerd.host, "save", reference]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as saved:
        assert saved.stdout
        with tarfile.open(fileobj=saved.stdout, mode="r|") as archive:
            for member in archive:
                source = archive.extractfile(member) if member.isfile() else None
                if source and member.name.endswith("layer.tar"):
                    yield from _members(source)
                elif source:
                    yield member.name, source.read()


def _members(source: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=source, mode="r|") as layer:
        for member in layer:
            file = layer.extractfile(member) if member.isfile() else None
            yield member.name, file.read() if file else b""


def test_the_image_answers_every_golden_question(built: tuple[Image, BuildOptions, list[str]]) -> None:
    image, _, _ = built

    report = smoke(image.tag, ServeOptions(), Workload(requests=4, output_tokens=16), Budget(), Silent())

    [golden] = [finding for finding in report.correctness if finding.check == "golden answers"]
    assert (golden.status, report.verdict.exit_code) == ("pass", 0), report.correctness
    assert "8 of 8" in golden.detail


class _Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def test_it_runs_as_nobody_and_can_write_nothing(
    dockerd: Dockerd, built: tuple[Image, BuildOptions, list[str]]
) -> None:
    image, _, _ = built
    notes = _Notes()

    with open_endpoint(image.tag, ServeOptions(host="0.0.0.0"), notes) as endpoint:
        [container] = dockerd.docker("ps", "--quiet").split()
        facts = json.loads(dockerd.docker("inspect", container))[0]
        status = dockerd.docker("exec", container, "cat", "/proc/1/status")
        write = ["docker", "--host", dockerd.host, "exec", container, "touch", "/bundle/x"]
        refused = subprocess.run(write, capture_output=True, check=False).returncode

        assert endpoint.engine == "cpu"
        assert "Uid:\t10001\t10001" in status
        assert "CapBnd:\t0000000000000000" in status
        assert (facts["HostConfig"]["ReadonlyRootfs"], refused) == (True, 1)
        health = _wait_for_health(dockerd, container)
    assert health == "healthy"
    assert [one for one in notes.said if one.startswith("whoever reaches port ")]  # without keys
    assert dockerd.docker("ps", "--all", "--quiet") == ""


def _wait_for_health(dockerd: Dockerd, container: str) -> str:
    deadline = time.monotonic() + 60
    health = "starting"
    while health == "starting" and time.monotonic() < deadline:
        time.sleep(0.5)
        health = dockerd.docker("inspect", "--format", "{{.State.Health.Status}}", container)
    return health


def test_neither_token_nor_certificate_nor_wheels_are_in_a_layer(
    dockerd: Dockerd, built: tuple[Image, BuildOptions, list[str]]
) -> None:
    image, options, _ = built
    bundle_of_trust = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    certificate = hashlib.sha256(Path(bundle_of_trust).read_bytes()).digest() if bundle_of_trust else b""

    seen = 0
    for name, content in _files(dockerd, image.tag):
        seen += 1
        assert CANARY.encode() not in content, name
        assert not Path(name).match("torch-*.whl"), name
        assert not name.endswith("ca-certificate.crt"), name
        assert hashlib.sha256(content).digest() != certificate or not certificate, name
    history = dockerd.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image.tag)

    assert seen > 5000  # Debian and Python
    assert CANARY not in history
    assert options.wheels


def test_what_has_not_changed_is_neither_built_nor_sent_again(
    built: tuple[Image, BuildOptions, list[str]], cpu_bundle: Bundle
) -> None:
    image, options, first = built
    notes = Notes()

    again = build_image(cpu_bundle, options, notes)

    assert any(line.startswith("RUN ") for line in first)  # the steps of the build were shown
    assert any("nothing that goes into it has changed" in line for line in notes.lines)
    assert (again.image_id, again.sent_bytes) == (image.image_id, 0)


def test_pushed_and_pulled_back_it_still_runs(
    dockerd: Dockerd, built: tuple[Image, BuildOptions, list[str]], cpu_bundle: Bundle, tmp_path: Path
) -> None:
    image, options, _ = built
    with running_registry(tmp_path / "registry") as registry:
        tag = f"{registry.host}/me/tiny:1"

        pushed = build_image(cpu_bundle, dataclasses.replace(options, tag=tag, output="registry"), Silent())
        again = build_image(cpu_bundle, dataclasses.replace(options, tag=tag, output="registry"), Silent())
        dockerd.docker("rmi", "--force", image.tag)
        dockerd.docker("pull", "--quiet", tag)

    assert dockerd.docker("inspect", "--format", "{{.Id}}", tag) == image.image_id == pushed.image_id
    assert again.sent_bytes == 0
    dockerd.docker("tag", tag, image.tag)
    dockerd.docker("tag", tag, "deploytk-test/pulled:2")
    report = smoke("deploytk-test/pulled:2", ServeOptions(), Workload(requests=2, output_tokens=8), Budget(), Silent())
    assert report.verdict.exit_code == 0


def test_without_weights_it_fetches_them_from_where_they_were_published(
    dockerd: Dockerd,
    built: tuple[Image, BuildOptions, list[str]],
    cpu_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, options, _ = built
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with hf_hub(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", WRITER)
        publish_bundle(cpu_bundle, HuggingFace(patience_s=3.0, poll_s=0.02), PublishOptions(repo="me/tiny"), Silent())
        source = fetchable_source(cpu_bundle)
        assert source
        fetching = dataclasses.replace(options, tag="fetching:1", weights="download", weights_source=source)

        image = build_image(cpu_bundle, fetching, Silent())
        serving = ServeOptions(environment=(("HF_TOKEN", READER),))
        report = smoke("fetching:1", serving, Workload(requests=2, output_tokens=8), Budget(), Silent())

    [golden] = [finding for finding in report.correctness if finding.check == "golden answers"]
    assert "8 of 8" in golden.detail
    assert "weights" not in {layer.kind for layer in image.layers}
    assert dockerd.docker("volume", "ls", "--quiet") == ""  # what it fetched to goes with it


def test_the_last_stage_takes_a_bundle_as_it_lies_there(
    dockerd: Dockerd, built: tuple[Image, BuildOptions, list[str]], tmp_path: Path
) -> None:
    """What `docker build` does in a bundle's directory, on the runtime that is there already."""
    tags = dockerd.docker("images", "--format", "{{.Repository}}:{{.Tag}}", "deploytk-runtime").split()
    last_stage = (MODELS.parents[1] / "images" / "cpu.Dockerfile").read_text().partition("FROM runtime AS bundle")
    (tmp_path / "Dockerfile").write_text(f"FROM {tags[0]} AS runtime\n{last_stage[1]}{last_stage[2]}")
    (tmp_path / "app.py").write_text("print('hello')")

    dockerd.docker("build", "--network", "host", "--tag", "people:1", str(tmp_path))

    assert built
    assert dockerd.docker("run", "--rm", "--network", "host", "--read-only", "people:1") == "hello"


def test_after_a_change_of_the_app_no_weights_are_sent(dockerd: Dockerd, bundle: Bundle, tmp_path: Path) -> None:
    first = build_image(bundle, ON_DEBIAN, Silent())

    second = build_image(_touched(tmp_path), dataclasses.replace(ON_DEBIAN, tag="tiny:2"), Silent())

    assert first.image_id != second.image_id
    assert all(layer.reused for layer in second.layers if layer.kind in ("base", "weights"))
    assert 0 < second.sent_bytes < 1_000_000  # the app and the card; the weights are 1.9 MB
    assert dockerd.docker("inspect", "--format", "{{.Id}}", "tiny:2") == second.image_id


def test_the_same_bundle_elsewhere_is_the_same_image(dockerd: Dockerd, bundle: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle.path, tmp_path / "elsewhere"))
    for path in copy.rglob("*"):
        os.utime(path, (random.randrange(2**30),) * 2)

    here = build_image(bundle, ON_DEBIAN, Silent())
    there = build_image(read_bundle(copy), dataclasses.replace(ON_DEBIAN, tag="elsewhere:1"), Silent())

    assert here.image_id == there.image_id
    assert dockerd.docker("inspect", "--format", "{{.Id}}", "elsewhere:1") == here.image_id


def test_an_image_that_was_removed_is_sent_again(dockerd: Dockerd, bundle: Bundle) -> None:
    first = build_image(bundle, dataclasses.replace(ON_DEBIAN, tag="removed:1"), Silent())
    tags = json.loads(dockerd.docker("inspect", "--format", "{{json .RepoTags}}", first.image_id))
    dockerd.docker("rmi", "--force", *tags)

    again = build_image(bundle, dataclasses.replace(ON_DEBIAN, tag="removed:1"), Silent())

    assert again.image_id == first.image_id
    assert again.sent_bytes > 0
    assert dockerd.docker("inspect", "--format", "{{.Id}}", "removed:1") == first.image_id


def test_layers_that_arrived_before_a_load_broke_off_are_not_sent_again(
    dockerd: Dockerd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploytk.image.layers.SHARD_BYTES", 100_000)  # some shards are layers of their own
    monkeypatch.setattr("deploytk.image.docker.load.STAGE_BYTES", 100_000)
    bundle = whole_bundle(MODELS / "workspace-0.7.3-awq", tmp_path / "workspace")
    options = dataclasses.replace(ON_DEBIAN, tag="broken-off:1")
    plan = plan_image(bundle, runtime_base(bundle, options, Silent()), options, Silent())
    shard = [file for file in bundle.files if file.kind == "weights" and file.size >= 100_000][-1]
    content = (bundle.path / shard.path).read_bytes()
    _write(bundle.path / shard.path, bytes(shard.size))

    with pytest.raises(ImageError, match="has changed since the image was planned"):
        load_image(plan, options.tag, Silent())
    partial = dockerd.docker("images", "--quiet", "--filter", f"label={PARTIAL}").split()
    _write(bundle.path / shard.path, content)
    layers, sent_bytes = load_image(plan, options.tag, Silent())

    assert len(partial) > 0
    assert any(layer.reused for layer in layers if layer.kind == "weights")
    assert sent_bytes == sum(layer.size for layer in layers if not layer.reused)
    assert dockerd.docker("inspect", "--format", "{{.Id}}", options.tag) == plan.image_id
    assert dockerd.docker("images", "--quiet", "--filter", f"label={PARTIAL}") == ""


def _write(path: Path, content: bytes) -> None:
    """A file of its own, not a link to one that others have as well."""
    path.unlink()
    path.write_bytes(content)


def test_a_container_that_ends_shows_what_it_said_and_is_removed(dockerd: Dockerd) -> None:
    context = _context(f'FROM {BASE} AS runtime\nENTRYPOINT ["python3", "-c", "raise SystemExit(\'out of luck\')"]\n')
    with connected() as daemon:
        daemon.build(Build(context, "runtime", "unlucky:1", {}, uses_host_network=True), lambda _: None)

    options = ServeOptions(ready_within_s=30)
    with (
        pytest.raises(EndpointError, match=r"(?s)ended with code 1.*out of luck"),
        running_image("unlucky:1", options, Silent()),
    ):
        pass

    assert dockerd.docker("ps", "--all", "--quiet") == ""


def test_a_container_is_given_the_keys_and_limits_of_our_environment(
    dockerd: Dockerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = "import os; raise SystemExit(os.environ['DEPLOYTK_API_KEYS'] + os.environ.get('HF_TOKEN', ' and no more'))"
    context = _context(f'FROM {BASE} AS runtime\nENTRYPOINT ["python3", "-c", "{says}"]\n')
    with connected() as daemon:
        daemon.build(Build(context, "runtime", "telling:1", {}, uses_host_network=True), lambda _: None)
    monkeypatch.setenv("DEPLOYTK_API_KEYS", "the-key")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    with (
        pytest.raises(EndpointError, match=r"(?s)the-key and no more"),
        running_image("telling:1", ServeOptions(ready_within_s=30), Silent()),
    ):
        pass


def test_an_image_without_its_weights_says_how_to_run_it(dockerd: Dockerd, bundle: Bundle) -> None:
    build_image(bundle, dataclasses.replace(ON_DEBIAN, tag="mounted:1", weights="mount"), Silent())

    with (
        pytest.raises(EndpointError, match="mounted:1 has no weights") as caught,
        open_endpoint("mounted:1", ServeOptions(), Silent()),
    ):
        pass

    assert "docker compose -f" in caught.value.hint


def test_a_failed_step_shows_the_end_of_the_log(dockerd: Dockerd) -> None:
    context = _context(f"FROM {BASE} AS runtime\nRUN echo what went wrong && exit 7\n")

    with connected() as daemon, pytest.raises(ImageError, match=r"(?s)cannot be built.*7.*what went wrong"):
        daemon.build(Build(context, "runtime", "broken:1", {}, uses_host_network=True), lambda _: None)


def test_a_base_that_is_not_there_is_named(dockerd: Dockerd, bundle: Bundle) -> None:
    with pytest.raises(ImageError, match="has no image nowhere:1"):
        build_image(bundle, dataclasses.replace(ON_DEBIAN, base="nowhere:1"), Silent())


@pytest.mark.parametrize("is_buildkit", [False, True])
def test_a_small_runtime_is_built_by_either_builder(
    tmp_path: Path, is_buildkit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    with running_dockerd(is_buildkit=is_buildkit) as daemon:
        monkeypatch.setenv("DOCKER_HOST", daemon.host)
        daemon.docker("import", "-", "empty:1", stdin=layer_tar({"a": b"1"}))
        context = _context("FROM empty:1 AS base\nFROM base AS runtime\nCOPY b /b\n", b=b"2")
        with connected() as client:
            image = client.build(Build(context, "runtime", "small:1", {}, uses_host_network=False), steps.append)
            assert client.has_buildkit() is is_buildkit

        assert dict(_files(daemon, "small:1"))["b"] == b"2"
        assert daemon.docker("inspect", "--format", "{{.Id}}", "small:1") == image
        assert any("COPY b /b" in step for step in steps)


def test_the_layers_of_a_base_in_docker_are_sent_by_the_upload_process_as_well(
    dockerd: Dockerd, bundle: Bundle, tmp_path: Path
) -> None:
    with running_registry(tmp_path / "registry") as registry:
        options = dataclasses.replace(ON_DEBIAN, tag=f"{registry.host}/me/tiny:1", output="registry")

        image = build_image(bundle, options, Silent())

        assert read_registry(options.tag).image_id == image.image_id
        plan = plan_image(bundle, find_base(BASE, Silent(), keep=True), options, Silent())
        assert all(is_picklable(layer) for layer in plan.layers)


def test_a_full_disk_of_the_daemon_is_called_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Path(tempfile.mkdtemp(prefix="disk-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bundle = whole_bundle(MODELS / "hf-fp16", tmp_path / "bundle")  # 6 MB of weights
    try:
        with running_dockerd(disk=disk) as daemon:
            monkeypatch.setenv("DOCKER_HOST", daemon.host)
            options = dataclasses.replace(ON_DEBIAN, base=f"oci:{write_base(tmp_path / 'base')}")

            with pytest.raises(ImageError, match="disk of the Docker daemon is full") as caught:
                build_image(bundle, options, Silent())

            assert daemon.docker("images", "--quiet", "tiny") == ""
    finally:
        subprocess.run(["umount", str(disk)], check=True)
        disk.rmdir()
    assert "prune" in caught.value.hint


def _context(dockerfile: str, **files: bytes) -> IO[bytes]:
    return io.BytesIO(layer_tar({"Dockerfile": dockerfile.encode(), **files}))
