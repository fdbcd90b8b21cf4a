"""Many visitors of the chat page at once, each in a browser of its own; who hears it, and who reads Chinese."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from apps import App, wait_for
from pages import PHONE, answers, keep_screenshot, opened, say, start, stub_app, until_answered

pytestmark = [pytest.mark.services, pytest.mark.timeout(400)]

VISITORS = 30
RICH = """echo <think>Well.</think>
# One
$a_n$ and \\[ x^2 \\]

| a | b |
|:--|--:|
| 1 | 2 |

```python
x
```
> said ![cat](https://example.com/cat.png)
"""
# What a Chinese page may say in Latin letters: names and terms, and what a program said.
LATIN = {"token", "tiny", "top", "p", "markdown", "json", "english", "cookie"}
SAID = {"echo", "think", "https", "example", "com", "hello"}


@pytest.fixture(scope="module")
def axe() -> str:
    """The rules of axe-core, as the package of it for Playwright ships them."""
    found = find_spec("axe_playwright_python")
    assert found is not None, "axe-playwright-python is needed"
    assert found.submodule_search_locations is not None
    return Path(found.submodule_search_locations[0], "axe.min.js").read_text(encoding="utf-8")


@contextlib.contextmanager
def visitors(browser: Any, url: str, count: int) -> Iterator[list[Any]]:
    with contextlib.ExitStack() as stack:
        pages = []
        for _ in range(count):
            page = stack.enter_context(browser.new_context(locale="en-US")).new_page()
            page.set_default_timeout(60_000)
            page.goto(url)
            pages.append(page)
        for page in pages:
            start(page)
        yield pages


def test_as_many_are_answered_at_once_as_the_plan_allows_and_the_others_see_their_place(
    browser: Any, hosted: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    planned = json.loads((hosted / "deploytk.json").read_text(encoding="utf-8"))["plan"]["max_batch_size"]
    with (
        stub_app(hosted, tmp_path / "log", STUB_TOKENS_PER_S="4") as app,
        visitors(browser, app.url, planned + 2) as pages,
    ):
        for page in pages[:planned]:
            say(page, "hello")
        wait_for(lambda: app.stub()["running"] == planned, 20)
        for page in pages[planned:]:
            say(page, "hello")
            page.locator(".waiting").wait_for()
            wait_for(lambda: app.get("/queue").json()["waiting"] >= 1, 10)
        pages[-2].get_by_text("Waiting for a place: you are next.").first.wait_for()
        pages[-1].get_by_text("Waiting for a place: 1 before you.").first.wait_for()
        keep_screenshot(pages[-1], "queue.png", pytestconfig)

        assert planned == 8
        assert all("t1" in answers(page)[0] for page in pages[:planned])
        pages[0].locator("#send").click()  # one stops, and the line moves
        wait_for(lambda: len(answers(pages[-2])) == 1, 20)
        pages[-1].get_by_text("Waiting for a place: you are next.").first.wait_for()


def test_of_thirty_visitors_at_once_no_message_is_lost_though_the_queue_is_full(
    browser: Any, hosted: Path, tmp_path: Path
) -> None:
    tight = {"DEPLOYTK_MAX_RUNNING": "4", "DEPLOYTK_MAX_WAITING": "8", "STUB_TOKENS_PER_S": "4"}
    with stub_app(hosted, tmp_path / "log", **tight) as app, visitors(browser, app.url, VISITORS) as pages:
        for at, page in enumerate(pages):
            page.locator("#message").fill(f"echo number {at} of them all")
        for page in pages:
            page.evaluate("document.querySelector('#form').requestSubmit()")
        for at, page in enumerate(pages):
            until_answered(page)
            assert answers(page) == [f"number {at} of them all"]
        refused = re.findall(
            r'requests_total{path="/v1/chat/completions",status="429"} (\d+)', app.get("/metrics").text
        )

    assert int(refused[0]) > 0  # some came when nobody else could wait, and asked again by themselves


@pytest.fixture(scope="module")
def app(hosted: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with stub_app(hosted, tmp_path_factory.mktemp("app") / "log") as app:
        app.wait("ready")
        yield app


def violations(page: Any, axe: str) -> list[tuple[str, list[str]]]:
    page.evaluate(axe)
    found = page.evaluate("axe.run()")["violations"]
    return [(rule["id"], [node["html"][:120] for node in rule["nodes"]]) for rule in found]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_violation(browser: Any, app: App, axe: str, theme: str) -> None:
    with opened(browser, app.url, color_scheme=theme) as page:
        start(page)
        found = violations(page, axe)
        say(page, RICH)
        until_answered(page)
        page.locator("math").first.wait_for()
        found += violations(page, axe)
        page.locator("#open-settings").click()
        found += violations(page, axe)
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Edit").click()
        page.locator("#export").click()
        found += violations(page, axe)
        page.route("**/v1/chat/completions", lambda route: route.fulfill(
            status=400, content_type="application/json", body='{"error": {"code": "x", "message": "no"}}'
        ))  # fmt: skip
        say(page, "hello")
        page.locator(".trouble").wait_for()
        found += violations(page, axe)

    assert found == []


def test_axe_finds_no_violation_on_a_phone_while_loading_and_where_it_is_locked(
    browser: Any, app: App, hosted: Path, tmp_path: Path, axe: str
) -> None:
    broken = {"STUB_SAYS": "CUDA out of memory", "STUB_EXIT": "1"}
    with opened(browser, app.url, "zh-CN", viewport=PHONE) as page:
        say(page, RICH)
        until_answered(page)
        found = violations(page, axe)
        page.locator("#menu").click()
        found += violations(page, axe)
    with stub_app(hosted, tmp_path / "log", **broken) as failing, opened(browser, failing.url) as page:
        page.locator("#phases").wait_for()
        found += violations(page, axe)
        page.locator("#loading .trouble").wait_for()
        found += violations(page, axe)
    with stub_app(hosted, tmp_path / "log", DEPLOYTK_API_KEYS="k" * 20) as locked, opened(browser, locked.url) as page:
        page.locator("#locked").wait_for()
        found += violations(page, axe)

    assert found == []


def test_before_its_settings_are_there_the_page_has_its_heading_and_axe_finds_nothing(
    browser: Any, app: App, axe: str
) -> None:
    with opened(browser, app.url, "zh-CN") as page:
        page.route("**/page/settings.json", lambda route: None)  # never answered
        page.reload()

        assert page.locator("#title").inner_text() == "对话"
        assert violations(page, axe) == []


def refusing(code: str) -> Any:
    answer = json.dumps({"error": {"code": code, "message": "1"}})
    return lambda route: route.fulfill(status=400, content_type="application/json", body=answer)


def words_of(page: Any) -> set[str]:
    """Every word in Latin letters that is shown, or told to who cannot see the page; what programs say left out."""
    texts = page.evaluate(
        """() => [...document.querySelectorAll('body *')]
            .filter(one => !one.closest('script, noscript, code, math, [lang=en], #examples, select, textarea'))
            .flatMap(one => [...one.childNodes].filter(n => n.nodeType === 3).map(n => n.data)
                .concat(['aria-label', 'title', 'placeholder'].map(name => one.getAttribute(name) ?? '')))"""
    )
    return {word.lower() for text in texts for word in re.findall("[A-Za-z]+", text)}


def test_a_chinese_page_is_chinese_to_the_last_word(browser: Any, app: App, hosted: Path, tmp_path: Path) -> None:
    seen: set[str] = set()
    errors = ["too_large", "timeout", "engine_gone", "context_length_exceeded"]
    with opened(browser, app.url, "zh-CN") as page:
        start(page)
        seen |= words_of(page)
        say(page, "echo <think>1</think>\n```\n2\n```\n![3](https://example.com/3)")
        until_answered(page)
        page.locator("#export").click()
        seen |= words_of(page)
        page.locator("#open-settings").click()
        seen |= words_of(page)
        page.keyboard.press("Escape")
        for at, code in enumerate(errors):
            page.unroute_all()
            page.route("**/v1/chat/completions", refusing(code))
            say(page, "hello")
            until_answered(page, at + 2)
            seen |= words_of(page)
        assert page.locator(".trouble").count() == len(errors)
    with (
        stub_app(hosted, tmp_path / "log", DEPLOYTK_API_KEYS="k" * 20) as locked,
        opened(browser, locked.url, "zh-CN") as page,
    ):
        page.locator("#enter-key").click()
        page.locator("#key").fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_text("密钥不正确").wait_for()
        seen |= words_of(page)

    assert seen - LATIN - SAID == set()
