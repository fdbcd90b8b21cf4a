"""The chat page of the OpenXLab app, which does without Gradio, in a real browser against the engine stub."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apps import STUB, App, running_app
from bundles import make_bundle
from conftest import MODELS
from test_app_page import browser, opened  # noqa: F401

from deploytk.bundle import BundleOptions, Golden
from deploytk.bundle.links import link_or_copy
from deploytk.publish.targets.common.app_repository import write_app

pytestmark = [pytest.mark.services, pytest.mark.timeout(120)]


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """The app with its model in place, as after its fetch."""
    options = BundleOptions(name="tiny", golden=(Golden("hello there", "x"),))
    bundle = make_bundle(MODELS / "hf-awq", tmp_path / "bundle", options)
    place = write_app(bundle, tmp_path / "app" / "app", "https://x/y.git", "0" * 40)
    for file in bundle.files:
        if file.kind in ("weights", "model"):
            link_or_copy(bundle.path / file.path, place / file.path)
    program = place.parent / "bin" / "lmdeploy"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{STUB}" "$@"\n')
    program.chmod(0o755)
    with running_app(place, tmp_path / "log") as app:
        app.wait("ready", within_s=30)
        yield app


@pytest.mark.parametrize(("language", "send"), [("en-US", "Send"), ("zh-CN", "发送")])
def test_a_visitor_asks_and_reads_the_answer(app: App, browser: Any, language: str, send: str) -> None:  # noqa: F811
    with opened(browser, app.url, language) as page:
        page.locator("#message").fill("hello")
        assert page.locator("#send").inner_text() == send
        page.locator("#send").click()
        answer = page.locator("#chat p.assistant")
        page.wait_for_function("() => !document.querySelector('#chat p.assistant')?.textContent.startsWith('…')")
        first = answer.first.inner_text()

        page.locator("#examples button").click()
        page.wait_for_function("() => document.querySelectorAll('#chat p').length === 4")

    assert first
    assert not first.startswith("⚠️")


def test_what_goes_wrong_is_shown_and_the_page_goes_on(app: App, browser: Any) -> None:  # noqa: F811
    with opened(browser, app.url) as page:
        page.route("**/v1/chat/completions", lambda route: route.fulfill(
            status=429, content_type="application/json", body='{"error": {"message": "too many requests"}}'
        ), times=1)  # fmt: skip
        page.locator("#message").fill("hello")
        page.keyboard.press("Enter")
        page.wait_for_function("() => document.querySelector('#chat p.assistant')?.textContent.includes('too many')")

        page.locator("#message").fill("again")
        page.keyboard.press("Enter")
        page.wait_for_function("() => document.querySelectorAll('#chat p').length === 4")
        page.wait_for_function("() => document.querySelector('#send').textContent === 'Send'")

        assert not page.locator("#chat p.assistant").last.inner_text().startswith("⚠️")
