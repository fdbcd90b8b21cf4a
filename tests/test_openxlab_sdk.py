"""OpenXLab's own package, the real one with the real oss2, against moto: what it breaks, and what is made of it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import pytest
from bundles import make_bundle
from conftest import MODELS
from openxlab_api import AK, BUCKET, SK, Api, openxlab_api

from deploytk.bundle import Bundle
from deploytk.errors import ReleaseError, TryAgainError
from deploytk.progress import Silent
from deploytk.release import PublishOptions, Release, publish_bundle
from deploytk.targets.openxlab import OpenXLab
from deploytk.targets.openxlab.sdk import Keys, Sdk, sdk_python

pytestmark = [
    pytest.mark.services,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.xdist_group("openxlab-sdk"),
]

# Uploads ABCDEF in six parts of 100 KiB; the first run is cut at part 4, the second resumes.
RESUME = """
import json, os, sys
from openxlab.model.clients.oss_client import OssClient
client = OssClient(sys.argv[1], "x", "x", "x", sys.argv[2])
for attempt in range(2):
    try:
        client.multipart_resume_upload(sys.argv[3], "resumed/file", "", "", domain="bucket")
    except Exception as error:
        print("broke off:", error)
"""


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    pytest.importorskip("moto")
    with openxlab_api() as api:
        monkeypatch.setenv("OPENXLAB_API_ENDPOINT", api.url)
        monkeypatch.setenv("OPENXLAB_OSS_ENDPOINT", api.oss_url)
        monkeypatch.setenv("OPENXLAB_AK", AK)
        monkeypatch.setenv("OPENXLAB_SK", SK)
        yield api


@pytest.fixture
def python(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment of openxlab, kept between runs of the tests."""
    monkeypatch.setenv("DEPLOYTK_CACHE_DIR", str(platformdirs.user_cache_path("deploytk-tests")))
    return sdk_python(Silent())


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(MODELS / "hf-awq", tmp_path / "bundle")


def _publish(bundle: Bundle, **more: object) -> Release:
    options = PublishOptions(repo="me/tiny", via="sdk", **more)  # type: ignore[arg-type]
    return publish_bundle(bundle, OpenXLab(), options, Silent())


def test_the_package_itself_corrupts_an_upload_that_it_resumes(api: Api, python: Path, tmp_path: Path) -> None:
    """The reason why none is ever resumed here: same length, told as a success, and the wrong bytes."""
    parts = [letter.encode() * (100 * 1024) for letter in "ABCDEF"]
    path = tmp_path / "file"
    path.write_bytes(b"".join(parts))
    (tmp_path / ".openxlab").mkdir()
    api.fail_put = 4

    done = subprocess.run(
        [str(python), "-c", RESUME, api.oss_url, BUCKET, str(path)],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip

    assert "broke off" in done.stdout
    assert "Successfully uploaded" in done.stdout
    stored = api.content("resumed", "file")
    assert len(stored) == 600 * 1024
    assert stored[:: 100 * 1024] == b"ABCABC"


def test_a_flat_bundle_is_there_byte_for_byte(api: Api, python: Path, bundle: Bundle) -> None:
    release = _publish(bundle)

    for file in bundle.files:
        assert api.content("tiny", file.path) == (bundle.path / file.path).read_bytes()
    assert api.repositories["tiny"]["public"] == 0
    assert release.verified_by == "downloading every file and comparing its SHA-256"
    assert "collect" not in api.calls  # nothing is reported to the telemetry server


def test_an_upload_that_broke_off_starts_anew_and_is_right(api: Api, python: Path, bundle: Bundle) -> None:
    api.fail_put = 8

    _publish(bundle)

    assert api.content("tiny", "model.safetensors") == (bundle.path / "model.safetensors").read_bytes()


def test_public_is_said_to_the_hub(api: Api, python: Path, bundle: Bundle) -> None:
    _publish(bundle, is_private=False)

    assert api.repositories["tiny"]["public"] == 1


def test_other_bytes_on_the_hub_are_an_error(api: Api, python: Path, bundle: Bundle) -> None:
    api.spoil = "README.md"

    with pytest.raises(ReleaseError, match=r"README\.md came back with other bytes"):
        _publish(bundle)


def test_a_wrong_key_is_an_error_and_never_shown(
    api: Api, python: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENXLAB_SK", "wrong-secret")

    with pytest.raises(ReleaseError, match="does not take the access key") as caught:
        _publish(bundle)

    assert "wrong-secret" not in str(caught.value)


def test_what_the_package_only_prints_is_an_error(api: Api, python: Path) -> None:
    with pytest.raises(ReleaseError, match=r"refused list: .*does not exist"):
        Sdk(python, "me/nothing", Keys(AK, SK)).files()


def test_a_hub_that_is_away_says_run_again(api: Api, python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENXLAB_API_ENDPOINT", "http://127.0.0.1:9")

    with pytest.raises(TryAgainError):
        Sdk(python, "me/tiny", Keys(AK, SK)).files()


def test_a_bundle_with_directories_goes_by_git(tmp_path: Path) -> None:
    bundle = make_bundle(MODELS / "workspace-0.4.2-awq", tmp_path / "bundle")

    with pytest.raises(ReleaseError, match="keeps no directories"):
        _publish(bundle)


def test_nothing_is_left_in_the_home(api: Api, python: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    Sdk(python, "me/tiny", Keys(AK, SK)).create(make_bundle(MODELS / "hf-awq", tmp_path / "b"), is_private=True)

    assert not (tmp_path / ".openxlab").exists()
    assert json.dumps(api.repositories["tiny"]["public"]) == "0"
