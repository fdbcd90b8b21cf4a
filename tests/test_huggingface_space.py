"""The app as a Space: created once, waited for until this very commit answers, told apart when it does not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from bundles import Notes, given_bundle
from conftest import MODELS
from hf_hub import READER, WRITER, Hub, hf_hub
from huggingface_hub import constants

from deploytk.base.errors import ReleaseError, TryAgainError
from deploytk.base.progress import Progress, Silent
from deploytk.bundle import Bundle, BundleOptions
from deploytk.publish.options import PublishOptions
from deploytk.publish.record import Release
from deploytk.publish.release import publish_bundle
from deploytk.publish.targets.huggingface import HuggingFace
from deploytk.publish.targets.huggingface.options import HuggingFaceOptions

APP = "me/tiny-app"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with hf_hub(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", WRITER)
        monkeypatch.setenv("HF_APP_TOKEN", READER)
        yield hub


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return given_bundle(MODELS / "hf-awq", tmp_path / "bundle", BundleOptions(name="tiny", license="mit"))


def _publish(bundle: Bundle, *, wait_s: float = 5.0, progress: Progress | None = None, **more: Any) -> Release:
    own = HuggingFaceOptions(app=True, wait=wait_s, **{"app_hardware": "t4-small", **more})
    target = HuggingFace(own, patience_s=3.0, poll_s=0.02)
    return publish_bundle(bundle, target, PublishOptions(repo="me/tiny"), progress or Silent())


def test_the_space_is_the_app_and_says_where_the_model_is(hub: Hub, bundle: Bundle) -> None:
    release = _publish(bundle)

    files = hub.commits(APP, "spaces")[-1]["files"]
    source = yaml.safe_load(hub.content(files["model_source.json"]))
    readme = hub.content(files["README.md"]).decode()
    state = hub.load("spaces", APP) or {}
    assert len(hub.commits(APP, "spaces")) == 2
    assert "model.safetensors" not in files
    assert {"app.py", "Dockerfile", "deploytk_app/fetch_model.py", "deploytk.json", "requirements.txt"} <= files.keys()
    assert source == {"endpoint": hub.url, "repo": "me/tiny", "revision": release.revision}
    assert yaml.safe_load(readme.split("---")[1])["suggested_hardware"] == "t4-small"
    assert (state["sdk"], state["hardware"], state["private"]) == ("docker", "t4-small", True)
    assert release.steps_left == (f"test it: deploytk smoke {hub.url}/apps/{APP}",)


def test_a_space_is_built_with_the_planned_lmdeploy_and_fetches_last(hub: Hub, tmp_path: Path) -> None:
    bundle = given_bundle(MODELS / "workspace-0.4.2-awq", tmp_path / "old", BundleOptions(name="tiny", license="mit"))

    _publish(bundle)

    dockerfile = hub.content(hub.commits(APP, "spaces")[-1]["files"]["Dockerfile"]).decode()
    planned = bundle.manifest.plan.lmdeploy
    assert f"ARG LMDEPLOY_VERSION={planned}\n" in dockerfile
    assert "ARG BASE_IMAGE=nvidia/cuda:12.4.1-base-ubuntu22.04\n" in dockerfile
    assert dockerfile.endswith("python -I deploytk_app/fetch_model.py\nUSER 10001:10001\n")


def test_secrets_come_from_the_environment_and_are_in_no_file(hub: Hub, bundle: Bundle) -> None:
    _publish(bundle)

    created = [path for kind, path in hub.requests if kind == "create"]
    assert len(created) == 2
    assert hub.load("spaces", APP)["secrets"] == {"HF_TOKEN": READER}  # type: ignore[index]
    for file in hub.commits(APP, "spaces")[-1]["files"].values():
        assert READER.encode() not in hub.content(file)


def test_publishing_the_app_again_commits_nothing(hub: Hub, bundle: Bundle) -> None:
    _publish(bundle)
    hub.requests.clear()

    _publish(bundle)

    assert "commit" not in {kind for kind, _ in hub.requests}
    assert len(hub.requests) <= 10


def test_what_the_hub_says_of_an_older_commit_does_not_count(hub: Hub, bundle: Bundle) -> None:
    old = {"stage": "RUNNING", "sha": "0" * 40}
    hub.runtimes = [old, old, {**old, "stage": "RUNTIME_ERROR"}, {"stage": "BUILDING"}, {"stage": "APP_STARTING"}, {}]
    hub.app_answers = [503, {"state": "loading", "detail": ""}, {"state": "ready"}]
    notes = Notes()

    _publish(bundle, progress=notes)

    told = [line for line in notes.lines if "the Space" in line]
    assert told == ["the Space is building", "the Space is starting", "the Space is loading the model"]


def test_a_build_that_fails_shows_the_end_of_its_log(hub: Hub, bundle: Bundle) -> None:
    hub.runtimes = [{"stage": "BUILD_ERROR", "errorMessage": "exit code 1"}]
    hub.logs = tuple(f"step {number}" for number in range(40))

    with pytest.raises(ReleaseError, match="BUILD_ERROR exit code 1") as caught:
        _publish(bundle)

    assert "step 39" in str(caught.value)
    assert "step 20" not in str(caught.value)


def test_an_app_that_says_that_it_failed_is_believed(hub: Hub, bundle: Bundle) -> None:
    hub.app_answers = [{"state": "failed", "detail": "model.safetensors is missing"}]

    with pytest.raises(ReleaseError, match=r"model\.safetensors is missing"):
        _publish(bundle)


@pytest.mark.parametrize(
    "said", ["Scheduling failure: not enough hardware capacity", "0/3 nodes: unable to schedule your Space"]
)
def test_no_capacity_is_try_again_later_and_the_space_is_started_again(hub: Hub, bundle: Bundle, said: str) -> None:
    hub.runtimes = [{"stage": "RUNTIME_ERROR", "errorMessage": said}]

    with pytest.raises(TryAgainError, match="no hardware free") as caught:
        _publish(bundle, wait_s=0.3)

    assert caught.value.exit_code == 75
    assert [path for kind, path in hub.requests if path.endswith("/restart")]


def test_capacity_that_comes_within_the_wait_is_taken(hub: Hub, bundle: Bundle) -> None:
    hub.runtimes = [{"stage": "RUNTIME_ERROR", "errorMessage": "Scheduling failure: not enough hardware capacity"}, {}]

    assert _publish(bundle).steps_left


def test_a_space_that_takes_longer_than_the_wait_is_try_again_later(hub: Hub, bundle: Bundle) -> None:
    hub.runtimes = [{"stage": "BUILDING"}]

    with pytest.raises(TryAgainError, match="still building"):
        _publish(bundle, wait_s=0.3)


def test_running_without_an_answer_is_not_ready(hub: Hub, bundle: Bundle) -> None:
    hub.app_answers = [404]

    with pytest.raises(TryAgainError, match="still starting"):
        _publish(bundle, wait_s=0.3)


def test_a_plan_that_must_be_paid_for_is_said_and_the_model_stays(hub: Hub, bundle: Bundle) -> None:
    hub.is_compute_free = False

    with pytest.raises(ReleaseError, match="wants a paid plan for me/tiny-app") as caught:
        _publish(bundle)

    assert "pricing" in caught.value.hint
    assert len(hub.commits("me/tiny")) == 2


def test_no_gpu_is_ever_ordered_unasked(hub: Hub, bundle: Bundle) -> None:
    release = _publish(bundle, app_hardware=None)

    assert "--app-hardware t4-small" in release.steps_left[0]
    assert "hardware" not in (hub.load("spaces", APP) or {})


def test_hardware_of_a_space_that_is_there_is_changed_when_asked_for(hub: Hub, bundle: Bundle) -> None:
    _publish(bundle, app_hardware=None)

    _publish(bundle)

    assert (hub.load("spaces", APP) or {})["hardware"] == "t4-small"


def test_a_private_model_needs_a_token_for_its_app_before_anything_is_sent(
    hub: Hub, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_APP_TOKEN")

    with pytest.raises(ReleaseError, match="could not read its model") as caught:
        _publish(bundle)

    assert "HF_APP_TOKEN" in caught.value.hint
    assert hub.received_bytes == 0


def _space(hub: Hub, bundle: Bundle, out: Path) -> Path:
    """What a build of the Space has in its directory."""
    _publish(bundle)
    out.mkdir()
    for path, file in hub.commits(APP, "spaces")[-1]["files"].items():
        (out / path).parent.mkdir(exist_ok=True)
        (out / path).write_bytes(hub.content(file))
    return out


def _fetch(space: Path, token: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "deploytk_app/fetch_model.py"],
        cwd=space,
        env={"HF_TOKEN": token, "DEPLOYTK_FETCH_PAUSE_S": "0.01"},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_the_build_of_the_space_brings_the_model_whole(hub: Hub, bundle: Bundle, tmp_path: Path) -> None:
    space = _space(hub, bundle, tmp_path / "space")
    hub.faults["resolve"] = [503, "cut", "lost", "half"]

    done = _fetch(space, READER)

    assert done.returncode == 0, done.stderr
    assert len(hub.ranges) == 1  # the rest of what was cut off
    assert hub.ranges[0] > 0
    for file in bundle.files:
        if file.kind in ("weights", "model"):
            assert (space / file.path).read_bytes() == (bundle.path / file.path).read_bytes()


def test_the_build_says_when_it_may_not_read_the_model(hub: Hub, bundle: Bundle, tmp_path: Path) -> None:
    space = _space(hub, bundle, tmp_path / "space")

    done = _fetch(space, "")

    assert done.returncode == 1
    assert done.stderr.strip().endswith("set HF_TOKEN (a Space: its secret of that name) to a token that may read it")
