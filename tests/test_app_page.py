"""The chat page in a real browser: Debian's Chromium, moved by Playwright, in English and Chinese, large and small."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apps import App, make_app, running_app, wait_for

from deploytk.base.progress import Silent
from deploytk.bundle import Golden
from deploytk.serve import Endpoint, ServeOptions, open_endpoint

MODELS = Path(__file__).parent / "models"
DIALOGS = json.loads((MODELS / "dialogs.json").read_text(encoding="utf-8"))
# A closed network: nothing is looked up, updated or reported.
FLAGS = """--no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking --disable-sync
    --disable-component-update --no-first-run""".split()
FLAGS.append("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
SCREENS = {"en-US": {"width": 1100, "height": 800}, "zh-CN": {"width": 390, "height": 800}}
WORDS = {"en-US": {"clear": "Clear", "retry": "Retry", "settings": "Settings", "temperature": "Temperature"},
         "zh-CN": {"clear": "清空对话", "retry": "重试", "settings": "设置", "temperature": "温度"}}  # fmt: skip

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]


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
def endpoint() -> Iterator[Endpoint]:
    """The tiny model behind its page, on the CPU engine."""
    golden = tuple(Golden(dialog["prompt"], dialog["answer"]) for dialog in DIALOGS)
    options = ServeOptions(engine="cpu", app="gradio", golden=golden, ready_within_s=120)
    with open_endpoint(str(MODELS / "hf-awq"), options, Silent()) as endpoint:
        yield endpoint


@contextlib.contextmanager
def opened(browser: Any, url: str, language: str = "en-US") -> Iterator[Any]:
    with browser.new_context(locale=language, viewport=SCREENS[language]) as context:
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        yield page
        assert errors == []


def shown(page: Any) -> list[str]:
    return [text.strip() for text in page.locator("#chat [data-testid=bot]").all_inner_texts()]


def say(page: Any, text: str) -> None:
    page.locator("#message textarea").fill(text)
    page.locator("#message textarea").press("Enter")


@pytest.mark.parametrize("language", list(SCREENS))
def test_a_whole_conversation_gives_the_golden_answers(
    browser: Any, endpoint: Endpoint, language: str, pytestconfig: pytest.Config
) -> None:
    words = WORDS[language]
    with opened(browser, endpoint.url, language) as page:
        page.get_by_role("button", name=words["settings"]).click(timeout=60_000)
        temperature = page.locator("#temperature input[type=number]")
        temperature.fill("0")
        temperature.press("Tab")
        assert words["temperature"] in page.locator("#temperature").inner_text()
        page.get_by_role("button", name=words["settings"]).click()
        for dialog in DIALOGS:
            say(page, dialog["prompt"])
            wait_for(lambda expected=dialog["answer"]: shown(page)[-1:] == [expected], 30, lambda: str(shown(page)))
            page.wait_for_function("document.querySelector('#speed').innerText.includes(' / 2048 tokens')")
            if dialog is DIALOGS[2 if language == "zh-CN" else 4]:
                _keep_screenshot(page, f"chat-{language}.png", pytestconfig)
            # Gradio keeps the turn, and only then takes another message: to clear before would clear too little.
            page.locator("#message textarea:enabled").wait_for(timeout=10_000)
            page.wait_for_timeout(300)
            page.get_by_role("button", name=words["clear"]).first.click()
            wait_for(lambda: not shown(page), 5)
            page.wait_for_timeout(300)

        # An example, clicked, is sent; retry asks again and gets the same.
        page.get_by_text(DIALOGS[0]["prompt"], exact=True).first.click()
        wait_for(lambda: shown(page) == [DIALOGS[0]["answer"]], 30, lambda: str(shown(page)))
        page.locator("#message textarea:enabled").wait_for(timeout=10_000)
        page.wait_for_timeout(300)
        page.get_by_role("button", name=words["retry"]).click()
        page.wait_for_timeout(300)
        wait_for(lambda: shown(page) == [DIALOGS[0]["answer"]], 30, lambda: str(shown(page)))

        # Nothing is wider than the screen.
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def _keep_screenshot(page: Any, name: str, pytestconfig: pytest.Config) -> None:
    """Where DEPLOYTK_SCREENSHOTS says: CI keeps them, docs/ shows them."""
    if os.environ.get("DEPLOYTK_SCREENSHOTS"):
        directory = pytestconfig.rootpath / os.environ["DEPLOYTK_SCREENSHOTS"]
        directory.mkdir(parents=True, exist_ok=True)
        page.wait_for_timeout(500)
        page.screenshot(path=directory / name)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_app(tmp_path_factory.mktemp("page"), "gradio")


@contextlib.contextmanager
def stub_app(bundle: Path, tmp_path: Path, **environment: str) -> Iterator[App]:
    with running_app(bundle, tmp_path / "app.log", environment) as app:
        yield app


def test_the_phase_is_shown_until_the_model_is_there(
    browser: Any, bundle: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    with stub_app(bundle, tmp_path, STUB_LOAD_S="4") as app, opened(browser, app.url) as page:
        page.locator("li.now", has_text="Loading").wait_for(timeout=60_000)
        _keep_screenshot(page, "loading.png", pytestconfig)

        page.locator("#message textarea").wait_for(timeout=60_000)

        page.locator("#state", has_text="tiny · turbomind · 2048 tokens").wait_for(timeout=60_000)


def test_why_it_failed_is_shown(browser: Any, bundle: Path, tmp_path: Path) -> None:
    broken = {"STUB_SAYS": "RuntimeError: CUDA out of memory", "STUB_EXIT": "1"}
    with stub_app(bundle, tmp_path, **broken) as app, opened(browser, app.url, "zh-CN") as page:
        page.get_by_text("模型无法启动").wait_for(timeout=60_000)

        assert "CUDA out of memory" in page.locator("#detail").inner_text()


def test_stop_stops_the_engine(browser: Any, bundle: Path, tmp_path: Path) -> None:
    with stub_app(bundle, tmp_path, STUB_TOKENS_PER_S="20") as app, opened(browser, app.url) as page:
        page.locator("#message textarea").wait_for(timeout=60_000)
        say(page, "hello")
        wait_for(lambda: "t5" in "".join(shown(page)), 10)
        assert app.stub()["running"] == 1

        page.locator("#message .stop-button").click()

        wait_for(lambda: app.stub()["running"] == 0, 5)


def test_a_page_that_is_closed_stops_the_engine(browser: Any, bundle: Path, tmp_path: Path) -> None:
    with stub_app(bundle, tmp_path, STUB_TOKENS_PER_S="20") as app:
        with opened(browser, app.url) as page:
            page.locator("#message textarea").wait_for(timeout=60_000)
            say(page, "hello")
            wait_for(lambda: "t5" in "".join(shown(page)), 10)

        wait_for(lambda: app.stub()["running"] == 0, 10)


def test_a_browser_enters_the_key_once(browser: Any, bundle: Path, tmp_path: Path) -> None:
    with stub_app(bundle, tmp_path, DEPLOYTK_API_KEYS="open-sesame") as app, browser.new_context() as context:
        page = context.new_page()
        page.goto(app.url)
        page.locator("#key").wait_for(timeout=60_000)
        page.locator("#key").fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_text("This is no key of this server").wait_for(timeout=10_000)

        page.locator("#key").fill("open-sesame")
        page.keyboard.press("Enter")
        page.locator("#message textarea").wait_for(timeout=60_000)
        say(page, "hello")
        wait_for(lambda: "t15" in "".join(shown(page)), 10, lambda: str(shown(page)))

        # Another page of the same browser need not; another browser must.
        other = context.new_page()
        other.goto(app.url)
        other.locator("#message textarea").wait_for(timeout=60_000)
        with browser.new_context() as stranger:
            page = stranger.new_page()
            page.goto(app.url)
            page.locator("#key").wait_for(timeout=10_000)


def test_open_pages_do_not_hold_up_the_end(browser: Any, bundle: Path, tmp_path: Path) -> None:
    with stub_app(bundle, tmp_path) as app, opened(browser, app.url) as page:
        page.locator("#message textarea").wait_for(timeout=60_000)

        app.process.terminate()

        app.process.wait(5)
