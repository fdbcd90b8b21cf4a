"""Whose app a bundle brings: one that deploytk did not render is run by no command unasked."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from bundles import given_bundle, make_bundle
from conftest import MODELS
from typer.testing import CliRunner

from deploytk.base.errors import BundleError, UsageError
from deploytk.bundle import SHIPPED_APP, Bundle, BundleOptions, read_bundle, require_own_app
from deploytk.cli import app

RUNNING = (
    "serve BUNDLE --engine cpu --port 0",
    "smoke BUNDLE --engine cpu",
    "preflight BUNDLE",
    "build BUNDLE -t a:1",
    "publish BUNDLE --target local --repo OUT",
    "publish BUNDLE --target local --repo OUT --plan",
)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return given_bundle(MODELS / "hf-awq", tmp_path / "bundle")


def forge(bundle: Bundle, path: str, content: bytes) -> None:
    """Put a file into the bundle and into its manifest, as whoever forges one would."""
    place = bundle.path / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.write_bytes(content)
    manifest = json.loads((bundle.path / "deploytk.json").read_text())
    facts = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "kind": "app"}
    manifest["files"] = dict(sorted({**manifest["files"], path: facts}.items()))
    (bundle.path / "deploytk.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("kind", ["gradio", "api"])
def test_what_deploytk_renders_is_its_own_app(tmp_path: Path, kind: str) -> None:
    options = BundleOptions(name="tiny", app=kind)  # type: ignore[arg-type]

    require_own_app(make_bundle(MODELS / "hf-awq", tmp_path / "bundle", options), None)


@pytest.mark.parametrize(
    "path",
    [
        "app.py",
        "deploytk_app/__init__.py",
        "deploytk_app/server.py",
        "deploytk_app/data/openapi.json",
        "requirements.txt",
        "deploytk_app/uvicorn.py",
        "deploytk_app/data/numpy.py",
        "deploytk_app/fetch_model.py",
        "deploytk_app/wheels/evil.whl",
    ],
)
def test_a_file_of_the_app_that_is_another_or_one_too_many_is_named(bundle: Bundle, path: str) -> None:
    forge(bundle, path, b"raise SystemExit('run')\n")

    with pytest.raises(BundleError, match=rf"not the one which deploytk renders: {path} differs") as caught:
        require_own_app(read_bundle(bundle.path), None)

    assert "--trust-bundle" in caught.value.hint


@pytest.mark.parametrize(("before", "after"), [(b"\n    ", b"\n      "), (b"\n\n", b"\n"), (b"\n", b"\r\n")])
def test_an_app_that_differs_in_blanks_alone_is_another_app(bundle: Bundle, before: bytes, after: bytes) -> None:
    """Where a line is indented says in Python when it is run."""
    content = (bundle.path / "app.py").read_bytes()
    forge(bundle, "app.py", content.replace(before, after, 1))

    with pytest.raises(BundleError, match=r"app\.py differs"):
        require_own_app(read_bundle(bundle.path), None)


@pytest.mark.parametrize("line", RUNNING)
def test_no_command_runs_or_ships_an_app_of_others(bundle: Bundle, tmp_path: Path, line: str) -> None:
    forge(bundle, "app.py", b"raise SystemExit('run')\n")
    words = [{"BUNDLE": str(bundle.path), "OUT": str(tmp_path / "out")}.get(word, word) for word in line.split()]

    done = CliRunner().invoke(app, words)

    assert isinstance(done.exception, BundleError), (done.output, done.exception)
    assert "app.py differs" in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_an_app_that_the_user_trusts_is_published(bundle: Bundle, tmp_path: Path) -> None:
    forge(bundle, "app.py", b"raise SystemExit('run')\n")

    done = CliRunner().invoke(
        app, ["publish", str(bundle.path), "--target", "local", "--repo", str(tmp_path / "out"), "--trust-bundle"]
    )

    assert done.exit_code == 0, done.output


def test_the_users_own_templates_make_an_app_of_theirs(tmp_path: Path) -> None:
    own = tmp_path / "mine" / "app" / "start.py"
    own.parent.mkdir(parents=True)
    own.write_text((SHIPPED_APP / "start.py").read_text() + "# mine\n")
    bundle = make_bundle(MODELS / "hf-awq", tmp_path / "bundle", BundleOptions(name="tiny", template=tmp_path / "mine"))

    require_own_app(bundle, tmp_path / "mine")

    with pytest.raises(BundleError, match=r"app\.py differs"):
        require_own_app(bundle, None)


def test_a_model_that_brings_a_manifest_and_an_app_of_its_own_is_refused(
    model_copy: Callable[[str], Path], bundle: Bundle
) -> None:
    model = model_copy("hf-awq")
    shutil.copy(bundle.path / "deploytk.json", model)
    for path in ("app.py", "README.md", "README_zh.md", "requirements.txt", "Dockerfile"):
        (model / path).write_bytes((bundle.path / path).read_bytes())
    shutil.copytree(bundle.path / "deploytk_app", model / "deploytk_app")
    require_own_app(read_bundle(model), None)
    content = (model / "app.py").read_bytes()
    (model / "app.py").write_bytes(content.replace(b"leave_path()", b"leave_Path()"))  # of the same length

    done = CliRunner().invoke(app, ["serve", str(model), "--engine", "cpu"])

    assert isinstance(done.exception, BundleError), (done.output, done.exception)


def test_a_model_directory_is_no_app_that_preflight_starts(model_copy: Callable[[str], Path], tmp_path: Path) -> None:
    model = model_copy("hf-awq")
    (model / "app.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")

    done = CliRunner().invoke(app, ["preflight", str(model)])

    assert isinstance(done.exception, UsageError)
    assert "is a model directory" in str(done.exception)
    assert not (tmp_path / "ran").exists()
