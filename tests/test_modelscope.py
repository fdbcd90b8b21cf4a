"""ModelScope, with the real client: private first, only what differs, verified by the hub's own listing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from bundles import as_shown_on, given_bundle, make_bundle, whole_bundle
from conftest import MODELS
from modelscope_server import READER, WRITER, ModelScopeServer, Repository

from deploytk.base.errors import ReleaseError, TryAgainError, UsageError
from deploytk.base.progress import Silent
from deploytk.bundle import MANIFEST, Bundle, BundleOptions
from deploytk.publish.options import PublishOptions
from deploytk.publish.record import Release
from deploytk.publish.release import publish_bundle
from deploytk.publish.target import find_target

pytest.importorskip("modelscope_hub")
from deploytk.publish.targets.modelscope import ModelScope
from deploytk.publish.targets.modelscope.options import ModelScopeOptions
from deploytk.publish.targets.modelscope.studio import usual_address

REPO = "me/tiny"


@pytest.fixture
def hub(modelscope_hub: ModelScopeServer) -> ModelScopeServer:
    return modelscope_hub


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return as_shown_on(
        whole_bundle(MODELS / "workspace-0.4.2-awq", tmp_path / "bundle"),
        "modelscope",
        REPO,
    )


def _publish(bundle: Bundle, *, is_private: bool = True, repo: str | None = REPO) -> Release:
    options = PublishOptions(repo=repo, is_private=is_private)
    return publish_bundle(bundle, ModelScope(), options, Silent())


def _files(bundle: Bundle) -> dict[str, bytes]:
    return {path: (bundle.path / path).read_bytes() for path in [*(file.path for file in bundle.files), MANIFEST]}


def test_a_bundle_arrives_whole_in_a_private_repository(hub: ModelScopeServer, bundle: Bundle) -> None:
    release = _publish(bundle)

    repository = hub.repositories[REPO]
    assert {**repository.files, ".gitattributes": b""} == {**_files(bundle), ".gitattributes": b""}
    assert repository.visibility == 1
    assert [call for call in hub.requests if call == "POST /api/v1/models"][:1]
    assert release.uploaded_files == len(bundle.files) + 1
    assert release.verified_by.startswith("the hub's listing")


def test_it_is_found_by_its_name() -> None:
    assert find_target("modelscope").about.name == "modelscope"


def test_it_never_is_public_for_a_moment(hub: ModelScopeServer, bundle: Bundle) -> None:
    """The client's uploader asks for a public repository by itself: ours has to be there before."""
    _publish(bundle)

    creations = [number for number, call in enumerate(hub.requests) if call == "POST /api/v1/models"]
    batches = [number for number, call in enumerate(hub.requests) if "/batch" in call or "/commit/" in call]
    assert creations[0] < min(batches)
    assert hub.repositories[REPO].visibility == 1


def test_publishing_again_sends_nothing(hub: ModelScopeServer, bundle: Bundle) -> None:
    _publish(bundle)
    hub.requests.clear()
    puts, commits = hub.puts, len(hub.repositories[REPO].commits)

    again = _publish(bundle)

    assert (again.uploaded_files, again.uploaded_bytes) == (0, 0)
    assert (hub.puts, len(hub.repositories[REPO].commits)) == (puts, commits)
    assert len(hub.requests) <= 10


def test_only_what_changed_is_sent_and_what_is_gone_is_deleted(
    hub: ModelScopeServer, bundle: Bundle, tmp_path: Path
) -> None:
    _publish(bundle)
    puts = hub.puts
    options = BundleOptions(name="tiny", license="mit", app="api")
    made = given_bundle(MODELS / "workspace-0.4.2-awq", tmp_path / "other", options)
    other = as_shown_on(made, "modelscope", REPO)

    release = _publish(other)

    assert hub.puts == puts  # no weights
    assert release.uploaded_files == 4  # README.md, README_en.md, requirements.txt, deploytk.json
    assert {**hub.repositories[REPO].files, ".gitattributes": b""} == {**_files(other), ".gitattributes": b""}


def test_what_somebody_deleted_there_is_sent_again(hub: ModelScopeServer, bundle: Bundle) -> None:
    """The client's own memory would say that all of it is there."""
    _publish(bundle)
    hub.repositories[REPO].files.pop("README.md")

    release = _publish(bundle)

    assert release.uploaded_files == 1
    assert "README.md" in hub.repositories[REPO].files


def test_nothing_is_written_into_the_bundle_or_printed(
    hub: ModelScopeServer, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(bundle.path.rglob("*"))

    _publish(bundle)

    assert sorted(bundle.path.rglob("*")) == before
    assert capsys.readouterr().out == ""


def test_a_token_goes_to_no_odd_server(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://example.com")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", WRITER)

    with pytest.raises(UsageError):
        _publish(bundle)


def test_a_file_that_the_hub_lost_is_named(hub: ModelScopeServer, bundle: Bundle) -> None:
    hub.loses = {"README.md"}

    with pytest.raises(ReleaseError, match=r"README\.md is missing"):
        _publish(bundle)


def test_the_plan_shows_what_publishing_would_do(hub: ModelScopeServer, bundle: Bundle) -> None:
    before = ModelScope().preview(bundle, PublishOptions(repo=REPO))
    assert hub.repositories == {}
    _publish(bundle)

    after = ModelScope().preview(bundle, PublishOptions(repo=REPO))

    assert {change.status for change in before.changes} == {"new"}
    assert {change.status for change in after.changes} == {"same"}
    assert (after.is_private, after.permissions, after.upload_bytes) == (True, "signed in as me", 0)


def test_public_is_only_what_is_asked_for(hub: ModelScopeServer, bundle: Bundle) -> None:
    _publish(bundle, is_private=False)
    assert hub.repositories[REPO].visibility == 5

    with pytest.raises(ReleaseError, match="visible to everybody; nothing was sent"):
        _publish(bundle)


def test_a_private_repository_that_shall_be_public_is_a_step_left(hub: ModelScopeServer, bundle: Bundle) -> None:
    hub.repositories[REPO] = Repository(1)

    assert "make it public" in _publish(bundle, is_private=False).steps_left[0]


@pytest.mark.parametrize(
    ("token", "says"),
    [("ms-wrong", "does not take the token"), (READER, "may not write"), (None, "no token of ModelScope")],
)
def test_a_token_that_does_not_do_is_named(
    hub: ModelScopeServer, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, token: str | None, says: str
) -> None:
    if token is None:
        monkeypatch.delenv("MODELSCOPE_API_TOKEN")
    else:
        monkeypatch.setenv("MODELSCOPE_API_TOKEN", token)

    with pytest.raises(ReleaseError, match=says) as caught:
        _publish(bundle)

    assert "MODELSCOPE_API_TOKEN" in caught.value.hint
    assert token is None or token not in str(caught.value)


@pytest.mark.services  # the client itself tries again for 16 s
def test_a_hub_that_is_away_says_run_again(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", WRITER)

    with pytest.raises(TryAgainError, match="does not answer"):
        publish_bundle(bundle, ModelScope(patience_s=0.0), PublishOptions(repo=REPO), Silent())


@pytest.mark.parametrize("repo", [None, "tiny", "me/../x", "me/a b"])
def test_a_name_that_cannot_be_is_refused_before_anything(
    hub: ModelScopeServer, bundle: Bundle, repo: str | None
) -> None:
    with pytest.raises(UsageError):
        _publish(bundle, repo=repo)

    assert hub.requests == []


@pytest.mark.parametrize(
    ("repo", "says"),
    [
        ("somebody/tiny", "may not write to somebody/tiny"),
        ("me/admin", "refused me/admin: .*the name is reserved"),
    ],
)
def test_what_the_hub_refuses_is_told(hub: ModelScopeServer, bundle: Bundle, repo: str, says: str) -> None:
    with pytest.raises(ReleaseError, match=says):
        _publish(bundle, repo=repo)

    assert hub.repositories == {}


@pytest.mark.parametrize("kind", ["batch", "PUT", "commit"])
def test_a_token_that_expires_in_the_middle_is_named_and_nothing_is_committed(
    hub: ModelScopeServer, bundle: Bundle, kind: str
) -> None:
    hub.faults[kind] = [401] * 500

    with pytest.raises(ReleaseError, match="does not take the token"):
        _publish(bundle)

    assert not hub.repositories[REPO].commits


def test_a_file_that_changes_while_it_is_sent_is_not_committed(
    hub: ModelScopeServer, tmp_path: Path, model_copy: Callable[[str], Path]
) -> None:
    model = model_copy("hf-awq")
    bundle = make_bundle(model, tmp_path / "bundle")
    weights = bundle.path / "model.safetensors"
    content = weights.read_bytes()

    class Meddler(Silent):
        def task(self, label: str, total: int, unit: object = "bytes") -> object:  # type: ignore[override]
            if label == "sending":
                weights.write_bytes(content[::-1])
            return super().task(label, total)

    with pytest.raises(ReleaseError, match="changed while it was sent"):
        publish_bundle(bundle, ModelScope(), PublishOptions(repo=REPO), Meddler())
    assert not hub.repositories[REPO].commits
    weights.write_bytes(content)

    assert _publish(bundle).verified
    assert hub.repositories[REPO].files["model.safetensors"] == content


def test_an_upload_that_broke_off_goes_on(
    hub: ModelScopeServer, tmp_path: Path, model_copy: Callable[[str], Path]
) -> None:
    bundle = whole_bundle(MODELS / "hf-awq", tmp_path / "b")
    hub.faults["commit"] = [400] * 50
    with pytest.raises(ReleaseError):
        _publish(bundle)
    hub.faults.clear()
    puts = hub.puts

    release = _publish(bundle)

    assert release.verified
    assert hub.puts == puts  # the blobs were there already
    weights = hub.repositories[REPO].files["model.safetensors"]
    assert hashlib.sha256(weights).hexdigest() in hub.blobs


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploytk.publish.targets.modelscope.studio._POLL_S", 0.02)


def _publish_app(bundle: Bundle, wait_s: float = 10.0) -> Release:
    target = ModelScope(ModelScopeOptions(app=True, wait=wait_s))
    return publish_bundle(bundle, target, PublishOptions(repo=REPO), Silent())


@pytest.mark.usefixtures("_quick")
def test_the_studio_is_private_has_the_app_and_is_waited_for(
    hub: ModelScopeServer, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSCOPE_APP_TOKEN", "ms-may-read")

    release = _publish_app(bundle)

    studio = hub.studios[REPO]
    assert (studio.visibility, studio.deployed, studio.statuses) == (1, 1, ["Running"])
    assert studio.secrets == {"DEPLOYTK_MODEL_USERNAME": "oauth2", "DEPLOYTK_MODEL_TOKEN": "ms-may-read"}
    assert {"app.py", "deploytk_app/fetch_model.py", "deploytk.json", "requirements.txt"} <= studio.files.keys()
    assert "ms-may-read" not in str(studio.files)
    assert json.loads(studio.files["model_source.json"])["url"] == f"{hub.url}/{REPO}.git"
    assert "0.8 GiB of memory" in release.steps_left[0]
    assert "MODELSCOPE_APP_TOKEN" not in "".join(release.steps_left)  # it has one


@pytest.mark.usefixtures("_quick")
def test_a_studio_that_runs_the_same_app_is_left_running(hub: ModelScopeServer, bundle: Bundle) -> None:
    _publish_app(bundle)
    commits = len(hub.studios[REPO].commits)

    again = _publish_app(bundle)

    assert hub.studios[REPO].deployed == 1
    assert len(hub.studios[REPO].commits) == commits
    assert "MODELSCOPE_APP_TOKEN" in again.steps_left[1]


@pytest.mark.usefixtures("_quick")
def test_a_studio_that_fails_shows_the_end_of_its_log(hub: ModelScopeServer, bundle: Bundle) -> None:
    hub.statuses = ["Building", "RunFailed"]

    with pytest.raises(ReleaseError, match="is RunFailed\n  out of memory"):
        _publish_app(bundle)


@pytest.mark.usefixtures("_quick")
def test_a_studio_that_does_not_start_in_time_exits_75(hub: ModelScopeServer, bundle: Bundle) -> None:
    hub.statuses = ["Creating", "Queueing"]

    with pytest.raises(TryAgainError, match="still Queueing") as caught:
        _publish_app(bundle, wait_s=0.2)

    assert "run the same command again" in caught.value.hint


def test_the_usual_address_of_a_studio() -> None:
    # Seen in public: iic/CosyVoice2-0.5B is at iic-cosyvoice2-0-5b.ms.show.
    assert usual_address("https://modelscope.cn", "iic/CosyVoice2-0.5B") == "https://iic-cosyvoice2-0-5b.ms.show"
    assert usual_address("https://www.modelscope.ai", "me/tiny") is None


@pytest.mark.usefixtures("_quick")
def test_the_plan_shows_the_studio(hub: ModelScopeServer, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_APP_TOKEN", "ms-may-read")
    target, options = ModelScope(ModelScopeOptions(app=True)), PublishOptions(repo=REPO)
    before = target.preview(bundle, options).app
    assert hub.studios == {}
    _publish_app(bundle)
    hub.studios[REPO].files["left.txt"] = b""

    after = target.preview(bundle, options).app

    assert before
    assert after
    assert (before.place, before.is_private) == (f"{hub.url}/studios/{REPO}", True)
    assert before.secrets == ("DEPLOYTK_MODEL_USERNAME", "DEPLOYTK_MODEL_TOKEN")
    assert {change.status for change in before.changes} == {"new"}
    assert [change.path for change in after.changes if change.status != "same"] == ["left.txt"]
    assert after.upload_bytes == 0
    assert ModelScope().preview(bundle, PublishOptions(repo=REPO)).app is None
