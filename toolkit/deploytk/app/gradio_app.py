"""The Gradio of the app: its page is ours, and its programs (gradio_client, other Spaces) call `/chat` here."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import gradio as gr
from fastapi import FastAPI
from gradio.events import api

from .refused import RefusedError
from .requests import parse_object

SHOWN = frozenset(["/config", "/gradio_api/app_id", "/gradio_api/info", "/gradio_api/startup-events"])
SHOWN_BELOW = ("/gradio_api/heartbeat/", "/gradio_api/queue/", "/gradio_api/call/chat/")
POSTED = frozenset(f"/gradio_api/{name}" for name in ("queue/join", "call/chat", "cancel", "reset"))


def make_application(manifest: dict[str, Any], gateway: Any) -> Any:
    """An ASGI application with Gradio's API for one function, `/chat`."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    with gr.Blocks(title=manifest["app"]["title"]) as blocks:
        api(_chat_of(gateway), api_name="chat", api_description="Ask the model; the answer comes as it grows.")
    # By itself Gradio answers one visitor after the other, and keeps any number of them waiting.
    most = gateway.limits.running + gateway.limits.waiting
    blocks.queue(default_concurrency_limit=most, max_size=most + gateway.limits.connections)
    traceback.print_exc = _note_error
    return _Needed(gr.mount_gradio_app(app, blocks, path="/", show_error=True))


def _chat_of(gateway: Any) -> Any:
    async def chat(
        message: str,
        history: list[dict[str, str]] | None = None,
        system: str = "",
        temperature: float = 0.7,
        top_p: float = 0.95,
        max_tokens: int = 512,
    ) -> AsyncIterator[str]:
        told = [{"role": "system", "content": system}] if system.strip() else []
        fields = {
            "model": gateway.engine.model,
            "messages": [*told, *(history or []), {"role": "user", "content": message}],
            "temperature": temperature,
            "top_p": top_p,
            "max_tokens": max_tokens,
            "stream": True,
        }
        text = ""
        try:
            async with aclosing(_pieces(gateway, fields)) as pieces:
                async for piece in pieces:
                    text += piece
                    yield text
        except RefusedError as error:
            raise gr.Error(error.message, print_exception=False) from error

    return chat


async def _pieces(gateway: Any, fields: dict[str, Any]) -> AsyncGenerator[str, None]:
    rest = b""
    async with aclosing(gateway.ask("/v1/chat/completions", fields)) as parts:
        async for part in parts:
            *events, rest = (rest + part).split(b"\n\n")
            for event in events:
                if event.startswith(b"data: {"):
                    yield _parsed(event[6:])


def _parsed(event: bytes) -> str:
    """The text in an event; raises RefusedError when it tells of an error."""
    content = json.loads(event)
    if content.get("error"):
        raise RefusedError(502, "engine_lost", str(content["error"]["message"]))
    return "".join(choice.get("delta", {}).get("content") or "" for choice in content.get("choices", []))


class _Needed:
    """Of Gradio what its clients use for `/chat`: no uploads, no files, no page, no code that is edited from afar."""

    def __init__(self, application: Any) -> None:
        self._application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            path, kind = scope["path"], dict(scope["headers"]).get(b"content-type", b"")
            if scope["method"] == "POST" and path in POSTED:
                if kind.partition(b";")[0].strip().lower() != b"application/json":
                    raise RefusedError(415, "unsupported_media_type", "send JSON, with Content-Type: application/json")
                receive = await _checked(receive)
                send = _blaming_client(send)
            elif scope["method"] not in ("GET", "HEAD") or not (path in SHOWN or path.startswith(SHOWN_BELOW)):
                raise RefusedError(404, "not_found", f"there is no {scope['method']} {path}")
        await self._application(scope, receive, send)


async def _checked(receive: Any) -> Any:
    """Refuses a body that Gradio would fail to read; returns the `receive` that still has it."""
    first = await receive()
    parse_object(first["body"])
    messages = [first]

    async def again() -> Any:
        return messages.pop() if messages else await receive()

    return again


def _blaming_client(send: Any) -> Any:
    """Gradio calls it an error of the server when values are sent that its functions cannot have."""

    async def translate(message: dict[str, Any]) -> None:
        await send({**message, "status": 422} if message.get("status") == 500 else message)

    return translate


def _note_error(*_: object, **__: object) -> None:
    """One line for what Gradio would show as a traceback: whoever sends it nonsense could fill the log with them."""
    kind, error, trace = sys.exc_info()
    if kind and trace:
        at = traceback.extract_tb(trace)[-1]
        sys.stderr.write(f"Gradio failed: {kind.__name__} at {at.filename}:{at.lineno}: {str(error)[:200]!r}\n")
