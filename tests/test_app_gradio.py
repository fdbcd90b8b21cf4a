"""Gradio in the app: the function `/chat`, as gradio_client calls it, beside a page that is there before it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from apps import App, make_app, running_app, wait_for

pytestmark = [pytest.mark.services, pytest.mark.timeout(200)]
KEY = "a-key-of-twenty-letters"
HEADERS = {"authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    place = tmp_path_factory.mktemp("gradio")
    bundle = make_app(place, "gradio")
    with running_app(bundle, place / "log", {"DEPLOYTK_API_KEYS": KEY}) as app:
        # The page does not wait for Gradio, which is still being imported.
        assert app.get("/").status_code == 200
        assert app.get("/config", headers=HEADERS).status_code == 503
        wait_for(lambda: app.get("/config", headers=HEADERS).status_code == 200, 120, lambda: app.output)
        yield app


@pytest.fixture(scope="module")
def client(app: App) -> Any:
    from gradio_client import Client

    return Client(app.url, headers=HEADERS, verbose=False)


def test_an_answer_comes_as_it_grows_with_history_and_system_prompt(client: Any) -> None:
    history = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hello"}]
    job = client.submit("echo to be or not to be", history, "Be brief.", api_name="/chat")

    assert job.result(timeout=30) == "to be or not to be"
    assert job.outputs()[0] == "to b"


def test_what_the_engine_refuses_is_an_error_in_its_words(client: Any) -> None:
    with pytest.raises(Exception, match="temperature"):
        client.predict("hello", temperature=9, api_name="/chat")


def test_nothing_of_it_is_open_without_the_key(app: App) -> None:
    paths = ["/config", "/gradio_api/info", "/gradio_api/call/chat/x", "/gradio_api/queue/data"]

    assert [app.get(path).status_code for path in paths] == [401] * len(paths)
