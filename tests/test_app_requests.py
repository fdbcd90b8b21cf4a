"""What the app refuses before the engine sees it, at the borders, and what it makes of an engine's answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from deploytk.app.door import Door
from deploytk.app.features import NAMES
from deploytk.app.limits import Limits
from deploytk.app.refused import RefusedError
from deploytk.app.relay import parse_head, wrapped_error
from deploytk.app.requests import check_request

CHAT = "/v1/chat/completions"


def refusal(path: str = CHAT, **fields: Any) -> tuple[int, str] | None:
    """Status and message, None when it is taken."""
    fields = {"model": "m", "messages": [{"role": "user", "content": "x"}], "prompt": "x", **fields}
    return raw_refusal(json.dumps(fields).encode(), path)


def raw_refusal(body: bytes, path: str = CHAT) -> tuple[int, str] | None:
    try:
        check_request(path, body, "m", "turbomind", NAMES)
    except RefusedError as error:
        return error.status, error.message
    return None


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("max_tokens", 1, 2147483647), ("max_completion_tokens", 1, 2147483647), ("logprobs", 0, 100),
        ("top_logprobs", 0, 100), ("n", 1, 16), ("seed", 0, 9223372036854775807), ("top_k", 0, 2147483647),
        ("min_p", 0, 1), ("temperature", 0, 2), ("presence_penalty", -2, 2), ("frequency_penalty", -2, 2),
        ("repetition_penalty", 0, 10),
    ],
)  # fmt: skip
def test_numbers_are_taken_up_to_their_borders(name: str, low: int, high: int) -> None:
    assert refusal(**{name: low}) is None
    assert refusal(**{name: high}) is None
    for beyond in (low - 1, high + 1):
        assert refusal(**{name: beyond}) == (400, f"{name}: must be between {low} and {high}, not {beyond}")


def test_a_share_of_nothing_is_refused() -> None:
    assert refusal(top_p=1) is None
    assert refusal(top_p=0.01) is None
    assert refusal(top_p=0) == (400, "top_p: must be above 0")


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"n": 1.5}, "n"), ({"n": True}, "n"), ({"temperature": "1"}, "temperature"), ({"temperature": True}, "temp"),
        ({"stream": 1}, "stream"), ({"stop": [1]}, "stop"), ({"stop": ["x"] * 17}, "stop"),
        ({"messages": []}, "messages"),
        ({"messages": ["x"]}, "messages.0"), ({"messages": [{"role": "", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "r" * 33, "content": "x"}]}, "messages.0.role"), ({"model": 1}, "model"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "messages.0.content"),
        ({"stream_options": []}, "stream_options"), ({"stream_options": {"include_usage": 1}}, "stream_options"),
    ],
)  # fmt: skip
def test_what_is_of_the_wrong_kind_is_named(fields: dict[str, Any], name: str) -> None:
    status, message = refusal(**fields) or (0, "")

    assert (status, message.startswith(name)) == (400, True)


@pytest.mark.parametrize(
    "fields",
    [
        {"logprobs": True}, {"stop": "x"}, {"stop": ["x"] * 16}, {"stream": None}, {"stream_options": {}},
        {"messages": [{"role": "r" * 32, "content": "x"}]}, {"seed": None},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": []}]},
    ],
)  # fmt: skip
def test_what_clients_send_is_taken(fields: dict[str, Any]) -> None:
    assert refusal(**fields) is None


def test_a_prompt_is_looked_at_where_it_is_asked_with() -> None:
    assert refusal("/v1/completions", messages=None) is None
    assert refusal("/v1/completions", prompt="") == (
        400,
        "prompt: must be a text that is not empty, or a list of at most 64",
    )
    assert refusal("/v1/completions", prompt=["x"] * 64) is None
    for prompt in ([], ["x"] * 65, ["x", ""], [1], [[1]]):
        assert (refusal("/v1/completions", prompt=prompt) or (0,))[0] == 400
    assert refusal(prompt="") is None
    assert refusal(model="other") == (404, "the model 'other' does not exist; there is 'm'")


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'"x"', b"\xff", b'{"a": NaN}', b'{"a": "\\ud800"}', b'{"a": 1e999}', b'{"a": ' + b"9" * 21 + b"}"],
)
def test_what_is_no_object_that_every_engine_can_read_is_refused(body: bytes) -> None:
    assert (raw_refusal(body) or (0,))[0] == 400


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"NaN", "not JSON"), (b"-Infinity", "not JSON"), (b'"\\ud800"', "not JSON"), (b'"\\uDC00"', "not JSON"),
        (b'"\xed\xa0\x80"', "not JSON"), (b"1e999", "too large"), (b"-1e999", "too large"),
        (b"9" * 21, "too large"), (b"9" * 100_000, "too large"), (b"[[{}, 1e999]]", "too large"),
    ],
    ids=range(10),
)  # fmt: skip
def test_a_value_that_an_engine_fails_at_is_refused_for_its_own_sake(value: bytes, why: str) -> None:
    """In a request with which nothing else is wrong."""
    whole = b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "own": %b}'

    status, message = raw_refusal(whole % value) or (0, "")

    assert (status, why in message) == (400, True)
    assert raw_refusal(whole % (b"9" * 20)) is None


def test_lists_in_each_other_are_taken_as_deep_as_64() -> None:
    assert refusal(own=nested(63)) is None
    assert refusal(own=nested(64)) == (400, "the body has more than 64 lists in each other")


def nested(depth: int) -> list[Any]:
    content: list[Any] = []
    for _ in range(depth - 1):
        content = [content]
    return content


# -- a body in chunks, which says no length -----------------------------------------------------------------------


class Gateway:
    """Stands behind the door and notes which bodies come through."""

    has_page = False
    is_ending = False

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, _: Any, receive: Any, send: Any) -> None:
        self.bodies.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})

    def count(self, _: Any, status: int) -> None:
        pass


def sent_in_chunks(chunks: list[bytes], limits: Limits, gateway: Gateway) -> tuple[int, int]:
    """The status of the answer, and how many chunks were read for it."""
    statuses: list[int] = []
    left: Iterator[tuple[int, bytes]] = iter(enumerate(chunks, 1))
    read = 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        read, chunk = next(left)
        return {"type": "http.request", "body": chunk, "more_body": read < len(chunks)}

    async def send(message: dict[str, Any]) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    door = Door(gateway, _no_keys(), _every_host(), limits)  # type: ignore[arg-type]
    headers = [(b"host", b"localhost"), (b"transfer-encoding", b"chunked")]
    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": headers, "client": ("127.0.0.1", 1)}
    asyncio.run(door(scope, receive, send))
    return statuses[0], read


def _no_keys() -> Any:
    return ()


def _every_host() -> Any:
    class Every:
        def know(self, _: str) -> bool:
            return True

    return Every()


def test_a_body_in_chunks_may_have_just_as_many_bytes_as_one_that_says_its_length() -> None:
    gateway, limits = Gateway(), Limits(body_bytes=10)

    assert sent_in_chunks([b"12345", b"67890"], limits, gateway) == (200, 2)
    assert sent_in_chunks([b"12345", b"67890", b"x", b"never read"], limits, gateway) == (413, 3)
    assert gateway.bodies == [b"1234567890"]


# -- an engine's answers ------------------------------------------------------------------------------------------


def test_the_head_of_an_engines_answer_is_read_or_refused() -> None:
    assert parse_head(b"HTTP/1.0 429 No\r\nContent-Length:  12 \r\nContent-Type: a/b\r\n\r\n") == (429, b"a/b", 12)
    assert parse_head(b"HTTP/1.1 200\r\n\r\n") == (200, b"application/json", None)
    for head in (b"nonsense\r\n\r\n", b"HTTP/1.1 many\r\n\r\n", b"HTTP/1.1 200\r\nContent-Length: x\r\n\r\n"):
        with pytest.raises(RefusedError) as error:
            parse_head(head)
        assert error.value.status == 502


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (b'{"message": "no", "type": "t"}', "no", "t"), (b'{"detail": {"message": "no"}}', "no", "engine_error"),
        (b'{"detail": ["no"]}', '["no"]', "engine_error"),
        (b"<html>", "the engine refused the request", "engine_error"),
        (b"[]", "the engine refused the request", "engine_error"),
    ],
)  # fmt: skip
def test_errors_of_engines_come_in_one_shape(body: bytes, message: str, code: str) -> None:
    kind = "invalid_request_error"
    expected = {"error": {"message": message, "type": kind, "param": None, "code": code}}

    assert wrapped_error(499, body) == expected
    assert wrapped_error(500, body)["error"]["type"] == "server_error"
    own = b'{"error": {"message": "own", "code": "c", "param": "p"}}'
    assert wrapped_error(400, own) == {"error": {"message": "own", "type": kind, "param": "p", "code": "c"}}
    # LMDeploy's `code` is the status.
    flat = b'{"message": "m", "type": "t", "code": 400, "param": null, "object": "error"}'
    assert wrapped_error(400, flat) == {"error": {"message": "m", "type": kind, "param": None, "code": "t"}}
