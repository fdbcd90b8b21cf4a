"""The Space before it exists: what `--plan` says, which hardware and SDK it can have, and its files really run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plain_http
import pytest
import yaml
from apps import running_app
from bundles import Notes, as_shown_on, given_bundle, make_bundle
from conftest import MODELS
from hf_hub import READER, WRITER, Hub, hf_hub
from huggingface_hub import SpaceHardware, constants

from deploytk.base.errors import ReleaseError, UsageError
from deploytk.base.progress import Silent
from deploytk.bundle import Bundle, BundleOptions
from deploytk.display import show_release_plan
from deploytk.plan import PlanRequest
from deploytk.publish.options import PublishOptions
from deploytk.publish.release import publish_bundle
from deploytk.publish.targets.huggingface import HuggingFace
from deploytk.publish.targets.huggingface.hardware import check_hardware, suggested_hardware
from deploytk.publish.targets.huggingface.options import HuggingFaceOptions

APP = "me/tiny-app"
PRIVATE = PublishOptions(repo="me/tiny")
PUBLIC = dataclasses.replace(PRIVATE, is_private=False)
DOCKER = HuggingFaceOptions(app=True, wait=0)
GRADIO = HuggingFaceOptions(app_sdk="gradio", wait=0)


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
    made = given_bundle(MODELS / "hf-awq", tmp_path / "bundle", BundleOptions(name="tiny", license="mit"))
    return as_shown_on(made, "huggingface", "me/tiny")


def _publish(bundle: Bundle, options: PublishOptions, own: HuggingFaceOptions = DOCKER) -> None:
    publish_bundle(bundle, HuggingFace(own, patience_s=3.0, poll_s=0.02), options, Silent())


def _space(hub: Hub) -> dict[str, bytes]:
    files = hub.commits(APP, "spaces")[-1]["files"]
    return {path: hub.content(file) for path, file in files.items()}


def _front(readme: bytes) -> dict[str, Any]:
    front = yaml.safe_load(readme.decode().split("---\n")[1])
    assert isinstance(front, dict)
    return front


def test_the_plan_shows_the_space_and_changes_nothing(
    hub: Hub, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    own = HuggingFaceOptions(app_hardware="t4-small")

    plan = HuggingFace(own, patience_s=3.0).preview(bundle, PRIVATE)

    assert plan.app
    assert plan.app.place == f"{hub.url}/spaces/{APP}"
    assert (plan.app.sdk, plan.app.hardware, plan.app.is_private) == ("docker", "t4-small", True)
    assert plan.app.secrets == ("HF_TOKEN",)
    assert {change.status for change in plan.app.changes} == {"new"}
    assert plan.app.upload_bytes == sum(change.bytes for change in plan.app.changes) > 0
    assert hub.load("spaces", APP) is None
    assert hub.load("models", "me/tiny") is None
    show_release_plan(plan)
    shown = capsys.readouterr().out
    assert "docker, t4-small" in shown
    assert READER not in shown


def test_the_plan_of_what_is_there_says_the_same(hub: Hub, bundle: Bundle) -> None:
    _publish(bundle, PRIVATE)

    plan = HuggingFace(DOCKER, patience_s=3.0).preview(bundle, PRIVATE)

    assert plan.app
    assert {change.status for change in (*plan.changes, *plan.app.changes)} == {"same"}


def test_a_space_of_gradios_sdk_has_its_model_preloaded(hub: Hub, bundle: Bundle) -> None:
    _publish(bundle, PUBLIC, GRADIO)

    space = _space(hub)
    front = _front(space["README.md"])
    revision = hub.commits("me/tiny")[-1]["oid"]
    assert (front["sdk"], front["app_file"], front["suggested_hardware"]) == ("gradio", "app.py", "t4-small")
    assert front["sdk_version"].startswith("6.")
    [preloaded] = front["preload_from_hub"]
    repo, names, commit = preloaded.split(" ")
    assert (repo, commit) == ("me/tiny", revision)
    assert set(names.split(",")) == {f.path for f in bundle.files if f.kind in ("weights", "model")}
    assert "Dockerfile" not in space
    planned = bundle.manifest.plan.lmdeploy
    assert f"lmdeploy=={planned}\n".encode() in space["requirements.txt"]
    assert hub.load("spaces", APP)["sdk"] == "gradio"  # type: ignore[index]


def test_a_private_model_is_not_preloaded_but_fetched(hub: Hub, bundle: Bundle) -> None:
    """The hub cannot preload it: the app fetches it when it starts, by the secret HF_TOKEN."""
    _publish(bundle, PRIVATE, GRADIO)

    space = _space(hub)
    assert "preload_from_hub" not in _front(space["README.md"])
    assert "deploytk_app/fetch_model.py" in space
    assert hub.load("spaces", APP)["secrets"] == {"HF_TOKEN": READER}  # type: ignore[index]


def test_a_legacy_lmdeploy_cannot_run_beside_gradio(hub: Hub, tmp_path: Path) -> None:
    bundle = given_bundle(MODELS / "workspace-0.7.3-awq", tmp_path / "old", BundleOptions(name="tiny", license="mit"))

    with pytest.raises(UsageError, match=r"LMDeploy 0\.7\.3 cannot share") as caught:
        _publish(bundle, PUBLIC, GRADIO)

    assert "--app-sdk docker" in caught.value.hint
    assert hub.load("models", "me/tiny") is None


def test_an_unknown_hardware_is_refused_before_anything_is_sent(hub: Hub, bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="no hardware 'h100'") as caught:
        _publish(bundle, PRIVATE, HuggingFaceOptions(app_hardware="h100"))

    assert "a100-large" in caught.value.hint
    assert hub.load("spaces", APP) is None


def test_without_a_token_a_private_space_cannot_read_its_model(
    hub: Hub, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_APP_TOKEN")

    with pytest.raises(ReleaseError, match="is private") as caught:
        _publish(bundle, PRIVATE)
    plan = HuggingFace(DOCKER, patience_s=3.0).preview(bundle, PRIVATE)

    assert "HF_APP_TOKEN" in caught.value.hint
    assert [obstacle.message for obstacle in plan.obstacles] == [str(caught.value)]
    assert hub.load("models", "me/tiny") is None  # a run that refuses has created nothing
    assert hub.load("spaces", APP) is None


def _planned(bundle: Bundle, gib: float, tensor_parallel: int = 1) -> Bundle:
    plan = bundle.manifest.plan
    vram = dataclasses.replace(plan.vram, total_bytes=int(gib * 2**30))
    plan = dataclasses.replace(plan, vram=vram, tensor_parallel=tensor_parallel)
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, plan=plan))


@pytest.mark.parametrize(
    ("gib", "tensor_parallel", "expected"),
    [
        (14.0, 1, "t4-small"),
        (14.5, 1, "l4x1"),  # more than nine tenths of 16
        (30.0, 1, "l40sx1"),
        (70.0, 1, "a100-large"),
        (14.0, 2, "a10g-largex2"),
        (70.0, 4, "a100x4"),
        (500.0, 1, "a100x8"),  # nothing fits
    ],
)
def test_the_cheapest_hardware_that_fits_is_suggested(
    bundle: Bundle, gib: float, tensor_parallel: int, expected: str
) -> None:
    assert suggested_hardware(_planned(bundle, gib, tensor_parallel)) == expected


def test_every_gpu_that_spaces_have_is_known(bundle: Bundle) -> None:
    small = _planned(bundle, 1.0)

    doubts = {hardware.value: check_hardware(hardware.value, small) for hardware in SpaceHardware}

    assert {name for name, doubt in doubts.items() if doubt} == {"cpu-basic", "cpu-upgrade", "zero-a10g"}


def test_hardware_that_is_too_small_is_said(hub: Hub, bundle: Bundle) -> None:
    notes = Notes()
    large = _planned(bundle, 20.0)

    plan = HuggingFace(HuggingFaceOptions(app_hardware="t4-small"), patience_s=3.0).preview(large, PRIVATE)

    assert plan.app
    assert plan.app.doubt == "t4-small is too small: the plan takes 20.0 GiB; take l4x1"
    assert notes.lines == []


@pytest.mark.engine
def test_the_files_of_a_space_run_with_what_was_preloaded(hub: Hub, tmp_path: Path) -> None:
    request, options = PlanRequest(serving_engine="cpu"), BundleOptions(name="tiny", license="mit", app="api")
    bundle = make_bundle(MODELS / "hf-awq", tmp_path / "bundle", options, request)
    _publish(bundle, PUBLIC, GRADIO)
    space = tmp_path / "space"
    for path, content in _space(hub).items():
        (space / path).parent.mkdir(parents=True, exist_ok=True)
        (space / path).write_bytes(content)
    repo, names, revision = _front(_space(hub)["README.md"])["preload_from_hub"][0].split(" ")
    cache = tmp_path / "home" / ".cache" / "huggingface" / "hub" / f"models--{repo.replace('/', '--')}"
    for name in names.split(","):
        blob, link = cache / "blobs" / name, cache / "snapshots" / revision / name
        for place in (blob, link):
            place.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes((bundle.path / name).read_bytes())
        link.symlink_to(blob)
    hub.requests.clear()
    [first, *_] = json.loads((MODELS / "dialogs.json").read_text(encoding="utf-8"))

    with running_app(space, tmp_path / "app.log", {"HOME": str(tmp_path / "home")}) as app:
        app.wait("ready", within_s=120)
        body = {"model": "tiny", "messages": [{"role": "user", "content": first["prompt"]}], "temperature": 0}
        answer = plain_http.post(f"{app.url}/v1/chat/completions", json=body, timeout=60).json()

    assert answer["choices"][0]["message"]["content"] == first["answer"]
    assert hub.requests == []  # nothing was downloaded
