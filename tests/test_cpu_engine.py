"""The CPU engine recites the dialogs word for word, from every layout, through the real openai client."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import plain_http
import pytest
from conftest import MODELS
from ports import free_port

from deploytk.base.processes import running, wait_until

if TYPE_CHECKING:
    from openai import OpenAI  # which takes a while

pytestmark = pytest.mark.engine

DIALOGS = json.loads((MODELS / "dialogs.json").read_text())
LAYOUTS = ["hf-fp16", "hf-awq", "workspace-0.4.2-awq", "workspace-0.7.3-awq", "workspace-0.9.2-awq"]


def _raw(prompt: str) -> str:
    return f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"


@contextmanager
def _engine(model: Path, log: Path, *options: str) -> Iterator[OpenAI]:
    from openai import OpenAI

    port = free_port()
    command = [sys.executable, "-m", "deploytk.cpu_engine", str(model), "--server-port", str(port), *options]

    def answers() -> bool:
        try:
            return plain_http.get(f"http://127.0.0.1:{port}/health").status_code == 200
        except httpx.HTTPError:
            return False

    with running(command, cwd=Path.cwd(), environment={"PATH": "/usr/bin:/bin"}, log=log) as process:
        wait_until(answers, process, log, 100, "the CPU engine")
        with plain_http.Client() as http:
            yield OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", http_client=http, max_retries=0)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    """An engine on the AWQ directory, with sessions of 600 tokens."""
    log = tmp_path_factory.mktemp("engine") / "log"
    with _engine(MODELS / "hf-awq", log, "--model-name", "tiny", "--session-len", "600") as client:
        yield client


def _ask(client: OpenAI, prompt: str, **options: Any) -> Any:
    messages = [{"role": "user", "content": prompt}]
    return client.chat.completions.create(model="tiny", messages=messages, temperature=0, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_same_eight_answers(name: str, tmp_path: Path) -> None:
    with _engine(MODELS / name, tmp_path / "log") as client:
        model = client.models.list().data[0].id
        asked = [
            client.completions.create(model=model, prompt=_raw(dialog["prompt"]), temperature=0, max_tokens=600)
            for dialog in DIALOGS
        ]

    assert [done.choices[0].text for done in asked] == [dialog["answer"] for dialog in DIALOGS]


def test_chat_gives_the_eight_answers_streamed_and_whole(client: OpenAI) -> None:
    whole = [_ask(client, dialog["prompt"]).choices[0].message.content for dialog in DIALOGS]
    streamed = [
        "".join(chunk.choices[0].delta.content or "" for chunk in _ask(client, dialog["prompt"], stream=True))
        for dialog in DIALOGS
    ]

    assert whole == streamed == [dialog["answer"] for dialog in DIALOGS]


def test_usage_is_the_same_streamed_and_whole(client: OpenAI) -> None:
    whole = _ask(client, DIALOGS[3]["prompt"]).usage
    *_, last = _ask(client, DIALOGS[3]["prompt"], stream=True, stream_options={"include_usage": True})

    assert last.choices == []
    assert last.usage == whole
    assert whole.total_tokens == whole.prompt_tokens + whole.completion_tokens


def test_max_tokens_and_stop_end_an_answer(client: OpenAI) -> None:
    short = _ask(client, "thank you", max_tokens=3)
    stopped = _ask(client, "thank you", stop=["welcome"])

    assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 3)
    assert (stopped.choices[0].finish_reason, stopped.choices[0].message.content) == ("stop", "You are ")


def test_ignore_eos_gives_exactly_the_tokens_asked_for(client: OpenAI) -> None:
    answer = _ask(client, "2+2=", max_tokens=40, extra_body={"ignore_eos": True})

    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (40, "length")


def test_a_seed_makes_sampling_repeatable(client: OpenAI) -> None:
    def sample() -> str:
        done = client.completions.create(model="tiny", prompt="a", temperature=2, seed=7, max_tokens=20)
        return done.choices[0].text

    assert sample() == sample()


@pytest.mark.parametrize("coldest", [{"temperature": 5e-324}, {"temperature": 1, "top_p": 5e-324}])
def test_numbers_close_to_zero_choose_the_likeliest_tokens(client: OpenAI, coldest: dict[str, float]) -> None:
    messages = [{"role": "user", "content": "thank you"}]
    answer = client.chat.completions.create(model="tiny", messages=messages, **coldest)  # type: ignore[call-overload]

    assert answer.choices[0].message.content == "You are welcome. I am always here."


def test_another_model_is_never_loaded(client: OpenAI) -> None:
    from openai import NotFoundError

    with pytest.raises(NotFoundError, match="does not exist"):
        client.chat.completions.create(model="gpt2", messages=[{"role": "user", "content": "hi"}])


def test_a_prompt_beyond_the_session_is_refused(client: OpenAI) -> None:
    from openai import BadRequestError

    with pytest.raises(BadRequestError, match="599 are possible"):
        _ask(client, "word " * 2000)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"messages": []}',
        b'{"messages": "hello"}',
        b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": -1}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": "hot"}',
        b'{"messages": [{"role": "user", "content": "x"}], "n": 5}',
        b'{"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_object"}}',
        b'{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]}',
        b'{"messages": [{"role": "user", "content": "x"}], "repetition_penalty": 0}',
    ],
)
def test_wrong_requests_get_an_openai_error(client: OpenAI, body: bytes) -> None:
    url = f"{client.base_url}chat/completions"
    answer = plain_http.post(url, content=body, headers={"Content-Type": "application/json"})

    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["type"] == "invalid_request_error"
    # The field to blame, where the body is one that has fields.
    assert (error["param"] or "") in error["message"]
    assert bool(error["param"]) == (body not in (b"{", b"[]"))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "nowhere", 404), ("GET", "chat/completions", 405), ("POST", "models", 405), ("GET", "models/other", 404)],
)
def test_every_path_refuses_in_the_shape_of_openai(client: OpenAI, method: str, path: str, status: int) -> None:
    answer = plain_http.request(method, f"{client.base_url}{path}")

    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_the_model_can_be_retrieved_and_has_an_age(client: OpenAI) -> None:
    model = client.models.retrieve("tiny")

    assert model == client.models.list().data[0]
    assert abs(model.created - time.time()) < 3600


def test_a_list_of_prompts_is_answered_one_by_one_streamed_and_whole(client: OpenAI) -> None:
    prompts = [_raw(dialog["prompt"]) for dialog in DIALOGS[:3]]
    asked: dict[str, Any] = {"model": "tiny", "prompt": prompts, "temperature": 0, "max_tokens": 100}

    whole = client.completions.create(**asked)
    streamed = ["", "", ""]
    for chunk in client.completions.create(**asked, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text

    assert [choice.text for choice in whole.choices] == streamed == [dialog["answer"] for dialog in DIALOGS[:3]]
    alone = [client.completions.create(**{**asked, "prompt": prompt}).usage for prompt in prompts]
    assert whole.usage.total_tokens == sum(usage.total_tokens for usage in alone)


def test_a_client_that_goes_away_frees_the_engine(client: OpenAI) -> None:
    long = _ask(client, "2+2=", max_tokens=500, stream=True, extra_body={"ignore_eos": True})
    next(iter(long))
    long.close()

    assert _ask(client, "2+2=", timeout=10).choices[0].message.content == "4"


def test_a_client_that_gives_up_on_a_whole_answer_frees_the_engine(client: OpenAI) -> None:
    from openai import APITimeoutError

    started = time.monotonic()
    _ask(client, "2+2=", max_tokens=250, extra_body={"ignore_eos": True})
    whole_s = time.monotonic() - started

    with pytest.raises(APITimeoutError):
        _ask(client, "2+2=", max_tokens=250, extra_body={"ignore_eos": True}, timeout=0.2)
    started = time.monotonic()
    _ask(client, "2+2=")

    # Were it not freed, most of `whole_s` would pass first.
    assert time.monotonic() - started < whole_s / 2


def test_a_broken_model_ends_the_engine_with_two_lines(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploytk.cpu_engine", str(tmp_path)], capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 1
    assert "holds no model" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_batch_gives_the_same_answers_as_one_at_a_time(tmp_path: Path) -> None:
    with _engine(MODELS / "hf-fp16", tmp_path / "log", "--model-name", "tiny", "--max-batch-size", "8") as client:

        def ask(dialog: dict[str, str], **options: Any) -> Any:
            return _ask(client, dialog["prompt"], **options).choices[0].message.content

        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(ask, DIALOGS))
            lengths = list(threads.map(lambda count: _ask(client, "hi", max_tokens=count).usage, range(1, 9)))

    assert answers == [dialog["answer"] for dialog in DIALOGS]
    assert [usage.completion_tokens for usage in lengths] == list(range(1, 9))
