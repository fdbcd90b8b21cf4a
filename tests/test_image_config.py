"""Image config, manifest, labels, bill of materials and lock file: the same everywhere, and nothing secret in them."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import random
import tarfile
from pathlib import Path
from typing import Any

import pytest
from bases import write_base
from bundles import given_bundle, make_bundle
from conftest import MODELS

from deploytk.base.errors import ImageError, UsageError
from deploytk.base.progress import Silent
from deploytk.bundle import Bundle, BundleFile, BundleOptions
from deploytk.image.build import build_image
from deploytk.image.config import LOCK, SBOM, plan_image, start_period_s
from deploytk.image.lock import drift_from, lock_of
from deploytk.image.oci import read_layout
from deploytk.image.sbom import sbom_of
from deploytk.image.value import RUNTIME, Base, BuildOptions, ImagePlan, WeightsSource

OPTIONS = BuildOptions(tag="tiny:1")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    options = BundleOptions(name="tiny", license="apache-2.0", base_model="org/tiny")
    return given_bundle(MODELS / "hf-awq", tmp_path / "bundle", options)


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return read_layout(write_base(tmp_path / "base"))


def _plan(bundle: Bundle, base: Base, options: BuildOptions = OPTIONS) -> ImagePlan:
    return plan_image(bundle, base, options, Silent())


def _config(plan: ImagePlan) -> dict[str, Any]:
    return dict(json.loads(plan.config))


def test_the_container_runs_the_app_as_nobody_in_particular(bundle: Bundle, base: Base) -> None:
    run = _config(_plan(bundle, base))["config"]

    assert (run["User"], run["WorkingDir"], run["Entrypoint"]) == (
        "10001:10001",
        "/bundle",
        ["python", "-I", "-u", "-B", "app.py"],
    )
    assert "Cmd" not in run  # that of the base would be given to the app
    assert (run["StopSignal"], run["ExposedPorts"]) == ("SIGTERM", {"7860/tcp": {}})
    assert run["Env"][:2] == ["PATH=/usr/bin", "HOME=/tmp"]


def test_the_health_check_needs_no_shell_and_no_curl(bundle: Bundle, base: Base) -> None:
    check = _config(_plan(bundle, base))["config"]["Healthcheck"]

    assert check["Test"][:4] == ["CMD", "python", "-I", "-c"]
    assert "'7860') + '/ready" in check["Test"][4]
    compile(check["Test"][4], "probe", "exec")
    assert check["StartPeriod"] == 180 * 10**9  # 120 s and a little, in whole minutes


@pytest.mark.parametrize(
    ("weights_bytes", "mode", "minutes"),
    [
        (0, "layers", 2),
        (5 * 10**9, "layers", 4),  # 120 + 100 s
        (15 * 10**9, "mount", 7),  # 120 + 300 s
        (5 * 10**9, "download", 19),  # 120 + 1000 s
    ],
)
def test_the_start_period_follows_the_weights(bundle: Bundle, weights_bytes: int, mode: Any, minutes: int) -> None:
    files = (BundleFile("w", weights_bytes, "0" * 64, "weights"),)

    assert start_period_s(dataclasses.replace(bundle, files=files), mode) == minutes * 60


def test_labels_tell_what_is_inside(bundle: Bundle, base: Base) -> None:
    labels = _config(_plan(bundle, base))["config"]["Labels"]

    start = "org.opencontainers.image."
    assert labels[f"{start}title"] == "tiny"
    assert labels[f"{start}licenses"] == "apache-2.0"
    assert labels[f"{start}version"] == bundle.digest[7:19]
    assert labels[f"{start}revision"] == hashlib.sha256((bundle.path / "deploytk.json").read_bytes()).hexdigest()
    assert (labels[f"{start}base.name"], labels[f"{start}base.digest"]) == ("runtime:1", base.image_id)
    assert labels[f"{start}created"] == "1970-01-01T00:00:00Z"
    assert labels["ai.deploytk.model"] == "LlamaForCausalLM"
    assert labels["ai.deploytk.quantization"] == "awq-4bit"
    assert labels["ai.deploytk.lmdeploy"] == bundle.manifest.plan.lmdeploy
    assert labels["ai.deploytk.set-digest"] == bundle.digest
    assert int(labels["ai.deploytk.min-vram-mib"]) > 968  # of a running server that has no weights yet
    assert labels["vendor"] == "example"  # the base's own are kept


def test_layers_history_and_manifest_agree(bundle: Bundle, base: Base) -> None:
    plan = _plan(bundle, base)

    config, manifest = _config(plan), json.loads(plan.manifest)
    assert config["rootfs"]["diff_ids"] == [layer.diff_id for layer in plan.layers]
    assert [layer["digest"] for layer in manifest["layers"]] == [layer.digest for layer in plan.layers]
    assert sum(not line.get("empty_layer") for line in config["history"]) == len(plan.layers)
    assert [line["created_by"] for line in config["history"]][:3] == ["base", "ENV", "passwd"]
    assert manifest["config"]["digest"] == plan.image_id == f"sha256:{hashlib.sha256(plan.config).hexdigest()}"
    assert plan.digest == f"sha256:{hashlib.sha256(plan.manifest).hexdigest()}"
    assert plan.layers[1].media_type.endswith("tar+gzip")
    assert plan.layers[1].digest != plan.layers[1].diff_id


def test_two_checkouts_with_shuffled_times_give_the_same_image(bundle: Bundle, tmp_path: Path) -> None:
    options = BundleOptions(name="tiny", license="apache-2.0", base_model="org/tiny")
    other = make_bundle(MODELS / "hf-awq", tmp_path / "other" / "place", options)
    for path in other.path.rglob("*"):
        os.utime(path, (random.random() * 1e9, random.random() * 1e9))
    bases = [read_layout(write_base(tmp_path / place)) for place in ("base", "base-elsewhere")]

    first, second = _plan(bundle, bases[0]), _plan(other, bases[1], BuildOptions(tag="another:2"))

    assert (first.image_id, first.digest) == (second.image_id, second.digest)
    assert str(tmp_path).encode() not in first.config + first.manifest


def test_source_date_epoch_is_the_only_time(bundle: Bundle, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")

    config = _config(_plan(bundle, base))

    assert config["created"] == "2023-11-14T22:13:20Z"


def test_a_wrong_source_date_epoch_is_refused(bundle: Bundle, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")

    with pytest.raises(ImageError, match="SOURCE_DATE_EPOCH is 'yesterday'"):
        _plan(bundle, base)


def test_layers_of_docker_get_their_oci_names(bundle: Bundle, tmp_path: Path) -> None:
    plan = _plan(bundle, read_layout(write_base(tmp_path / "docker", is_docker=True)))

    names = [layer.media_type for layer in plan.layers[:2]]
    assert names == [f"application/vnd.oci.image.layer.v1.tar{end}" for end in ("", "+gzip")]


def test_an_image_for_another_system_is_refused(bundle: Bundle, base: Base) -> None:
    with pytest.raises(ImageError, match="runtime:1 is an image for windows"):
        _plan(bundle, dataclasses.replace(base, config=base.config.replace(b'"linux"', b'"windows"')))


def test_more_layers_than_docker_stacks_are_refused(bundle: Bundle, base: Base) -> None:
    with pytest.raises(ImageError, match="128 layers are more than the 127"):
        _plan(bundle, dataclasses.replace(base, layers=base.layers[:1] * 124))


def test_no_secret_of_this_machine_gets_in(
    bundle: Bundle, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = b"hf_CANARYcanaryCANARYcanaryCANARYcan"
    home = tmp_path / "home"
    (home / ".cache/huggingface").mkdir(parents=True)
    (home / ".cache/huggingface/token").write_bytes(canary)
    (home / ".netrc").write_bytes(b"machine hub login me password " + canary)
    (bundle.path / ".git").mkdir()
    (bundle.path / ".git/config").write_bytes(b"[remote] url = https://me:" + canary + b"@hub")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HF_TOKEN", canary.decode())

    plan = _plan(bundle, base)

    assert canary not in plan.config + plan.manifest
    for layer in plan.layers:
        assert canary not in b"".join(layer.read(0))


def test_the_bill_of_materials_names_weights_and_packages(bundle: Bundle, base: Base) -> None:
    packages = (("torch", "2.8.0+cu128"), ("Typing_Extensions", "4.15.0"))

    document = json.loads(sbom_of(bundle, dataclasses.replace(base, packages=packages)))

    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    model, runtime, *libraries = document["components"]
    weights = {file["name"]: file["hashes"][0]["content"] for file in model["components"]}
    assert weights["model.safetensors"] == next(f.sha256 for f in bundle.files if f.kind == "weights")
    assert runtime["version"] == base.image_id
    assert [library["purl"] for library in libraries] == [
        "pkg:pypi/typing-extensions@4.15.0",
        "pkg:pypi/torch@2.8.0%2Bcu128",
    ]
    references = [c["bom-ref"] for c in (model, runtime, *libraries, *model["components"])]
    assert len(set(references)) == len(references)


def test_the_lock_file_holds_all_that_an_image_is_made_of(bundle: Bundle, base: Base) -> None:
    lock = json.loads(lock_of(bundle, dataclasses.replace(base, packages=(("torch", "2.8.0"),))))

    assert lock["base"] == {"name": "runtime:1", "image_id": base.image_id}
    assert lock["packages"] == {"torch": "2.8.0"}
    assert lock["files"] == {f.path: f.sha256 for f in bundle.files}
    assert lock["layers"]["shard_bytes"] == 64 * 2**20


def test_another_environment_than_that_of_the_lock_file_is_named(bundle: Bundle, base: Base, tmp_path: Path) -> None:
    before = dataclasses.replace(base, packages=(("torch", "2.8.0"), ("numpy", "2.0")))
    lock = tmp_path / "tiny.lock.json"
    lock.write_bytes(lock_of(bundle, before))
    other = dataclasses.replace(base, image_id=f"sha256:{64 * '0'}", packages=(("torch", "2.9.0"), ("numpy", "2.0")))

    drift = drift_from(lock, bundle, other)

    assert drift == (f"base was {base.image_id}, is sha256:{64 * '0'}", "torch was 2.8.0, is 2.9.0")
    assert drift_from(lock, bundle, before) == ()
    assert drift_from(tmp_path / "missing", bundle, other) == ()


def test_a_runtime_of_ours_is_known_by_what_it_is_made_from(bundle: Bundle, base: Base, tmp_path: Path) -> None:
    """Built again, it has other times in its files, and so another image ID."""
    lock = tmp_path / "tiny.lock.json"
    lock.write_bytes(lock_of(bundle, dataclasses.replace(base, reference=f"{RUNTIME}:0123")))
    again = dataclasses.replace(base, image_id=f"sha256:{64 * '0'}", reference=f"{RUNTIME}:0123")

    assert drift_from(lock, bundle, again) == ()
    assert drift_from(lock, bundle, dataclasses.replace(again, reference=f"{RUNTIME}:4567")) != ()


def test_a_locked_build_refuses_another_base(bundle: Bundle, tmp_path: Path) -> None:
    options = BuildOptions("tiny:1", f"oci:{tmp_path / 'layout'}", base=f"oci:{write_base(tmp_path / 'a')}")
    locked = dataclasses.replace(options, is_locked=True)
    other = dataclasses.replace(locked, base=f"oci:{write_base(tmp_path / 'b', upper={'other': b'1'})}")

    with pytest.raises(ImageError, match=r"there is no .*lock\.json"):
        build_image(bundle, locked, Silent())
    first = build_image(bundle, options, Silent())
    again = build_image(bundle, locked, Silent())
    with pytest.raises(ImageError, match=r"the runtime is not that of .*: base was sha256"):
        build_image(bundle, other, Silent())

    assert again.image_id == first.image_id


def test_both_are_in_the_image(bundle: Bundle, base: Base) -> None:
    card = b"".join(_plan(bundle, base).layers[-1].read(0))

    assert SBOM.encode() in card
    assert LOCK.encode() in card
    assert sbom_of(bundle, base) in card


@pytest.mark.parametrize(("weights", "link"), [("layers", "bundle"), ("mount", None), ("download", None)])
def test_where_kserve_looks_for_the_model_there_is_one_where_the_image_has_it(
    bundle: Bundle, base: Base, weights: Any, link: str | None
) -> None:
    source = WeightsSource("https://huggingface.co", "me/tiny", "main") if weights == "download" else None
    options = BuildOptions("a:1", weights=weights, weights_source=source)

    layer = plan_image(bundle, base, options, Silent()).layers[-1]

    with tarfile.open(fileobj=io.BytesIO(b"".join(layer.read(0)))) as archive:
        links = {entry.name: entry.linkname for entry in archive if entry.issym()}
    assert links.get("models") == link


def test_an_image_that_fetches_its_weights_knows_from_where(bundle: Bundle, base: Base) -> None:
    source = WeightsSource("https://hub.example", "me/tiny", "abc123")
    options = dataclasses.replace(OPTIONS, weights="download", weights_source=source)

    plan = plan_image(bundle, base, options, Silent())

    run = _config(plan)["config"]
    with tarfile.open(fileobj=io.BytesIO(b"".join(plan.layers[-1].read(0)))) as card:
        weights, place = card.getmember("bundle/model.safetensors"), card.getmember("weights")
        known = card.extractfile("bundle/model_source.json")
        assert known
        assert json.load(known) == {"endpoint": "https://hub.example", "repo": "me/tiny", "revision": "abc123"}
        assert "bundle/deploytk_app/fetch_model.py" in card.getnames()
    assert "weights" not in {layer.kind for layer in plan.layers}
    assert (weights.issym(), weights.linkname) == (True, "/weights/model.safetensors")
    assert (place.isdir(), place.uid) == (True, 10001)
    assert run["Volumes"] == {"/weights": {}}
    assert "DEPLOYTK_WEIGHTS=/weights" in run["Env"]


def test_weights_that_were_published_nowhere_cannot_be_fetched(bundle: Bundle, base: Base) -> None:
    with pytest.raises(UsageError, match="cannot be fetched from anywhere yet") as caught:
        plan_image(bundle, base, dataclasses.replace(OPTIONS, weights="download"), Silent())

    assert "deploytk publish" in caught.value.hint
