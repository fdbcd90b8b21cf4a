"""The app of a bundle as users and strangers meet it: the process, its port, its answers. The engine is a stub."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import plain_http
import pytest
from apps import App, is_alive, make_app, running_app, wait_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploytk.app import engine
from deploytk.bundle import SHIPPED_APP

OPENAPI_OF_LMDEPLOY = Path(__file__).parent / "lmdeploy_routes.json"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_app(tmp_path_factory.mktemp("app"))


@pytest.fixture(scope="module")
def app(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """One that many tests share: none of them harms it."""
    limits = {"DEPLOYTK_MAX_RUNNING": "256", "DEPLOYTK_MAX_BODY_BYTES": str(2 * 2**20)}
    with running_app(bundle, tmp_path_factory.mktemp("log") / "app.log", limits) as app:
        app.wait("ready")
        yield app


@contextlib.contextmanager
def ready_app(bundle: Path, tmp_path: Path, **environment: str) -> Iterator[App]:
    with running_app(bundle, tmp_path / "app.log", environment) as app:
        app.wait("ready")
        yield app


def stream(app: App, **more: Any) -> contextlib.AbstractContextManager[httpx.Response]:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "stream": True, **more}
    return plain_http.stream("POST", app.url + "/v1/chat/completions", json=body, timeout=60)


# What it serves


def test_an_answer_and_a_stream_come_through_unchanged(app: App) -> None:
    import openai

    client = openai.OpenAI(base_url=f"{app.url}/v1", api_key="none", max_retries=0)
    asked: Any = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}

    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))

    assert whole.choices[0].message.content == "t0 t1 t2 "
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "t0 t1 t2 "
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    assert client.completions.create(model="tiny", prompt="x", max_tokens=2).choices[0].text == "t0 t1 "
    assert [model.id for model in client.models.list()] == ["tiny"]


def test_chunks_of_an_engine_are_taken_apart(app: App) -> None:
    with stream(app, max_tokens=30) as plain, stream(app, max_tokens=30, stub_chunks=True) as chunked:
        lines = [[line for line in answer.iter_lines() if line] for answer in (plain, chunked)]

    assert lines[1] == lines[0]
    assert lines[1][-1] == "data: [DONE]"


def test_tokens_are_not_held_back(app: App) -> None:
    with stream(app, max_tokens=10_000, stub_tokens_per_s=20) as answer:
        lines = answer.iter_lines()
        first = [next(lines) for _ in range(3)]

        assert first[0].startswith("data: {")
        assert app.stub()["running"] >= 1  # which goes on for minutes


def test_two_hundred_streams_run_at_once(app: App) -> None:
    async def one(client: httpx.AsyncClient) -> int:
        body = {"model": "tiny", "prompt": "x", "stream": True, "max_tokens": 20, "stub_tokens_per_s": 20}
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            return len([line async for line in answer.aiter_lines() if line.startswith("data: ")])

    async def all_of_them() -> list[int]:
        limits = httpx.Limits(max_connections=None)
        async with plain_http.AsyncClient(base_url=app.url, limits=limits, timeout=60) as client:
            return await asyncio.gather(*(one(client) for _ in range(200)))

    counts = asyncio.run(all_of_them())

    assert counts == [22] * 200  # 20 tokens, the finish reason, [DONE]


def test_health_readiness_and_metrics_are_honest(app: App) -> None:
    app.chat(max_tokens=1)

    assert app.get("/health").json() == {"status": "ok"}
    state = app.state
    assert [phase["state"] for phase in state.pop("phases")] == ["starting", "verifying", "loading", "ready"]
    assert "stub pid" in state.pop("log")
    told = {"state": "ready", "engine": "turbomind", "model": "tiny", "detail": "", "page": False}
    assert state == {**told, "fault": "", "percent": None}
    metrics = app.get("/metrics").text
    assert 'deploytk_requests_total{path="/v1/chat/completions",status="200"}' in metrics
    assert "deploytk_first_byte_seconds_count" in metrics
    assert "lmdeploy:num_requests_running" in metrics


# What it does not serve


def test_no_other_route_of_the_engine_is_reachable(app: App) -> None:
    routes = json.loads(OPENAPI_OF_LMDEPLOY.read_text())
    ours = {"/v1/models", "/v1/chat/completions", "/v1/completions", "/health", "/metrics", "/"}

    reached = [
        (method, route)
        for route in routes
        for method in ("GET", "POST", "PUT", "DELETE")
        if route not in ours and plain_http.request(method, app.url + route, json={}).status_code != 404
    ]

    assert len(routes) > 20
    assert reached == []


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "not JSON"),
        (b"[1]", 400, "not a JSON object"),
        (b"\xff\xfe{}", 400, "UTF-8"),
        (b'{"model":"tiny","prompt":"\\ud800"}', 400, "UTF-8"),
        (b'{"model":"tiny","prompt":"x","temperature":NaN}', 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b'{"model":"tiny","prompt":"x","max_tokens":-1}', 400, "max_tokens"),
        (b'{"model":"tiny","prompt":"x","max_tokens":"9"}', 400, "max_tokens"),
        (b'{"model":"tiny","prompt":"x","max_tokens":true}', 400, "max_tokens"),
        (b'{"model":"tiny","prompt":"x","temperature":-0.1}', 400, "temperature"),
        (b'{"model":"tiny","prompt":"x","temperature":1e999}', 400, "temperature"),
        (b'{"model":"tiny","prompt":"x","top_p":0}', 400, "top_p"),
        (b'{"model":"tiny","prompt":"x","stream":"yes"}', 400, "stream"),
        (b'{"model":"tiny","prompt":"x","stop":[1]}', 400, "stop"),
        (b'{"model":"tiny","prompt":""}', 400, "prompt"),
        (b'{"model":"tiny","prompt":[1]}', 400, "prompt"),
        (b'{"prompt":"x"}', 400, "model"),
        (b'{"model":"gpt-4","prompt":"x"}', 404, "there is 'tiny'"),
        (b'{"model":"tiny","prompt":"x","stub_status":400}', 400, "stub says no"),
        (b'{"model":"tiny","prompt":"' + b"x" * 2**21 + b'"}', 413, "bytes"),
    ],
)  # fmt: skip
def test_bad_requests_get_one_line_in_the_shape_of_openai(app: App, body: bytes, status: int, words: str) -> None:
    answer = plain_http.post(app.url + "/v1/completions", content=body, headers={"content-type": "application/json"})

    error = answer.json()["error"]
    assert (answer.status_code, words in error["message"]) == (status, True), error
    assert set(error) == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]


@pytest.mark.parametrize("messages", [None, [], "hi", ["hi"], [{"role": "user"}], [{"role": 1, "content": "x"}]])
def test_bad_messages_are_named(app: App, messages: Any) -> None:
    answer = app.post("/v1/chat/completions", {"model": "tiny", "messages": messages})

    assert answer.status_code == 400
    assert "messages" in answer.json()["error"]["message"]


def test_a_megabyte_of_prompt_goes_through(app: App) -> None:
    assert app.post("/v1/completions", {"model": "tiny", "prompt": "x" * 2**20}).status_code == 200


def test_pages_of_other_sites_cannot_use_it(app: App) -> None:
    answer = plain_http.post(app.url + "/v1/completions", content=b"{}", headers={"content-type": "text/plain"})
    asked_before = plain_http.options(app.url + "/v1/completions", headers={"origin": "http://evil.example"})

    assert answer.status_code == 415
    assert asked_before.status_code == 405
    assert not [name for name in asked_before.headers if name.startswith("access-control")]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
_FIELDS = st.sampled_from(
    "model messages prompt max_tokens temperature top_p top_k seed stop stream stream_options n".split()
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(route=st.sampled_from(["/v1/chat/completions", "/v1/completions"]), fields=st.dictionaries(_FIELDS, _JSON))
def test_no_request_makes_it_fail(app: App, route: str, fields: dict[str, Any]) -> None:
    known = {"model": "tiny", "prompt": "x", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    body = json.dumps({**known, **fields})

    answer = plain_http.post(app.url + route, content=body, headers={"content-type": "application/json"}, timeout=30)

    assert answer.status_code < 500, (body, answer.text)


# Keys and limits


def test_keys_are_asked_for_where_there_are_some(bundle: Path, tmp_path: Path) -> None:
    with ready_app(bundle, tmp_path, DEPLOYTK_API_KEYS="one, two") as app:
        statuses = {
            key: app.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code
            for key in ("one", "two", "three", "x")
        }
        missing = [app.get(path).status_code for path in ("/v1/models", "/metrics", "/health", "/ready")]

        assert statuses == {"one": 200, "two": 200, "three": 401, "x": 401}
        assert missing == [401, 401, 200, 200]
        # The engine never sees them.
        assert b"DEPLOYTK_API_KEYS" not in Path(f"/proc/{app.engine[0]}/environ").read_bytes()


def test_more_requests_than_may_wait_are_told_when_to_come_back(bundle: Path, tmp_path: Path) -> None:
    limits = {"DEPLOYTK_MAX_RUNNING": "1", "DEPLOYTK_MAX_WAITING": "1"}
    with ready_app(bundle, tmp_path, **limits) as app, contextlib.ExitStack() as stack:
        stack.enter_context(stream(app, max_tokens=400, stub_tokens_per_s=20))
        waiting = stack.enter_context(contextlib.closing(_start_request(app, {"max_tokens": 1})))
        wait_for(lambda: "deploytk_requests_waiting 1" in app.get("/metrics").text, 5)

        refused = app.chat()
        listed = app.get("/v1/models")
        waiting.close()

        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        assert refused.json()["error"]["code"] == "too_many_requests"
        assert listed.status_code == 200
        # Who gave up waiting leaves the queue.
        wait_for(lambda: "deploytk_requests_waiting 0" in app.get("/metrics").text, 5)


def _start_request(app: App, fields: dict[str, Any]) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", int(app.url.rpartition(":")[2])))
    body = json.dumps({"model": "tiny", "prompt": "x", **fields}).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def test_an_answer_without_end_is_ended(bundle: Path, tmp_path: Path) -> None:
    with ready_app(bundle, tmp_path, DEPLOYTK_REQUEST_S="1") as app:
        with stream(app, max_tokens=1000, stub_tokens_per_s=20) as answer:
            lines = [line for line in answer.iter_lines() if line]
        whole = app.chat(max_tokens=1000, stub_tokens_per_s=20)

        assert json.loads(lines[-1].removeprefix("data: "))["error"]["code"] == "timeout"
        assert whole.status_code == 504
        wait_for(lambda: app.stub()["running"] == 0, 5)


def test_a_client_that_sends_slowly_is_dropped(bundle: Path, tmp_path: Path) -> None:
    with ready_app(bundle, tmp_path, DEPLOYTK_BODY_S="1") as app:
        port = int(app.url.rpartition(":")[2])
        with (
            socket.create_connection(("127.0.0.1", port)) as silent,
            socket.create_connection(("127.0.0.1", port)) as slow,
        ):
            silent.sendall(b"GET /hea")
            head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            slow.sendall(head + b"Content-Length: 99\r\n\r\n{")
            for connection in (silent, slow):
                connection.settimeout(5)

            assert b"408" in slow.recv(1000)
            with contextlib.suppress(ConnectionResetError):
                assert silent.recv(1000) == b""
        assert app.get("/health").status_code == 200


def test_a_client_that_vanishes_frees_the_engine(app: App) -> None:
    before = app.stub()["cancelled"]

    with stream(app, max_tokens=1000, stub_tokens_per_s=20) as answer:
        lines = answer.iter_lines()  # kept: to drop it is to close the connection
        next(lines)
        assert app.stub()["running"] == 1
    waiting = _start_request(app, {"max_tokens": 1000, "stub_tokens_per_s": 20})
    wait_for(lambda: app.stub()["running"] == 1 and app.stub()["cancelled"] == before + 1, 5)
    waiting.close()

    wait_for(lambda: app.stub()["running"] == 0, 5)
    assert app.stub()["cancelled"] == before + 2


# Engines that start late, wrong, or not; and that die


def test_it_answers_while_the_engine_loads(bundle: Path, tmp_path: Path) -> None:
    with running_app(bundle, tmp_path / "app.log", {"STUB_LOAD_S": "1"}) as app:
        state = app.wait("loading", within_s=5)
        early = app.chat()

        assert state["model"] == ""
        assert app.get("/health").status_code == 200
        assert app.get("/ready").status_code == 503
        assert (early.status_code, early.headers["retry-after"]) == (503, "1")
        app.wait("ready")


def test_a_lost_engine_is_started_again(bundle: Path, tmp_path: Path) -> None:
    with ready_app(bundle, tmp_path) as app:
        first, _ = app.engine
        with stream(app, max_tokens=1000, stub_tokens_per_s=50) as answer:
            lines = answer.iter_lines()
            next(lines)
            os.kill(first, signal.SIGKILL)
            rest = [line for line in lines if line]
        refused = app.chat()

        # The stream does not end as if it were whole.
        assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "engine_lost"
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        wait_for(lambda: app.engine[0] != first, 60)
        app.wait("ready")
        assert app.chat().status_code == 200


def test_a_silent_fall_back_to_another_engine_is_refused(bundle: Path, tmp_path: Path) -> None:
    says = {"STUB_SAYS": "WARNING - Fallback to pytorch engine because turbomind engine is not installed"}
    with running_app(bundle, tmp_path / "app.log", says) as app:
        state = app.wait("failed")

        assert "fell back to its PyTorch engine" in state["detail"]
        assert app.chat().status_code == 503


def test_an_engine_that_cannot_start_says_why(bundle: Path, tmp_path: Path) -> None:
    broken = {"STUB_SAYS": "RuntimeError: CUDA out of memory", "STUB_EXIT": "1"}
    with running_app(bundle, tmp_path / "app.log", broken) as app:
        state = app.wait("failed")

        assert "ended with code 1" in state["detail"]
        assert "CUDA out of memory" in state["detail"]


def test_an_engine_that_is_never_ready_says_why(bundle: Path, tmp_path: Path) -> None:
    slow = {"STUB_LOAD_S": "60", "STUB_SAYS": "still compiling", "DEPLOYTK_READY_S": "1"}
    with running_app(bundle, tmp_path / "app.log", slow) as app:
        state = app.wait("failed")

        assert "no token within 1 s" in state["detail"]
        assert "still compiling" in state["detail"]


def test_missing_files_and_pointers_are_named(tmp_path: Path) -> None:
    bundle = make_app(tmp_path)
    weights = bundle / "model.safetensors"
    kept = weights.read_bytes()
    weights.unlink()

    with running_app(bundle, tmp_path / "app.log") as app:
        assert app.wait("failed")["detail"] == "model.safetensors is missing"

        weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
        wait_for(lambda: "git-lfs pointer" in app.state["detail"], 10)

        weights.write_bytes(kept)
        app.wait("ready")


def test_missing_files_are_fetched(tmp_path: Path) -> None:
    bundle = make_app(tmp_path)
    kept = (bundle / "model.safetensors").rename(tmp_path / "elsewhere")
    fetch = f"sh -c 'echo fetching; sleep 1; cp {kept} model.safetensors'"

    with running_app(bundle, tmp_path / "app.log", {"DEPLOYTK_FETCH": fetch}) as app:
        app.wait("fetching", within_s=5)
        app.wait("ready")


def test_a_model_that_is_removed_while_it_runs_is_noticed(tmp_path: Path) -> None:
    bundle = make_app(tmp_path)
    with ready_app(bundle, tmp_path) as app:
        (bundle / "model.safetensors").unlink()
        assert app.chat().status_code == 200  # the engine has it in memory

        os.kill(app.engine[0], signal.SIGKILL)

        assert app.wait("failed")["detail"] == "model.safetensors is missing"


# Its end


def test_it_drains_when_it_is_told_to_stop(bundle: Path, tmp_path: Path) -> None:
    with ready_app(bundle, tmp_path) as app, stream(app, max_tokens=20, stub_tokens_per_s=20) as answer:
        lines = answer.iter_lines()
        next(lines)
        pid, _ = app.engine

        app.process.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]

        assert rest[-1] == "data: [DONE]"
        app.process.wait(10)
        wait_for(lambda: not is_alive(pid), 2)


def test_it_does_not_wait_for_ever(bundle: Path, tmp_path: Path) -> None:
    with (
        ready_app(bundle, tmp_path, DEPLOYTK_DRAIN_S="1") as app,
        stream(app, max_tokens=10_000, stub_tokens_per_s=20) as answer,
    ):
        lines = answer.iter_lines()
        next(lines)
        pid, _ = app.engine

        app.process.send_signal(signal.SIGTERM)

        app.process.wait(5)
        wait_for(lambda: not is_alive(pid), 2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_no_number_of_signals_is_a_traceback(bundle: Path, tmp_path: Path, number: int, times: int) -> None:
    with (
        ready_app(bundle, tmp_path, DEPLOYTK_DRAIN_S="2") as app,
        stream(app, max_tokens=10_000, stub_tokens_per_s=20) as answer,
    ):
        lines = answer.iter_lines()
        next(lines)
        pid, _ = app.engine

        for _ in range(times):
            app.process.send_signal(number)
            time.sleep(0.3)
        with contextlib.suppress(httpx.TransportError):
            list(lines)

        app.process.wait(10)
        wait_for(lambda: not is_alive(pid), 5)
        assert "Traceback" not in app.output


def test_a_signal_while_it_starts_is_no_traceback(bundle: Path, tmp_path: Path) -> None:
    for pause_s in (0.05, 0.1, 0.2, 0.3, 0.4):
        log = tmp_path / "log"
        with log.open("wb") as output:
            process = subprocess.Popen([sys.executable, "app.py"], cwd=bundle, stdout=output, stderr=output)
            time.sleep(pause_s)
            process.send_signal(signal.SIGINT)
            process.wait(10)

        assert "server.py" not in log.read_text()


def test_keys_that_cannot_be_keys_end_it(bundle: Path, tmp_path: Path) -> None:
    for keys in (",", " , ", "a b", "schlüssel", "a,b\x07"):
        with running_app(bundle, tmp_path / "app.log", {"DEPLOYTK_API_KEYS": keys}) as app:
            app.process.wait(10)

            assert app.output.startswith("error: ")
            assert len(app.output.splitlines()) == 1


def test_the_engine_dies_with_it(bundle: Path, tmp_path: Path) -> None:
    with ready_app(bundle, tmp_path) as app:
        pid, _ = app.engine

        app.process.kill()

        wait_for(lambda: not is_alive(pid), 5)


def test_a_port_that_is_taken_ends_it(bundle: Path, tmp_path: Path) -> None:
    with ready_app(bundle, tmp_path) as app:
        port = app.url.rpartition(":")[2]
        with running_app(bundle, tmp_path / "second.log", {"PORT": port}) as second:
            second.process.wait(10)

        assert "address already in use" in (tmp_path / "second.log").read_text()


def test_limits_that_make_no_sense_end_it(bundle: Path, tmp_path: Path) -> None:
    with running_app(bundle, tmp_path / "app.log", {"DEPLOYTK_MAX_RUNNING": "-1"}) as app:
        app.process.wait(10)

        assert app.output.strip() == "error: DEPLOYTK_MAX_RUNNING is '-1', a whole number of at least 1 is needed"


# Its code


def test_it_runs_on_the_python_of_old_images() -> None:
    for module in SHIPPED_APP.glob("*.py"):
        if module.name != "gradio_app.py":  # Gradio has left Python 3.8
            ast.parse(module.read_text(encoding="utf-8"), feature_version=(3, 8))


def test_an_engine_whose_end_is_lost_by_python_is_given_up_all_the_same() -> None:
    """Else the app says "loading" for half an hour after an engine that ended at once."""
    cancel = engine._cancel

    async def stubborn() -> None:
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    async def run() -> bool:
        task = asyncio.ensure_future(stubborn())
        await asyncio.sleep(0)
        await asyncio.wait_for(cancel(task), 10)
        return task.done()

    assert asyncio.run(run())
