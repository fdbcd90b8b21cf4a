"""What a server answers that serves a model, for those that lie in one thing alone."""

from __future__ import annotations

import json
from collections.abc import Callable

from lying_server import Asked, plain

Send = Callable[[bytes], None]
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
STREAM = HEAD + b"Content-Type: text/event-stream\r\n"


def answer_json(value: object, status: str = "200 OK") -> bytes:
    return plain(json.dumps(value).encode(), status, "Content-Type: application/json\r\n")


def events(*events: object, end: str = "data: [DONE]\n\n") -> bytes:
    texts = (event if isinstance(event, str) else json.dumps(event) for event in events)
    body = "".join(f"data: {text}\n\n" for text in texts) + end
    return STREAM + b"Connection: close\r\n\r\n" + body.encode("utf-8", "surrogatepass")


def piece(text: object = "word ", **more: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": text}}], **more}


WORDS = [piece(word) for word in ("The ", "sky ", "is ", "blue ", "and ", "wide")]


def usage(tokens: object) -> dict[str, object]:
    return {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": tokens}}


MODELS = answer_json({"data": [{"id": "tiny", "owned_by": "me"}]})
READY = answer_json({"state": "ready", "detail": "", "engine": "turbomind"})


def honest(asked: Asked, send: Send) -> None:
    """What a server does that serves a model."""
    path = "/" + asked.path.split("/", 2)[2]
    if path == "/ready":
        send(READY)
    elif path == "/v1/models":
        send(MODELS)
    elif path == "/metrics":
        send(plain(b"", "404 Not Found"))
    elif b'"stream": true' in asked.body or b'"stream":true' in asked.body:
        wanted = json.loads(asked.body)["max_tokens"]
        send(events(*WORDS[:wanted], usage(min(wanted, len(WORDS)))))
    else:
        send(answer_json({"choices": [{"message": {"content": "word"}}]}))
