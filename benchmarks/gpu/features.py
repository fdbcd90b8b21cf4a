"""What an app makes of requests beyond plain text: one each, what was asked and what came back.

    python benchmarks/gpu/features.py http://127.0.0.1:7860 OUT.json

Passed through or refused is the engine's to say; the app adds nothing. It has to be an answer either way: of the right
shape, or an error in OpenAI's.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
_WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "person", "schema": _SCHEMA, "strict": True}}
_CHAT: dict[str, dict[str, Any]] = {
    "plain": {},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "json_schema": {"response_format": _JSON_SCHEMA, "max_tokens": 64},
    "json_object": {"response_format": {"type": "json_object"}, "max_tokens": 48},
    "tools": {"tools": [_WEATHER], "tool_choice": "auto"},
    "tools, required": {"tools": [_WEATHER], "tool_choice": "required"},
    "stop": {"stop": ["。"]},
    "two choices": {"n": 2},
    "a picture": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
    "streamed logprobs": {"logprobs": True, "top_logprobs": 2, "stream": True},
}
_COMPLETIONS: dict[str, dict[str, Any]] = {
    "completion, logprobs": {"logprobs": 2},
    "completion, echo": {"echo": True},
    "completion, two prompts": {"prompt": ["a", "b"]},
}


def ask(url: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return {"status": answer.status, "answer": read(answer.read().decode("utf-8", "replace"))}
    except urllib.error.HTTPError as error:
        return {"status": error.code, "answer": read(error.read().decode("utf-8", "replace"))}
    except OSError as error:
        return {"status": None, "answer": str(error)}


def read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text[:3000]  # a stream


def is_valid(name: str, found: dict[str, Any]) -> bool | None:
    """Whether the answer has what was asked for; None where it was refused."""
    answer = found["answer"]
    if found["status"] != 200:
        return None
    if isinstance(answer, str):
        return '"top_logprobs"' in answer if name == "streamed logprobs" else bool(answer)
    choice = answer["choices"][0]
    if "logprobs" in name:
        return bool(choice.get("logprobs"))
    if name == "json_schema":
        return set(json.loads(choice["message"]["content"])) == {"name", "age"}
    if name == "tools, required":
        return bool(choice["message"].get("tool_calls"))
    return len(answer["choices"]) == 2 if "two" in name else True


def main() -> None:
    url, out = sys.argv[1], Path(sys.argv[2])
    model = json.load(urllib.request.urlopen(f"{url}/v1/models", timeout=20))["data"][0]["id"]
    chat = {"model": model, "messages": [{"role": "user", "content": "你是谁"}], "max_tokens": 16, "temperature": 0}
    plain = {"model": model, "prompt": "你是谁", "max_tokens": 8, "temperature": 0}
    found: dict[str, Any] = {}
    for name, body in {**_CHAT, **_COMPLETIONS}.items():
        path, base = ("/v1/chat/completions", chat) if name in _CHAT else ("/v1/completions", plain)
        found[name] = ask(url, path, base | body)
        try:
            found[name]["has_it"] = is_valid(name, found[name])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            found[name]["has_it"] = f"malformed: {error!r}"
        out.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        print(name, found[name]["status"], found[name]["has_it"], flush=True)


if __name__ == "__main__":
    main()
