"""The chat page in a real browser, against the engine stub and the CPU engine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apps import App, wait_for
from pages import (
    MODELS,
    PHONE,
    answers,
    keep_screenshot,
    opened,
    say,
    start,
    stub_app,
    until_answered,
)

from deploytk.base.progress import Silent
from deploytk.bundle import Golden
from deploytk.serve import Endpoint, ServeOptions, open_endpoint

DIALOGS = json.loads((MODELS / "dialogs.json").read_text(encoding="utf-8"))
SLOW_NETWORK = {"offline": False, "latency": 150, "downloadThroughput": 200_000, "uploadThroughput": 95_000}  # Slow 4G
RICH = r"""echo <think>The *user* wants it all.</think>
It is $E = mc^2$, \(a_n\) and **bold**, for $5 and $6. <b>No tag</b>

$$
\int_0^1 x^2\,dx = \frac{1}{3}
- 0
$$

\[ \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} \]

| model | bits |
|:--|--:|
| 书生 | 4 |

```python
x ** 2
```

![a cat](https://example.com/cat.png) and [a link](https://example.com)
"""

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def app(hosted: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with stub_app(hosted, tmp_path_factory.mktemp("app") / "log", STUB_TOKENS_PER_S="400") as app:
        app.wait("ready")
        yield app


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    """The tiny model behind its page, on the CPU engine."""
    golden = tuple(Golden(dialog["prompt"], dialog["answer"]) for dialog in DIALOGS)
    options = ServeOptions(engine="cpu", app="gradio", golden=golden, ready_within_s=120)
    with open_endpoint(str(MODELS / "hf-awq"), options, Silent()) as endpoint:
        yield endpoint


def last_request(page: Any, act: Any) -> dict[str, Any]:
    with page.expect_request("**/v1/chat/completions") as sent:
        act()
    return dict(sent.value.post_data_json)


@pytest.mark.parametrize(("language", "theme"), [("en-US", "light"), ("zh-CN", "dark")])
def test_a_whole_conversation_gives_the_golden_answers(
    browser: Any,
    endpoint: Endpoint,
    language: str,
    theme: str,
    pytestconfig: pytest.Config,
) -> None:
    with opened(browser, endpoint.url, language, color_scheme=theme) as page:
        start(page)
        page.locator("#open-settings").click()
        page.locator("#temperature").fill("0")
        page.locator("#settings .head button").click()
        for dialog in DIALOGS:
            say(page, dialog["prompt"])
            until_answered(page)
            assert answers(page) == [dialog["answer"]]
            if dialog is DIALOGS[2 if language == "zh-CN" else 4]:
                keep_screenshot(page, f"chat-{language}.png", pytestconfig)
            page.locator("#new").click()

        assert page.locator("#conversations li").count() == len(DIALOGS)


def test_a_greeting_with_examples_one_title_and_the_focus_in_the_box(browser: Any, app: App) -> None:
    with opened(browser, app.url) as page:
        start(page)
        titles = page.locator("h1:visible").all_inner_texts()
        examples = page.locator("#examples button").all_inner_texts()
        focus = "document.activeElement.id"
        before = page.evaluate(focus)
        page.locator("#examples button").first.click()
        until_answered(page)
        after = page.evaluate(focus)
        height = page.evaluate("document.querySelector('footer').getBoundingClientRect().bottom")

    assert (titles, examples) == (["tiny"], ["hello there", "你是谁"])
    assert (before, after) == ("message", "message")
    assert height == 800  # the whole window


def test_where_the_bundle_has_no_examples_the_page_has_some(browser: Any, endpoint: Endpoint) -> None:
    def without_examples(route: Any) -> None:
        route.fulfill(json={"title": "x", "examples": [], "session_len": 64, "running": 1})

    with browser.new_context(locale="zh-CN") as context:
        page = context.new_page()
        page.route("**/page/settings.json", without_examples)
        page.goto(endpoint.url)
        start(page)

        assert page.locator("#examples button").count() == 4
        assert page.locator("#examples button").first.inner_text().startswith("你是谁")


def test_conversations_are_kept_over_a_reload_and_there_are_several(browser: Any, app: App) -> None:
    with opened(browser, app.url) as page:
        start(page)
        say(page, "echo the first answer")
        until_answered(page)
        page.locator("#new").click()
        say(page, "echo the second answer")
        until_answered(page)
        page.reload()
        wait_for(lambda: answers(page) == ["the second answer"], 10)
        page.locator("#conversations .name", has_text="the first").click()
        assert answers(page) == ["the first answer"]

        # A conversation goes on where it was: the model is told all of it.
        sent = last_request(page, lambda: say(page, "echo and on"))
        until_answered(page, 2)
        page.once("dialog", lambda dialog: dialog.accept("Renamed"))
        page.locator("#conversations li", has_text="the first").hover()
        page.get_by_role("button", name="Rename").first.click()
        page.once("dialog", lambda dialog: dialog.accept())
        page.locator("#conversations li", has_text="the second").hover()
        page.get_by_role("button", name="Delete echo the second answer").click()
        names = page.locator("#conversations .name").all_inner_texts()

    roles = [(turn["role"], turn["content"]) for turn in sent["messages"]]
    assert roles == [("user", "echo the first answer"), ("assistant", "the first answer"), ("user", "echo and on")]
    assert names == ["Renamed"]


def test_a_question_is_edited_and_an_answer_made_again_and_no_version_is_lost(
    browser: Any,
    app: App,
) -> None:
    with opened(browser, app.url) as page:
        start(page)
        say(page, "echo one")
        until_answered(page)
        page.get_by_role("button", name="Answer again").click()
        until_answered(page)
        versions = page.locator(".assistant .version").inner_text()
        page.get_by_role("button", name="Edit").click()
        page.locator(".editing textarea").fill("echo two")
        page.locator(".editing .main").click()
        wait_for(lambda: answers(page) == ["two"], 10)
        until_answered(page)
        page.locator(".user").get_by_role("button", name="Previous version").click()
        page.reload()
        wait_for(lambda: answers(page) == ["one"], 10)

    assert versions == "2 of 2"


def test_formulas_tables_code_and_thoughts_are_drawn_and_nothing_is_loaded_from_elsewhere(
    browser: Any,
    app: App,
    pytestconfig: pytest.Config,
) -> None:
    with opened(browser, app.url) as page:
        start(page)
        say(page, RICH)
        until_answered(page)
        answer = page.locator("#messages .assistant .body")
        page.locator("math").nth(3).wait_for(state="attached")
        assert answer.locator("math").count() == 4
        assert answer.locator(".math.block").count() == 2
        assert "$5 and $6. <b>No tag</b>" in answer.inner_text()
        assert answer.locator("td").all_inner_texts() == ["书生", "4"]
        assert answer.locator("pre code").inner_text().strip() == "x ** 2"
        assert answer.locator("img").count() == 0
        assert answer.locator("a.image").get_attribute("href") == "https://example.com/cat.png"
        assert not answer.locator(".thoughts .text").is_visible()
        keep_screenshot(page, "chat-rich.png", pytestconfig)
        answer.locator("summary").click()
        assert answer.locator(".thoughts em").inner_text() == "user"
        # What was thought is not sent back; a script in an answer never runs.
        sent = last_request(page, lambda: say(page, "echo <img src=x onerror=alert(1)><script>alert(2)</script>"))
        until_answered(page, 2)
        assert answers(page)[-1].startswith("<img src=x")

    assert "think" not in sent["messages"][1]["content"]


LINKS = "[far](https://example.com) [here](/login) [beside](x.md) [script](javascript:alert(1)) note[^1]\n\n[^1]: where"


def test_links_lead_out_of_the_page_into_another_tab_in_thoughts_too(browser: Any, app: App) -> None:
    """A link without a host would lead into the app, as the label of a footnote does."""
    with opened(browser, app.url) as page:
        start(page)
        say(page, f"echo <think>{LINKS}</think>\n\n{LINKS}")
        until_answered(page)
        links = page.locator("#messages .assistant .body a").evaluate_all("all => all.map(a => [a.href, a.target])")

    assert links == [["https://example.com/", "_blank"]] * 2


def test_thoughts_that_the_server_sends_apart_are_folded_too(browser: Any, app: App) -> None:
    with opened(browser, app.url) as page:
        start(page)
        say(page, "echo hm, hm. Yes.")  # the stub sends four letters at a time
        until_answered(page)
        answer = page.locator("#messages .assistant .body")
        assert not answer.locator(".thoughts .text").is_visible()
        answer.locator("summary").click()
        assert answer.locator(".thoughts .text").inner_text().strip() == "hm, hm."
        sent = last_request(page, lambda: say(page, "echo And?"))
        until_answered(page, 2)

    assert sent["messages"][1]["content"].strip() == "Yes."


def test_a_system_prompt_presets_and_sampling_are_sent(browser: Any, app: App, pytestconfig: pytest.Config) -> None:
    with opened(browser, app.url) as page:
        start(page)
        page.locator("#open-settings").click()
        page.locator("#preset").select_option("translator")
        page.locator("#system").fill("Speak like a pirate.")
        page.locator("#preset-name").fill("Pirate")
        page.get_by_role("button", name="Save as a preset").click()
        page.locator("#preset").select_option("coder")
        keep_screenshot(page, "settings.png", pytestconfig)
        page.locator("#preset").select_option("own:Pirate")
        page.locator("#temperature").fill("0.2")
        page.locator("#max-tokens").fill("99999")
        page.keyboard.press("Escape")
        page.reload()
        start(page)
        sent = last_request(page, lambda: say(page, "echo hi"))
        until_answered(page)

    assert sent["messages"][0] == {"role": "system", "content": "Speak like a pirate."}
    assert (sent["temperature"], sent["max_tokens"]) == (0.2, 2047)  # one token of the context is for the question


def test_speed_and_what_is_left_of_the_context_are_shown(browser: Any, app: App) -> None:
    with opened(browser, app.url) as page:
        start(page)
        empty = page.locator("#context").inner_text()
        say(page, "echo " + "x" * 80)
        until_answered(page)
        speed, context = page.locator("#speed").inner_text(), page.locator("#context").inner_text()

    assert re.fullmatch(r"[\d.,]+ tokens/s", speed)
    # 20 pieces and the 3 tokens that the stub counts for every question.
    assert (empty, context) == ("2,048 of 2,048 tokens of context left", "2,025 of 2,048 tokens of context left")


def test_where_the_engine_does_not_count_the_context_is_guessed_and_said_to_be(browser: Any, app: App) -> None:
    def without_usage(route: Any) -> None:
        fields = {name: value for name, value in route.request.post_data_json.items() if name != "stream_options"}
        route.continue_(post_data=json.dumps(fields))

    with opened(browser, app.url) as page:
        start(page)
        page.route("**/v1/chat/completions", without_usage)
        say(page, "echo " + "x" * 100)
        until_answered(page)
        context = page.locator("#context").inner_text()

    # 105 letters asked, a space, 100 answered: 206 / 4 = 51.5, rounded up.
    assert context == "≈ 1,996 of 2,048 tokens of context left"


def test_a_conversation_is_exported(browser: Any, app: App) -> None:
    with opened(browser, app.url) as page:
        start(page)
        say(page, "echo it is 42")
        until_answered(page)
        files = []
        for entry in ("This chat as Markdown", "This chat as JSON", "All chats as JSON"):
            page.locator("#export").click()
            with page.expect_download() as download:
                page.get_by_role("menuitem", name=entry).click()
            files.append((download.value.suggested_filename, Path(download.value.path()).read_text(encoding="utf-8")))

    assert [name for name, _ in files] == ["echo-it-is-42.md", "echo-it-is-42.json", "tiny.json"]
    assert files[0][1] == "# echo it is 42\n\ntiny\n\n## You\n\necho it is 42\n\n## Model\n\nit is 42\n"
    said = [{"role": "user", "content": "echo it is 42"}, {"role": "assistant", "content": "it is 42"}]
    assert all(json.loads(text)["chats"][0]["messages"] == said for _, text in files[1:])


def test_a_copied_answer_is_the_text_of_the_model(browser: Any, app: App) -> None:
    with opened(browser, app.url, permissions=["clipboard-read", "clipboard-write"]) as page:
        start(page)
        say(page, "echo **bold** and `code`")
        until_answered(page)
        page.locator(".assistant").get_by_role("button", name="Copy").click()
        page.locator(".assistant").get_by_role("button", name="Copied").wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == "**bold** and `code`"


def test_on_a_phone_nothing_is_wider_than_the_screen_and_the_text_is_large(
    browser: Any,
    app: App,
    pytestconfig: pytest.Config,
) -> None:
    with opened(browser, app.url, "zh-CN", viewport=PHONE, has_touch=True, is_mobile=True) as page:
        start(page)
        say(page, RICH + "\n" + "long" * 100)
        until_answered(page)
        keep_screenshot(page, "chat-phone.png", pytestconfig)
        size = "name => getComputedStyle(document.querySelector(name)).fontSize"
        assert [page.evaluate(size, name) for name in (".assistant .text", "#message")] == ["16px", "16px"]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        margins = page.evaluate("document.querySelector('.assistant .text').getBoundingClientRect().left")
        page.locator("#menu").click()
        assert page.locator("#conversations .name").count() == 1
        page.keyboard.press("Escape")
        assert not page.locator("#side").is_visible()

    assert margins <= 12


def test_stop_keeps_what_was_said_and_shows_no_error(browser: Any, hosted: Path, tmp_path: Path) -> None:
    with stub_app(hosted, tmp_path / "log", STUB_TOKENS_PER_S="20") as app:
        with opened(browser, app.url, "zh-CN") as page:
            start(page)
            say(page, "hello")
            wait_for(lambda: "t5" in "".join(answers(page)), 10)
            assert app.stub()["running"] == 1
            page.locator("#send").click()
            until_answered(page)
            wait_for(lambda: app.stub()["running"] == 0, 5)
            assert page.locator(".trouble").count() == 0
            assert page.locator(".note").inner_text() == "已停止。"
            assert "t5" in answers(page)[0]
            say(page, "hello again")
            wait_for(lambda: "t5" in "".join(answers(page)[1:]), 10)

        # So does a page that is closed.
        wait_for(lambda: app.stub()["running"] == 0, 10)


def test_the_phases_that_happened_are_shown_until_the_model_is_there(
    browser: Any,
    hosted: Path,
    tmp_path: Path,
    pytestconfig: pytest.Config,
) -> None:
    says = {"STUB_LOAD_S": "4", "STUB_SAYS": "Convert to turbomind format:  42%|####      | 13/32"}
    with stub_app(hosted, tmp_path / "log", **says) as app, opened(browser, app.url, "zh-CN") as page:
        page.locator("#phases .now", has_text="加载模型").wait_for()
        page.locator("progress").wait_for()
        keep_screenshot(page, "loading.png", pytestconfig)
        passed = page.locator("#phases li span:first-child").all_inner_texts()
        percent, line = page.locator("progress").get_attribute("value"), page.locator("#detail").inner_text()
        say(page, "hello")  # before the model is there: it is kept, and sent then
        start_of_answer = page.locator(".assistant .text")
        start_of_answer.wait_for()

    assert passed == ["启动", "校验文件", "加载模型"]  # nothing was fetched
    assert (percent, line) == ("42", says["STUB_SAYS"])


def test_why_it_failed_and_what_to_do_is_shown(
    browser: Any,
    hosted: Path,
    tmp_path: Path,
    pytestconfig: pytest.Config,
) -> None:
    broken = {"STUB_SAYS": "RuntimeError: CUDA out of memory", "STUB_EXIT": "1"}
    with stub_app(hosted, tmp_path / "log", **broken) as app, opened(browser, app.url) as page:
        page.locator("#loading .trouble").wait_for(timeout=60_000)
        keep_screenshot(page, "failed.png", pytestconfig)

        assert "smaller --max-batch-size" in page.locator("#loading .trouble").inner_text()
        assert "CUDA out of memory" in page.locator("#detail").inner_text()


def test_a_key_is_asked_for_in_words_and_kept_for_the_session(
    browser: Any,
    hosted: Path,
    tmp_path: Path,
    pytestconfig: pytest.Config,
) -> None:
    with stub_app(hosted, tmp_path / "log", DEPLOYTK_API_KEYS="open-sesame") as app, browser.new_context() as context:
        app.wait("ready")
        page = context.new_page()
        page.goto(app.url)
        page.get_by_text("Enter your key under Settings").wait_for()
        keep_screenshot(page, "key.png", pytestconfig)
        say(page, "echo before the key")
        page.locator("#key").fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_text("This is no key of this server").wait_for()
        page.locator("#key").fill("open-sesame")
        page.keyboard.press("Enter")
        start(page)
        page.locator("#message").press("Enter")  # what was typed before is still there
        wait_for(lambda: answers(page) == ["before the key"], 10)

        # Another page of the same browser need not; another browser must.
        other = context.new_page()
        other.goto(app.url)
        start(other)
        with browser.new_context() as stranger:
            page = stranger.new_page()
            page.goto(app.url)
            page.locator("#locked").wait_for()
            assert "tiny" not in page.content()


def test_a_session_that_ended_is_told_in_the_chat_and_the_question_is_asked_again(
    browser: Any,
    hosted: Path,
    tmp_path: Path,
) -> None:
    with stub_app(hosted, tmp_path / "log", DEPLOYTK_API_KEYS="k" * 20) as app, browser.new_context() as context:
        app.wait("ready")
        page = context.new_page()
        page.goto(app.url)
        enter_key(page, "#enter-key")
        start(page)
        context.clear_cookies()
        say(page, "echo still here")
        page.locator(".trouble", has_text="Enter your key under Settings").wait_for()
        enter_key(page, ".trouble button")

        wait_for(lambda: answers(page) == ["still here"], 10)


def enter_key(page: Any, button: str) -> None:
    page.locator(button).click()
    page.locator("#key").fill("k" * 20)
    page.keyboard.press("Enter")


def test_the_first_paint_comes_within_two_seconds_on_a_slow_network(browser: Any, app: App) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        context.new_cdp_session(page).send("Network.emulateNetworkConditions", SLOW_NETWORK)
        page.goto(app.url)
        start(page)
        first = page.evaluate("performance.getEntriesByName('first-paint')[0].startTime")

    assert first <= 2000


def test_both_languages_have_every_word(browser: Any, app: App) -> None:
    names = """async () => {
        const { LANGUAGES } = await import(new URL('page/words.js', location.href));
        const names = (words) => Object.entries(words).flatMap(([name, value]) =>
            typeof value === 'string' ? [`${name}:${(value.match(/\\{\\w+\\}/g) ?? []).sort()}`]
            : Array.isArray(value) ? [name] : names(value).map((inner) => `${name}.${inner}`));
        return LANGUAGES.map((words) => names(words).sort());
    }"""
    with opened(browser, app.url) as page:
        english, chinese = page.evaluate(names)

    assert len(english) > 80
    assert english == chinese  # and the same values in each
