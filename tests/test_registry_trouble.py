"""What goes wrong in the middle of a push to Debian's docker-registry, and what users read then."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bases import python_files, write_base
from bundles import make_bundle
from registries import Registry, running_registry
from token_server import running_token_server

from deploytk.base.errors import ImageError, TryAgainError
from deploytk.base.progress import Silent
from deploytk.base.retry import RetryPolicy
from deploytk.bundle import Bundle
from deploytk.image.config import plan_image
from deploytk.image.oci import read_layout
from deploytk.image.reference import parse_reference
from deploytk.image.registry.connection import Connection
from deploytk.image.registry.pull import read_registry
from deploytk.image.registry.push import push_image
from deploytk.image.registry.upload import push_blob
from deploytk.image.value import BuildOptions, ImagePlan

KIB, MIB = 2**10, 2**20
LARGE = 160 * MIB
PASSWORD = "s3cret-word"

pytestmark = [pytest.mark.services, pytest.mark.timeout(240)]


@pytest.fixture(autouse=True)
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's logins."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with running_registry(tmp_path / "registry") as registry:
        yield registry


@pytest.fixture
def bundle(model_copy: Callable[[str], Path], tmp_path: Path) -> Bundle:
    return make_bundle(model_copy("hf-awq"), tmp_path / "bundle")  # a copy: what is linked to it will be changed


def _plan(bundle: Bundle, place: Path, tag: str, *, large_bytes: int = 0) -> ImagePlan:
    files = {"model": random.Random(2).randbytes(large_bytes)} if large_bytes else None
    return plan_image(bundle, read_layout(write_base(place, files)), BuildOptions(tag=tag), Silent())


@contextlib.contextmanager
def _meanwhile(registry: Registry, there_bytes: int, act: Callable[[], None]) -> Iterator[None]:
    """Calls `act` once the registry has so many bytes of an upload."""
    is_over, has_acted = threading.Event(), threading.Event()

    def watch() -> None:
        while not is_over.wait(0.002):
            if registry.upload_bytes() >= there_bytes:
                has_acted.set()
                act()
                return

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        is_over.set()
        watching.join()
    assert has_acted.is_set(), "the push was over before anything could happen to it"


def test_a_registry_that_is_killed_and_comes_back_is_waited_for(
    bundle: Bundle, registry: Registry, tmp_path: Path
) -> None:
    tag = f"{registry.host}/me/large:1"
    plan = _plan(bundle, tmp_path / "base", tag, large_bytes=LARGE)

    def restart() -> None:
        registry.stop(signal.SIGKILL)
        time.sleep(2)
        registry.start()

    with _meanwhile(registry, 70 * MIB, restart):
        _, sent_bytes = push_image(plan, tag, Silent())

    assert read_registry(tag).image_id == plan.image_id
    # It was killed in a chunk, and docker-registry then takes no more of that upload: the layer is sent anew, once.
    total = sum(layer.size for layer in plan.layers) + len(plan.config)
    assert total <= sent_bytes < 2 * total


def test_a_registry_that_does_not_come_back_is_given_up(bundle: Bundle, registry: Registry, tmp_path: Path) -> None:
    tag = f"{registry.host}/me/large:1"
    plan = _plan(bundle, tmp_path / "base", tag, large_bytes=LARGE)
    with (
        _meanwhile(registry, 70 * MIB, lambda: registry.stop(signal.SIGKILL)),
        pytest.raises(TryAgainError, match="does not answer: the connection is refused, 3 times") as caught,
    ):
        push_image(plan, tag, Silent(), RetryPolicy(attempts=3, first_s=0.1))

    assert "run again" in caught.value.hint


def test_weights_that_change_while_they_are_sent_are_named(bundle: Bundle, registry: Registry, tmp_path: Path) -> None:
    tag = f"{registry.host}/me/tiny:1"
    plan = _plan(bundle, tmp_path / "base", tag)
    weights = next(layer for layer in plan.layers if layer.kind == "weights")

    def read(offset: int) -> Iterator[bytes]:
        for piece in weights.read(offset):
            yield piece
            _rewrite_the_end(bundle.path / "model.safetensors")

    changing = tuple(replace(x, read=read) if x is weights else x for x in plan.layers)
    with pytest.raises(ImageError, match=r"model\.safetensors has changed"):
        push_image(replace(plan, layers=changing), tag, Silent())

    assert registry.requests("PUT /v2/me/tiny/manifests") == []


def test_weights_that_change_before_the_rest_of_them_is_sent_are_named(
    bundle: Bundle, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploytk.image.registry.upload.CHUNK_BYTES", 64 * KIB)
    tag = f"{registry.host}/me/tiny:1"
    plan = _plan(bundle, tmp_path / "base", tag)
    weights = next(layer for layer in plan.layers if layer.kind == "weights")
    with Connection(parse_reference(tag), None) as connection, pytest.raises(InterruptedError):
        push_blob(connection, weights, lambda _: None, lambda: registry.upload_bytes() > 64 * KIB)
    _rewrite_the_end(bundle.path / "model.safetensors")

    with pytest.raises(ImageError, match=r"model\.safetensors has changed"):
        push_image(plan, tag, Silent())

    assert registry.requests("PUT /v2/me/tiny/manifests") == []


def _rewrite_the_end(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(-16, os.SEEK_END)
        opened.write(b"other weights...")


@pytest.mark.parametrize(("password", "said"), [("", "asks for a login"), ("wr0ng-word", "does not accept the login")])
def test_a_login_that_does_not_work_is_said_in_two_lines(
    bundle: Bundle, tmp_path: Path, password: str, said: str
) -> None:
    with running_registry(tmp_path / "registry", password=PASSWORD) as registry:
        done = subprocess.run(
            _build(bundle, tmp_path, f"{registry.host}/me/tiny:1"),
            env=os.environ | {"DEPLOYTK_REGISTRY_USER": "me", "DEPLOYTK_REGISTRY_PASSWORD": password},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        lines = done.stderr.splitlines()[-2:]
        assert (done.returncode, done.stdout) == (1, "")
        assert lines[0] == f"error: {registry.host} {said}"
        assert lines[1].startswith(f" hint: run: docker login {registry.host}   or ")
        assert "DEPLOYTK_REGISTRY_USER and DEPLOYTK_REGISTRY_PASSWORD" in lines[1]
        assert "wr0ng-word" not in done.stderr


def test_a_password_is_seen_nowhere(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the arguments of any process, in the output, in the registry's log or in what is kept on disk."""
    monkeypatch.setenv("DEPLOYTK_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "docker").mkdir()
    entry = {"auth": base64.b64encode(f"me:{PASSWORD}".encode()).decode()}
    with running_registry(tmp_path / "registry", password=PASSWORD) as registry:
        (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": {registry.host: entry}}))
        write_base(tmp_path / "base", {**python_files(), "model": random.Random(3).randbytes(LARGE)})
        command = _build(bundle, tmp_path, f"{registry.host}/me/large:1")
        seen: set[str] = set()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as building:
            while building.poll() is None:
                seen |= _processes()
                time.sleep(0.01)
            assert building.stdout
            output = building.stdout.read()

        assert building.returncode == 0, output
        assert any("upload_child.py" in line for line in seen)
        kept = b"".join(path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file())
        log = (tmp_path / "registry" / "log").read_text()
        for secret in (PASSWORD, entry["auth"]):
            assert not [line for line in seen if secret in line]
            assert secret not in output + log + kept.decode(errors="replace")


def test_tokens_of_a_token_server_are_fetched_and_renewed_in_the_middle_of_a_layer(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploytk.image.registry.upload.CHUNK_BYTES", 64 * KIB)
    monkeypatch.setenv("DEPLOYTK_REGISTRY_USER", "me")
    monkeypatch.setenv("DEPLOYTK_REGISTRY_PASSWORD", PASSWORD)
    certificate = tmp_path / "certificate"
    with (
        running_token_server(certificate, "me", PASSWORD) as tokens,
        running_registry(
            tmp_path / "registry", tokens=tokens.settings | {"rootcertbundle": str(certificate)}
        ) as registry,
    ):
        tag = f"{registry.host}/me/tiny:1"
        plan = _plan(bundle, tmp_path / "base", tag)
        weights = next(layer for layer in plan.layers if layer.kind == "weights")
        tokens.lifetime_s = 3
        pauses = iter([0.0, 4.0])

        def read(offset: int) -> Iterator[bytes]:
            for piece in weights.read(offset):
                time.sleep(next(pauses, 0.0))
                yield piece

        slow = tuple(replace(x, read=read) if x is weights else x for x in plan.layers)
        _, sent_bytes = push_image(replace(plan, layers=slow), tag, Silent())
        refused = [line for line in registry.requests("PATCH") if '" 401 ' in line]
        tokens.lifetime_s = 300
        _, sent_again = push_image(plan, tag, Silent())

    assert refused
    assert {scope.rpartition(":")[0] for scopes in tokens.scopes for scope in scopes} == {"repository:me/tiny"}
    # Only chunks that were refused may have been sent twice.
    total = sum(layer.size for layer in plan.layers) + len(plan.config)
    assert total <= sent_bytes <= total + len(refused) * 64 * KIB
    assert sent_again == 0


def test_a_layer_is_mounted_from_another_repository_with_a_token_for_both(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPLOYTK_REGISTRY_USER", "me")
    monkeypatch.setenv("DEPLOYTK_REGISTRY_PASSWORD", PASSWORD)
    certificate = tmp_path / "certificate"
    with (
        running_token_server(certificate, "me", PASSWORD) as tokens,
        running_registry(
            tmp_path / "registry", tokens=tokens.settings | {"rootcertbundle": str(certificate)}
        ) as registry,
    ):
        plan = _plan(bundle, tmp_path / "base", f"{registry.host}/me/one:1")
        push_image(plan, f"{registry.host}/me/one:1", Silent())

        _, sent_bytes = push_image(plan, f"{registry.host}/me/two:1", Silent())

    assert {"repository:me/one", "repository:me/two"} in [
        {scope.rpartition(":")[0] for scope in scopes} for scopes in tokens.scopes
    ]
    assert sent_bytes < MIB  # the weights, 1.9 MB, are not among them


def _build(bundle: Bundle, place: Path, tag: str) -> list[str]:
    base = place / "base"
    if not base.exists():
        write_base(base)
    options = ["-t", tag, "--output", "registry", "--base", f"oci:{base}"]
    return [sys.executable, "-m", "deploytk", "build", str(bundle.path), *options]


def _processes() -> set[str]:
    """The arguments of every process."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.add(path.read_text(errors="replace").replace("\0", " "))
    return found
