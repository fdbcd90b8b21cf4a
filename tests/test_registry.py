"""Pushing to Debian's docker-registry: once, again, cut off, refused, and read back."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bases import write_base
from bundles import make_bundle, whole_bundle
from conftest import MODELS
from registries import Registry, running_registry

from deploytk.base.errors import DeployError, ImageError, UsageError
from deploytk.base.progress import Silent
from deploytk.base.retry import RetryPolicy
from deploytk.bundle import Bundle
from deploytk.image.build import build_image
from deploytk.image.config import plan_image
from deploytk.image.oci import read_layout
from deploytk.image.registry.pull import read_registry
from deploytk.image.registry.push import push_image
from deploytk.image.value import BuildOptions, ImagePlan
from deploytk.publish.options import PublishOptions
from deploytk.publish.release import publish_bundle
from deploytk.publish.targets.oci import Oci

MIB = 2**20
LARGE = 160 * MIB

services = pytest.mark.services


@pytest.fixture(autouse=True)
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's logins, and no uploads of other tests."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with running_registry(tmp_path / "registry") as registry:
        yield registry


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return whole_bundle(MODELS / "hf-awq", tmp_path / "bundle")


def _plan(bundle: Bundle, base: Path, tag: str) -> ImagePlan:
    return plan_image(bundle, read_layout(base), BuildOptions(tag=tag), Silent())


@services
def test_an_image_is_pushed_once_and_read_back(bundle: Bundle, registry: Registry, tmp_path: Path) -> None:
    tag = f"{registry.host}/me/tiny:1"
    plan = _plan(bundle, write_base(tmp_path / "base"), tag)

    layers, sent_bytes = push_image(plan, tag, Silent())
    registry.forget_requests()
    again, sent_again = push_image(plan, tag, Silent())

    assert not any(layer.reused for layer in layers)
    assert sent_bytes == sum(layer.size for layer in plan.layers) + len(plan.config)
    assert (sent_again, all(layer.reused for layer in again)) == (0, True)
    assert registry.requests("PUT") == registry.requests("PATCH") == registry.requests("POST") == []
    read = read_registry(tag)
    assert read.image_id == plan.image_id
    assert [b"".join(layer.read(0)) for layer in read.layers] == [b"".join(layer.read(0)) for layer in plan.layers]


@services
def test_another_repository_gets_large_layers_without_sending_them(
    bundle: Bundle, registry: Registry, tmp_path: Path
) -> None:
    base = write_base(tmp_path / "base", {"model": random.Random(1).randbytes(4 * MIB)})
    first, second = f"{registry.host}/me/one:1", f"{registry.host}/me/two:1"
    push_image(_plan(bundle, base, first), first, Silent())

    _, sent_bytes = push_image(_plan(bundle, base, second), second, Silent())

    assert sent_bytes < MIB


PUSH = """
import sys
from pathlib import Path
from deploytk.bundle import read_bundle
from deploytk.image.config import plan_image
from deploytk.image.oci import read_layout
from deploytk.image.registry.push import push_image
from deploytk.image.value import BuildOptions
from deploytk.base.progress import Silent
bundle, base, tag = sys.argv[1:]
plan = plan_image(read_bundle(Path(bundle)), read_layout(Path(base)), BuildOptions(tag=tag), Silent())
print(push_image(plan, tag, Silent())[1])
"""


@services
@pytest.mark.timeout(240)
def test_a_push_that_was_killed_goes_on_inside_the_layer(bundle: Bundle, registry: Registry, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", {"model": random.Random(2).randbytes(LARGE)})
    tag = f"{registry.host}/me/large:1"
    command = [sys.executable, "-c", PUSH, str(bundle.path), str(base), tag]

    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as pushing:
        deadline = time.monotonic() + 60
        while registry.upload_bytes() < 70 * MIB:
            assert pushing.poll() is None, "the push was over before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        pushing.send_signal(signal.SIGKILL)
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    plan = _plan(bundle, base, tag)
    total = sum(layer.size for layer in plan.layers) + len(plan.config)
    # What was there when it was killed is not sent again: at least the first chunk of 64 MiB.
    assert int(done.stdout) <= total - 64 * MIB
    assert read_registry(tag).image_id == plan.image_id


@services
def test_a_registry_that_dies_is_waited_for_and_then_given_up(
    bundle: Bundle, registry: Registry, tmp_path: Path
) -> None:
    tag = f"{registry.host}/me/tiny:1"
    plan = _plan(bundle, write_base(tmp_path / "base"), tag)
    registry.stop(signal.SIGKILL)

    with pytest.raises(DeployError) as caught:
        push_image(plan, tag, Silent(), RetryPolicy(attempts=2, first_s=0.01))

    assert registry.host in str(caught.value)
    registry.start()
    assert push_image(plan, tag, Silent())[1] > 0


@services
def test_a_login_is_needed_and_never_shown(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_registry(tmp_path / "registry", password="s3cret-word") as registry:
        tag = f"{registry.host}/me/tiny:1"
        plan = _plan(bundle, write_base(tmp_path / "base"), tag)
        with pytest.raises(ImageError):
            push_image(plan, tag, Silent())
        monkeypatch.setenv("DEPLOYTK_REGISTRY_USER", "me")
        monkeypatch.setenv("DEPLOYTK_REGISTRY_PASSWORD", "wr0ng-word")
        with pytest.raises(ImageError) as caught:
            push_image(plan, tag, Silent())
        assert "wr0ng-word" not in f"{caught.value} {caught.value.hint}"
        monkeypatch.delenv("DEPLOYTK_REGISTRY_PASSWORD")
        (tmp_path / "docker").mkdir()
        login = base64.b64encode(b"me:s3cret-word").decode()
        (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": login}}}))

        _, sent_bytes = push_image(plan, tag, Silent())

        assert sent_bytes > 0


@services
def test_a_bundle_is_published_as_an_image(bundle: Bundle, registry: Registry, tmp_path: Path) -> None:
    options = BuildOptions(
        tag=f"{registry.host}/me/tiny:1", output="registry", base=f"oci:{write_base(tmp_path / 'base')}"
    )

    image = build_image(bundle, options, Silent())

    assert read_registry(options.tag).image_id == image.image_id
    assert {path.name for path in tmp_path.glob("bundle.*")} == {
        "bundle.sbom.cdx.json", "bundle.lock.json", "bundle.compose.yaml",
    }  # fmt: skip


def test_the_same_image_id_everywhere(bundle: Bundle, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    options = BuildOptions(tag="tiny:1", output=f"oci:{tmp_path / 'a'}", base=f"oci:{base}")
    other = make_bundle(MODELS / "hf-awq", tmp_path / "elsewhere" / "bundle")
    for path in other.path.rglob("*"):
        os.utime(path, (random.Random(str(path)).randrange(10**9), 0))

    first = build_image(bundle, options, Silent())
    second = build_image(other, replace(options, output=f"oci:{tmp_path / 'b'}"), Silent())

    assert (first.image_id, first.digest) == (second.image_id, second.digest)


def test_publishing_needs_a_name(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="--repo"):
        publish_bundle(bundle, Oci(), PublishOptions(), Silent())
