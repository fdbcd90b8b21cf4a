"""The chat page in Debian's Chromium, moved by Playwright: browsers, the app behind them, and what is on the page."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apps import STUB, App, running_app
from bundles import make_bundle

from deploytk.bundle import BundleOptions, Golden
from deploytk.bundle.links import link_or_copy
from deploytk.publish.targets.common.app_repository import write_app

MODELS = Path(__file__).parent / "models"
# A closed network: nothing is looked up, updated or reported.
FLAGS = """--no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking --disable-sync
    --disable-component-update --no-first-run""".split()
FLAGS.append("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
PHONE = {"width": 360, "height": 740}
DESK = {"width": 1100, "height": 800}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None
    if not chromium or not sync_playwright:
        assert not os.environ.get("DEPLOYTK_REQUIRE_SERVICES"), "chromium and playwright are needed"
        pytest.skip("chromium and playwright are needed")
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=chromium, args=FLAGS) as browser:
        yield browser


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The app that OpenXLab gets, without Gradio: it has the page of every app, and starts at once."""
    place = tmp_path_factory.mktemp("hosted")
    golden = (Golden("hello there", "x"), Golden("你是谁", "x"))
    bundle = make_bundle(MODELS / "hf-awq", place / "bundle", BundleOptions(name="tiny", golden=golden))
    app = write_app(bundle, place / "app" / "app", "https://x/y.git", "0" * 40)
    for file in bundle.files:
        if file.kind in ("weights", "model"):
            link_or_copy(bundle.path / file.path, app / file.path)
    program = app.parent / "bin" / "lmdeploy"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{STUB}" "$@"\n')
    program.chmod(0o755)
    return app


@contextlib.contextmanager
def stub_app(bundle: Path, log: Path, **environment: str) -> Iterator[App]:
    with running_app(bundle, log, environment) as app:
        yield app


@contextlib.contextmanager
def opened(browser: Any, url: str, language: str = "en-US", **more: Any) -> Iterator[Any]:
    """The page in a browser of its own; no error of a script and no request to elsewhere is forgiven."""
    with browser.new_context(**{"locale": language, "viewport": DESK, **more}) as context:
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: request.url.startswith((url, "blob:")) or errors.append(request.url))
        page.set_default_timeout(20_000)
        page.goto(url)
        yield page
        assert errors == []


def start(page: Any) -> None:
    page.locator("#greeting").wait_for()


def say(page: Any, text: str) -> None:
    page.locator("#message").fill(text)
    page.locator("#message").press("Enter")


def answers(page: Any) -> list[str]:
    return [text.strip() for text in page.locator("#messages .assistant .body > .text").all_inner_texts()]


def until_answered(page: Any, count: int = 1) -> None:
    """Until there are `count` answers and none grows."""
    page.wait_for_function(
        """count => document.querySelectorAll('#messages .assistant').length === count
            && document.querySelector('#send').dataset.now === 'send'""",
        arg=count,
    )


def wait_until(page: Any, is_true: str) -> None:
    page.wait_for_function(is_true)


def keep_screenshot(page: Any, name: str, config: pytest.Config) -> None:
    """Where DEPLOYTK_SCREENSHOTS says: CI keeps them, docs/ shows them."""
    if os.environ.get("DEPLOYTK_SCREENSHOTS"):
        directory = config.rootpath / os.environ["DEPLOYTK_SCREENSHOTS"]
        directory.mkdir(parents=True, exist_ok=True)
        page.wait_for_timeout(500)
        page.screenshot(path=directory / name)
