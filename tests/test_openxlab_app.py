"""The app repository for OpenXLab: whole, deterministic, and it really fetches, checks and serves the model."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from apps import STUB, App, running_app
from bundles import as_shown_on, given_bundle, make_bundle, whole_bundle
from conftest import MODELS
from git_server import READER, GitServer
from stranger import stranger

from deploytk.base.digests import hash_file
from deploytk.base.errors import ReleaseError, UsageError
from deploytk.base.progress import Silent
from deploytk.bundle import Bundle, BundleOptions
from deploytk.publish.options import PublishOptions
from deploytk.publish.record import Release
from deploytk.publish.release import publish_bundle
from deploytk.publish.targets.common.app_repository import write_app
from deploytk.publish.targets.openxlab import OpenXLab
from deploytk.publish.targets.openxlab.app import app_place
from deploytk.publish.targets.openxlab.app_remote import AppRemote
from deploytk.publish.targets.openxlab.options import OpenXLabOptions

REPO = "me/tiny"


@pytest.fixture
def bundle(git_hub: GitServer, tmp_path: Path) -> Bundle:
    return as_shown_on(whole_bundle(MODELS / "workspace-0.4.2-awq", tmp_path / "bundle"), "openxlab", REPO)


def _publish(bundle: Bundle, remote: str | None = None) -> Release:
    target = OpenXLab(OpenXLabOptions(app=True, app_remote=remote), patience_s=2.0)
    return publish_bundle(bundle, target, PublishOptions(repo=REPO), Silent())


def _fetch(app: Path, token: str = READER[1]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OPENXLAB_USERNAME": "me", "OPENXLAB_GIT_TOKEN": token, "HOME": "/nonexistent"}
    return subprocess.run(
        [sys.executable, "-I", "deploytk_app/fetch_model.py"],
        cwd=app,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def _tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_form_is_spelt_out(git_hub: GitServer, bundle: Bundle) -> None:
    release = _publish(bundle)

    push, form, resume, _ = release.steps_left
    assert str(app_place(bundle)) in push
    assert "start file app.py" in form
    assert "0.8 GiB of GPU memory" in form  # 878 565 888 bytes / 2**30 = 0.82
    assert "OPENXLAB_GIT_TOKEN" in form
    assert "--app-url" in resume


def test_the_plan_shows_what_the_app_will_be(git_hub: GitServer, bundle: Bundle) -> None:
    target, options = OpenXLab(OpenXLabOptions(app=True), patience_s=2.0), PublishOptions(repo=REPO)
    before = target.preview(bundle, options).app
    assert not app_place(bundle).exists()
    _publish(bundle)

    after = target.preview(bundle, options).app

    assert before
    assert after
    assert {change.status for change in before.changes} == {"new"}
    assert before.upload_bytes == sum(path.stat().st_size for path in app_place(bundle).rglob("*.*"))
    assert {change.status for change in after.changes} == {"same"}
    assert (after.place, after.secrets) == (str(app_place(bundle)), ("OPENXLAB_USERNAME", "OPENXLAB_GIT_TOKEN"))


def test_the_app_repository_holds_all_but_the_model(git_hub: GitServer, bundle: Bundle) -> None:
    _publish(bundle)

    files = {str(path.relative_to(app_place(bundle))) for path in app_place(bundle).rglob("*")}
    assert {"app.py", "deploytk_app/fetch_model.py", "deploytk.json", "README.md"} <= files
    assert "deploytk_app/data/page/app.js" in files
    assert "deploytk_app/gradio_app.py" not in files
    assert not {"triton_models", "Dockerfile"} & files
    assert (app_place(bundle) / "packages.txt").read_text() == "git\ngit-lfs\n"
    assert (app_place(bundle) / "requirements.txt").read_text() == "lmdeploy==0.4.2\nuvicorn==0.30.6\n"


def test_a_model_planned_for_a_newer_lmdeploy_gets_the_newest_that_the_hubs_python_has(tmp_path: Path) -> None:
    bundle = whole_bundle(MODELS / "hf-awq", tmp_path / "b")

    app = write_app(bundle, tmp_path / "app", "https://x/y.git", "0" * 40)

    assert (app / "requirements.txt").read_text().startswith("lmdeploy==0.10.2\n")
    # Several answers in a chat came with 0.16.0: the app must not let them through to be forgotten.
    features = [json.loads((place / "deploytk.json").read_text())["plan"]["features"] for place in (bundle.path, app)]
    assert [("choices" in found, "response_format" in found) for found in features] == [(True, True), (False, True)]


def test_the_same_bundle_gives_the_same_app(bundle: Bundle, tmp_path: Path) -> None:
    first = write_app(bundle, tmp_path / "a", "https://x/y.git", "0" * 40)

    second = write_app(bundle, tmp_path / "b", "https://x/y.git", "0" * 40)

    assert _tree(first) == _tree(second)


def test_something_else_in_its_place_is_left_alone(bundle: Bundle) -> None:
    app_place(bundle).mkdir()
    (app_place(bundle) / "thesis.tex").write_text("years of work")

    with pytest.raises(ReleaseError, match="no app repository"):
        write_app(bundle, app_place(bundle), "https://x/y.git", "0" * 40)


def test_every_file_of_it_is_python_3_8(bundle: Bundle, tmp_path: Path) -> None:
    app = write_app(bundle, tmp_path / "app", "https://x/y.git", "0" * 40)

    for path in app.glob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 8))


def test_it_fetches_the_model_whole(git_hub: GitServer, bundle: Bundle) -> None:
    _publish(bundle)
    app = app_place(bundle)

    done = _fetch(app)

    assert done.returncode == 0, done.stderr
    for file in bundle.files:
        if file.kind in ("weights", "model"):
            assert hash_file(app / file.path) == file.sha256
    assert not (app / ".model.git").exists()


def test_it_fetches_only_what_is_missing_or_damaged(git_hub: GitServer, bundle: Bundle) -> None:
    _publish(bundle)
    app = app_place(bundle)
    _fetch(app)
    git_hub.requests.clear()

    assert _fetch(app).returncode == 0
    assert git_hub.requests == []

    weights = max((file for file in bundle.files if file.kind == "weights"), key=lambda file: file.size)
    (app / weights.path).write_bytes(bytes(weights.size))
    done = _fetch(app)

    assert "fetching 1 files" in done.stderr
    assert hash_file(app / weights.path) == weights.sha256


def test_an_object_that_the_server_lost_is_named(git_hub: GitServer, bundle: Bundle, tmp_path: Path) -> None:
    _publish(bundle)
    app = app_place(bundle)
    fetch = app / "deploytk_app" / "fetch_model.py"
    fetch.write_text(fetch.read_text().replace("PAUSE_S = 5.0", "PAUSE_S = 0.0"))
    shutil.rmtree(tmp_path / "server" / "lfs" / "objects")

    done = _fetch(app)

    assert done.returncode == 1
    assert "could not be fetched" in done.stderr


def test_a_private_model_without_a_token_says_what_to_set(git_hub: GitServer, bundle: Bundle) -> None:
    _publish(bundle)
    fetch = app_place(bundle) / "deploytk_app" / "fetch_model.py"
    fetch.write_text(fetch.read_text().replace("PAUSE_S = 5.0", "PAUSE_S = 0.0"))

    done = _fetch(app_place(bundle), token="")

    assert "set DEPLOYTK_MODEL_USERNAME and DEPLOYTK_MODEL_TOKEN" in done.stderr


def test_without_git_lfs_it_names_packages_txt(
    git_hub: GitServer, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(bundle)
    place = tmp_path / "bin"
    place.mkdir()
    (place / "git").symlink_to(str(shutil.which("git")))
    monkeypatch.setenv("PATH", str(place))

    assert "packages.txt must name git and git-lfs" in _fetch(app_place(bundle)).stderr


@contextlib.contextmanager
def _run(app: Path, tmp_path: Path) -> Iterator[App]:
    program = app.parent / "bin" / "lmdeploy"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{STUB}" "$@"\n')
    program.chmod(0o755)
    with running_app(app, tmp_path / "app.log", {"OPENXLAB_GIT_TOKEN": READER[1], "HOME": "/nonexistent"}) as running:
        yield running


def test_it_answers_at_once_fetches_and_serves(git_hub: GitServer, bundle: Bundle, tmp_path: Path) -> None:
    _publish(bundle)
    with _run(app_place(bundle), tmp_path) as running:
        first = running.get("/")
        state = running.wait("ready", "failed", within_s=40)

        assert first.status_code == 200
        assert "page/app.js" in first.text
        assert state["state"] == "ready", running.output
        assert running.chat().status_code == 200
        assert running.get("/page/settings.json").json()["title"] == "tiny"


def test_a_pointer_file_in_place_of_weights_is_replaced(git_hub: GitServer, bundle: Bundle) -> None:
    _publish(bundle)
    app = app_place(bundle)
    weights = next(file for file in bundle.files if file.kind == "weights" and file.size)
    (app / weights.path).parent.mkdir(parents=True)
    (app / weights.path).write_text("version https://git-lfs.github.com/spec/v1\n")

    _fetch(app)

    assert hash_file(app / weights.path) == weights.sha256


def test_the_app_is_pushed_as_one_commit_and_only_when_it_changed(
    git_hub: GitServer, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = tmp_path / "app.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(remote)], check=True)
    asked: list[str] = []
    git = AppRemote._git
    monkeypatch.setattr(
        AppRemote, "_git", lambda self, *words, **more: asked.append(words[0]) or git(self, *words, **more)
    )

    release = _publish(bundle, remote=str(remote))
    head = (remote / "refs/heads/main").read_text().strip()
    _publish(bundle, remote=str(remote))
    again = (remote / "refs/heads/main").read_text().strip()
    assert asked.count("cat-file") < 10  # and not one for each of sixty files
    _publish(_other(tmp_path), remote=str(remote))

    assert head == again
    assert str(remote) in release.steps_left[0]
    counted = subprocess.run(["git", "rev-list", "--count", "main"], cwd=remote, capture_output=True, text=True)
    assert counted.stdout.strip() == "2"


def _other(tmp_path: Path) -> Bundle:
    return whole_bundle(MODELS / "hf-awq", tmp_path / "other")


def test_a_remote_that_does_not_answer_stops_it_before_anything_is_sent(
    git_hub: GitServer, bundle: Bundle, tmp_path: Path
) -> None:
    target = OpenXLab(OpenXLabOptions(app_remote=str(tmp_path / "nothing.git")), patience_s=2.0)

    with pytest.raises(ReleaseError, match="git ls-remote failed for the app"):
        publish_bundle(bundle, target, PublishOptions(repo=REPO), Silent())
    [obstacle] = target.preview(bundle, PublishOptions(repo=REPO)).obstacles

    assert "git ls-remote failed for the app" in obstacle.message
    assert not app_place(bundle).exists()
    assert not git_hub.stored
    with pytest.raises(UsageError, match="holds a password"):
        OpenXLabOptions(app_remote="https://me:secret@example.com/x.git")


def test_an_api_app_has_no_page(tmp_path: Path) -> None:
    bundle = given_bundle(MODELS / "hf-awq", tmp_path / "api", BundleOptions(name="tiny", app="api"))

    app = write_app(bundle, tmp_path / "app", "https://x/y.git", "0" * 40)

    assert not (app / "deploytk_app" / "data" / "page").exists()
    assert json.loads((app / "model_source.json").read_text())["url"] == "https://x/y.git"


def _command(bundle: Bundle, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploytk", "publish", str(bundle.path), "--target", "openxlab", "--repo", REPO]
    return subprocess.run([*command, "--json", *more], capture_output=True, text=True, timeout=90)


@pytest.mark.usefixtures("hub_port")
def test_an_app_that_still_queues_ends_the_command_with_75(git_hub: GitServer, bundle: Bundle) -> None:
    done = _command(bundle, "--app-url", f"{git_hub.url}/nothing-here", "--wait", "0.2s")

    assert done.returncode == 75, done.stderr
    assert json.loads(done.stdout)["verified"] is True
    assert "the queue is the platform's" in done.stderr


@pytest.mark.usefixtures("hub_port")
def test_an_app_that_cannot_run_is_refused_before_anything_is_sent(git_hub: GitServer, tmp_path: Path) -> None:
    template = tmp_path / "mine"
    (template / "app").mkdir(parents=True)
    (template / "app" / "start.py").write_text("raise SystemExit('broken on purpose')\n")
    bundle = given_bundle(MODELS / "hf-awq", tmp_path / "b", BundleOptions(name="tiny", template=template))

    done = _command(bundle, "--app", "--trust-bundle")

    assert done.returncode == 1
    assert "pre-flight: it ended with code 1" in done.stderr
    assert all(request.startswith("GET") for request in git_hub.requests)


@pytest.mark.parametrize("kind", ["info/refs", "objects", "lfsconfig"])
def test_the_app_gives_its_token_to_no_other_server(
    git_hub: GitServer, bundle: Bundle, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "no_proxy", "*")
    once = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "lfs.transfer.maxretries", "GIT_CONFIG_VALUE_0": "1"}
    for name, value in once.items():
        monkeypatch.setenv(name, value)
    with stranger() as other:
        if kind == "lfsconfig":
            bundle = _with_lfs_config(bundle, other.url)
        _publish(bundle)
        if kind == "info/refs":
            git_hub.faults["GET"] = [other.url] * 20
        if kind == "objects":
            git_hub.objects_at, git_hub.echoes_login = other.url, False
        fetcher = app_place(bundle) / "deploytk_app" / "fetch_model.py"
        fetcher.write_text(
            fetcher.read_text().replace("ATTEMPTS = 5", "ATTEMPTS = 1").replace("PAUSE_S = 5.0", "PAUSE_S = 0")
        )

        done = _fetch(app_place(bundle))

        assert (done.returncode == 0) == (kind == "lfsconfig")
        assert other.logins == []
        assert bool(other.requests) == (kind == "objects")


def _with_lfs_config(bundle: Bundle, url: str) -> Bundle:
    model = bundle.path.with_name("hostile")
    shutil.copytree(MODELS / "workspace-0.4.2-awq", model)
    (model / ".lfsconfig").write_text(f"[lfs]\n\turl = {url}/info/lfs\n\tpushurl = {url}/info/lfs\n")
    return make_bundle(model, bundle.path.with_name("hostile-bundle"))
