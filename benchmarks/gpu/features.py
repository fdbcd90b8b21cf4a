"""What an app makes of requests beyond plain text: one for every feature, what was asked and what came back.

    python benchmarks/gpu/features.py http://127.0.0.1:7860 OUT.json [FEATURE,FEATURE...]

FEATURES are those that the plan says the server has (`plan --json`, `features`): such a request is answered, with what
it asked for in the answer; every other is refused with 400 and the name of the field. `as_planned` says whether so.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WITHIN_S = 30
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"

_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
_WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}},
            "required": ["city"],
        },
    },
}
_CLOCK = {
    "type": "function",
    "function": {"name": "get_time", "description": "The time", "parameters": {"type": "object"}},
}
_JSON = {"type": "json_schema", "json_schema": {"name": "person", "schema": _SCHEMA, "strict": True}}
_NAMED = {"type": "function", "function": {"name": "get_weather"}}
_PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
)


def _said(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "你是谁"}, *parts]}]}


def _choice(answer: Any) -> Any:
    return answer["choices"][0]


def _calls(answer: Any) -> bool:
    """The one tool, with its arguments; a tiny model may fill all its tokens with the blanks that JSON allows."""
    (made,) = _choice(answer)["message"]["tool_calls"]
    call, is_cut_off = made["function"], _choice(answer)["finish_reason"] == "length"
    return call["name"] == "get_weather" and (is_cut_off or set(json.loads(call["arguments"])) == {"city"})


def _is_person(answer: Any) -> bool:
    return set(json.loads(_choice(answer)["message"]["content"])) == {"name", "age"}


def _has_text(answer: Any) -> bool:
    return bool(_choice(answer).get("text") or _choice(answer).get("message", {}).get("content"))


def _streams(word: str) -> Callable[[Any], bool]:
    return lambda answer: isinstance(answer, str) and word in answer and "[DONE]" in answer


_Request = tuple[str, str, dict[str, Any], Callable[[Any], bool]]
# Name of the request -> feature of the plan ("" for what every server has), path, fields, what the answer shows.
_REQUESTS: dict[str, _Request] = {
    "plain": ("", CHAT, {}, _has_text),
    "streamed": ("", CHAT, {"stream": True}, _streams("delta")),
    "usage of a stream": (
        "",
        CHAT,
        {"stream": True, "stream_options": {"include_usage": True}},
        _streams("total_tokens"),
    ),
    "stop": ("", CHAT, {"stop": ["。"]}, _has_text),
    "max_completion_tokens": (
        "",
        CHAT,
        {"max_completion_tokens": 4},
        lambda got: got["usage"]["completion_tokens"] <= 4,
    ),
    "completion": ("", TEXT, {}, _has_text),
    "tools, required": (
        "required_tools",
        CHAT,
        {"tools": [_WEATHER], "tool_choice": "required", "max_tokens": 64},
        _calls,
    ),
    "tools, by name": (
        "required_tools",
        CHAT,
        {"tools": [_CLOCK, _WEATHER], "tool_choice": _NAMED, "max_tokens": 64},
        _calls,
    ),
    "tools, auto": ("tools", CHAT, {"tools": [_WEATHER], "tool_choice": "auto"}, _has_text),
    "tools, streamed": (
        "required_tools",
        CHAT,
        {"tools": [_WEATHER], "tool_choice": "required", "stream": True, "max_tokens": 64},
        _streams("tool_calls"),
    ),
    "json_schema": ("response_format", CHAT, {"response_format": _JSON, "max_tokens": 64}, _is_person),
    "json_object": ("response_format", CHAT, {"response_format": {"type": "json_object"}, "max_tokens": 48}, _has_text),
    "logprobs": ("logprobs", CHAT, {"logprobs": True, "top_logprobs": 2}, lambda got: bool(_choice(got)["logprobs"])),
    "logprobs, streamed": (
        "logprobs",
        CHAT,
        {"logprobs": True, "top_logprobs": 2, "stream": True},
        _streams('"top_logprobs"'),
    ),
    "completion, logprobs": ("completion_logprobs", TEXT, {"logprobs": 2}, lambda got: bool(_choice(got)["logprobs"])),
    "two choices": ("choices", CHAT, {"n": 2}, lambda got: len(got["choices"]) == 2),
    "two completions": ("completion_choices", TEXT, {"n": 2}, lambda got: len(got["choices"]) == 2),
    "two prompts": ("prompts", TEXT, {"prompt": ["a", "b"]}, lambda got: len(got["choices"]) == 2),
    "two prompts, streamed": (
        "streamed_prompts",
        TEXT,
        {"prompt": ["a", "b"], "stream": True},
        _streams('"index": 1'),
    ),
    "echo": ("echo", TEXT, {"echo": True}, lambda got: _choice(got)["text"].startswith("你是谁")),
    "suffix": ("suffix", TEXT, {"suffix": "x"}, _has_text),
    "a picture": ("images", CHAT, _said({"type": "image_url", "image_url": {"url": _PICTURE}}), _has_text),
    "speech": ("speech", CHAT, {"modalities": ["text", "audio"]}, _has_text),
    "reasoning_effort": ("reasoning_effort", CHAT, {"reasoning_effort": "low"}, _has_text),
    "seed": ("seed", CHAT, {"seed": 1}, _has_text),
    "min_p": ("min_p", CHAT, {"min_p": 0.1}, _has_text),
    "logit_bias": ("logit_bias", CHAT, {"logit_bias": {"5": 1}}, _has_text),
    "presence_penalty": ("penalties", CHAT, {"presence_penalty": 1}, _has_text),
    "min_new_tokens": (
        "lmdeploy_fields",
        CHAT,
        {"min_new_tokens": 12, "max_tokens": 12},
        lambda got: got["usage"]["completion_tokens"] == 12,
    ),
    "functions": ("functions", CHAT, {"functions": [{"name": "f"}]}, _has_text),
}


def ask(url: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:
            return {"status": answer.status, "answer": read(answer.read().decode("utf-8", "replace"))}
    except urllib.error.HTTPError as error:
        return {"status": error.code, "answer": read(error.read().decode("utf-8", "replace"))}
    except OSError as error:
        return {"status": None, "answer": str(error)}


def read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text if len(text) < 8000 else f"{text[:6000]} ... {text[-2000:]}"  # a stream


def shows(is_there: Callable[[Any], bool], found: dict[str, Any]) -> bool | str | None:
    """Whether the answer has what was asked for; None where it was refused."""
    if found["status"] != 200:
        return None
    try:
        return is_there(found["answer"])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        return f"malformed: {error!r}"


def ask_all(url: str, has: Sequence[str] | None) -> dict[str, Any]:
    model = json.load(urllib.request.urlopen(f"{url}/v1/models", timeout=WITHIN_S))["data"][0]["id"]
    chat = {"model": model, "messages": [{"role": "user", "content": "你是谁"}], "max_tokens": 16, "temperature": 0}
    plain = {"model": model, "prompt": "你是谁", "max_tokens": 8, "temperature": 0}
    table: dict[str, Any] = {}
    for name, (feature, path, fields, is_there) in _REQUESTS.items():
        found = ask(url, path, (chat if path == CHAT else plain) | fields)
        row = {"feature": feature, "has_it": shows(is_there, found), **found}
        if has is not None:
            is_refused = (
                found["status"] == 400 and isinstance(found["answer"], dict) and found["answer"]["error"]["param"]
            )
            row["as_planned"] = row["has_it"] is True if not feature or feature in has else bool(is_refused)
        table[name] = row
        print(f"{name:24}{found['status']}  {row['has_it']}  {row.get('as_planned', '')}", flush=True)
    return table


def main() -> None:
    has = sys.argv[3].split(",") if len(sys.argv) > 3 else None
    Path(sys.argv[2]).write_text(
        json.dumps(ask_all(sys.argv[1], has), ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
