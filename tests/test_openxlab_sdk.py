"""OpenXLab's own package, the real one with the real oss2, against moto: what it breaks, and what is made of it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs
import pytest
from bundles import as_shown_on, given_bundle, whole_bundle
from conftest import MODELS, one_at_a_time
from lying_server import Asked, lying, plain
from openxlab_api import AK, BUCKET, SK, Api, openxlab_api

from deploytk.base.errors import ReleaseError, TryAgainError
from deploytk.base.progress import Silent
from deploytk.bundle import MANIFEST, Bundle, BundleFile, BundleOptions
from deploytk.publish.edited import EditedError
from deploytk.publish.options import PublishOptions
from deploytk.publish.plan import ReleasePlan
from deploytk.publish.record import Release, record_path
from deploytk.publish.release import plan_release, publish_bundle
from deploytk.publish.targets.openxlab import OpenXLab
from deploytk.publish.targets.openxlab.options import OpenXLabOptions
from deploytk.publish.targets.openxlab.sdk import Keys, Sdk, sdk_python

pytestmark = [
    pytest.mark.services,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
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
    with one_at_a_time("openxlab-sdk"):
        return sdk_python(Silent())


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return as_shown_on(whole_bundle(MODELS / "hf-awq", tmp_path / "bundle"), "openxlab", "me/tiny")


BY_SDK = OpenXLabOptions(via="sdk")


def _sdk(python: Path, repo: str = "me/tiny") -> Sdk:
    return Sdk(python, repo, Keys(AK, SK))


def _plan(bundle: Bundle) -> ReleasePlan:
    return OpenXLab(BY_SDK).preview(bundle, PublishOptions(repo="me/tiny"))


def _sent(bundle: Bundle) -> list[BundleFile]:
    """All but the app, which has a directory."""
    return [file for file in bundle.files if file.kind != "app"]


def _publish(bundle: Bundle, **more: object) -> Release:
    options = PublishOptions(repo="me/tiny", **more)  # type: ignore[arg-type]
    return publish_bundle(bundle, OpenXLab(BY_SDK), options, Silent())


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


def test_a_flat_model_and_its_card_are_there_byte_for_byte(api: Api, python: Path, bundle: Bundle) -> None:
    release = _publish(bundle)

    assert set(api.repositories["tiny"]["models"]) == {*(file.path for file in _sent(bundle)), MANIFEST}
    for file in _sent(bundle):
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
    assert "payload" not in str(caught.value)  # it holds a signature that is made of the secret


def test_what_the_package_only_prints_is_an_error(api: Api, python: Path) -> None:
    with pytest.raises(ReleaseError, match=r"refused list: .*does not exist"), _sdk(python, "me/nothing") as sdk:
        sdk.files()


def test_a_hub_that_is_away_says_run_again(api: Api, python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENXLAB_API_ENDPOINT", "http://127.0.0.1:9")

    with pytest.raises(TryAgainError), _sdk(python) as sdk:
        sdk.files()


def test_a_model_with_directories_goes_by_git(tmp_path: Path) -> None:
    bundle = whole_bundle(MODELS / "workspace-0.4.2-awq", tmp_path / "bundle")

    with pytest.raises(ReleaseError, match="keeps no directories"):
        _publish(bundle)


def test_nothing_is_left_in_the_home(api: Api, python: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    with _sdk(python) as sdk:
        sdk.create(whole_bundle(MODELS / "hf-awq", tmp_path / "b"), is_private=True)

    assert not (tmp_path / ".openxlab").exists()
    assert json.dumps(api.repositories["tiny"]["public"]) == "0"


def test_publishing_again_sends_nothing_and_says_by_what_it_knows(api: Api, python: Path, bundle: Bundle) -> None:
    first = _publish(bundle)
    puts = api.puts

    again = _publish(bundle)

    assert (again.uploaded_files, again.uploaded_bytes, api.puts) == (0, 0, puts)
    assert (again.unchanged_files, again.revision) == (len(_sent(bundle)) + 1, first.revision)
    assert "the record of the release" in again.verified_by


def test_what_is_sent_beside_what_the_record_knows_is_downloaded(api: Api, python: Path, bundle: Bundle) -> None:
    _publish(bundle)
    del api.repositories["tiny"]["models"]["README.md"]

    release = _publish(bundle)

    assert release.uploaded_files == 2  # with deploytk.json, which was away meanwhile
    assert "every file that was sent; the others by the names and sizes" in release.verified_by
    assert "the record of the release" in _publish(bundle).verified_by


def test_without_a_record_what_is_there_is_downloaded_and_not_sent_again(
    api: Api, python: Path, bundle: Bundle
) -> None:
    _publish(bundle)
    puts = api.puts
    record_path(bundle).unlink()

    again = _publish(bundle)

    assert (again.uploaded_files, api.puts) == (0, puts)
    assert again.verified_by.startswith("downloading every file")


def test_only_what_changed_is_sent_and_the_plan_says_so(api: Api, python: Path, bundle: Bundle, tmp_path: Path) -> None:
    before = _plan(bundle)
    assert api.repositories == {}
    _publish(bundle)
    same = _plan(bundle)
    made = given_bundle(MODELS / "hf-awq", tmp_path / "other", BundleOptions(name="tiny", license="mit"))
    other = as_shown_on(made, "openxlab", "me/tiny")

    plan = _plan(other)
    release = _publish(other)

    assert {change.status for change in before.changes} == {"new"}
    assert before.upload_bytes == sum(file.size for file in _sent(bundle)) + (bundle.path / MANIFEST).stat().st_size
    assert {change.status for change in same.changes} == {"same"}
    assert "the record of the release" in same.permissions
    assert {change.path for change in plan.changes if change.status == "changed"} == {
        "README.md",
        "README_en.md",
        MANIFEST,
    }
    assert "publish downloads the files to be sure" in plan.permissions
    assert (release.uploaded_files, release.uploaded_bytes) == (3, plan.upload_bytes)
    assert api.content("tiny", "README.md") == (other.path / "README.md").read_bytes()


def test_an_upload_in_several_steps_never_passes_for_a_release(
    api: Api, python: Path, bundle: Bundle, tmp_path: Path
) -> None:
    """The older bundle, whose record says that all is well, has to be sent again after another one broke off."""
    _publish(bundle)
    made = given_bundle(MODELS / "hf-awq", tmp_path / "other", BundleOptions(name="tiny", license="mit"))
    other = as_shown_on(made, "openxlab", "me/tiny")
    api.spoil = "README.md"
    with pytest.raises(ReleaseError, match="came back with other bytes"):
        _publish(other, edited_card="replace")
    api.spoil = None
    assert json.loads(api.content("tiny", MANIFEST)) == {"publishing": other.digest}
    assert {change.status for change in _plan(bundle).changes} == {"changed"}  # nothing tells what is there

    # Whose card lies there, of a bundle that is not this one, nothing tells either.
    release = _publish(bundle, edited_card="replace")

    assert release.uploaded_files == 2
    for path in ("README.md", MANIFEST):
        assert api.content("tiny", path) == (bundle.path / path).read_bytes()


def test_a_file_that_is_not_the_bundles_is_named(api: Api, python: Path, bundle: Bundle) -> None:
    _publish(bundle)
    api.repositories["tiny"]["models"]["old.bin"] = "old.bin"

    assert _publish(bundle).kept_files == ("old.bin",)


@pytest.fixture
def thief() -> Iterator[tuple[str, list[bytes]]]:
    """Another server, and all that it is told."""
    told: list[bytes] = []

    def listen(asked: Asked, send: Callable[[bytes], None]) -> None:
        told.append(asked.head + asked.body)
        send(plain(b"{}"))

    with lying(listen) as url:
        yield url, told


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize("verb", ["auth", "getJwt", "getRepositoryModelList", "createModelRepository", "part"])
def test_a_redirect_takes_keys_sessions_and_signatures_nowhere(
    api: Api, python: Path, bundle: Bundle, thief: tuple[str, list[bytes]], verb: str, status: str
) -> None:
    url, told = thief
    if verb == "part":
        with _sdk(python) as sdk:
            sdk.create(bundle, is_private=True)
    api.leads[verb] = (status, f"{url}/{verb}")

    with pytest.raises(ReleaseError, match="would take the keys elsewhere") as caught:
        _publish(bundle)

    assert told == []
    assert "no key was sent there" in caught.value.hint
    assert not any(secret in str(caught.value) for secret in (AK, SK, "Bearer"))


def test_an_upload_address_of_another_server_gets_nothing(
    api: Api, python: Path, bundle: Bundle, thief: tuple[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the login itself is redirected to a server that plays along."""
    url, told = thief
    api.leads["getUploadSignature"] = ("307 Temporary", url)

    with pytest.raises(ReleaseError, match="would take the keys elsewhere"):
        _publish(bundle)

    assert told == []


def test_a_file_may_lie_elsewhere_and_is_asked_for_without_keys(
    api: Api, python: Path, bundle: Bundle, thief: tuple[str, list[bytes]]
) -> None:
    url, told = thief
    _publish(bundle)
    api.leads["file"] = ("302 Found", f"{url}/file")

    with _sdk(python) as sdk:
        assert sdk.text("README.md") == "{}"

    assert len(told) == 1
    assert not any(secret in told[0] for secret in (AK.encode(), SK.encode(), b"Bearer", b"Authorization"))


def test_a_file_without_encryption_on_another_host_is_not_fetched(api: Api, python: Path, bundle: Bundle) -> None:
    _publish(bundle)
    api.leads["file"] = ("302 Found", "http://203.0.113.7/file")

    with pytest.raises(ReleaseError, match=r"203\.0\.113\.7 without encryption"), _sdk(python) as sdk:
        sdk.text("README.md")


def test_a_file_that_is_led_in_a_circle_is_an_error_in_words(api: Api, python: Path, bundle: Bundle) -> None:
    _publish(bundle)
    api.leads["file"] = ("302 Found", f"{api.url}/files/tiny/README.md")

    with pytest.raises(ReleaseError, match="30 redirects"), _sdk(python) as sdk:
        sdk.text("README.md")


def test_a_card_that_was_edited_there_is_not_written_over(
    api: Api, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = whole_bundle(MODELS / "hf-awq", tmp_path / "bundle")
    _publish(bundle)
    edited = api.content("tiny", "README.md") + b"\nHers.\n"
    api.put("tiny", "README.md", edited)

    with pytest.raises(EditedError, match=r"README\.md of me/tiny was edited there"):
        _publish(bundle)
    [obstacle] = plan_release(bundle, OpenXLab(BY_SDK), PublishOptions(repo="me/tiny"), Silent()).obstacles
    assert "was edited there" in obstacle.message
    assert api.content("tiny", "README.md") == edited

    _publish(bundle, edited_card="keep")

    assert api.content("tiny", "README.md") == edited
    assert "Hers." in (bundle.path / "README_zh.md").read_text()
