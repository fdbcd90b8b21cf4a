"""The chat page: Gradio, in English or Chinese, over the app's own API."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr
import httpx
from fastapi import FastAPI

TEXTS = {
    "en": {
        "message": "Message",
        "system": "System prompt",
        "temperature": "Temperature",
        "top_p": "Top-p",
        "max_tokens": "Max tokens",
        "settings": "Settings",
        "examples": "Examples",
        "starting": "The engine is starting.",
        "loading": "The model is loading.",
        "ready": "Ready",
        "failed": "The engine failed.",
        "stopped": "The engine has stopped.",
    },
    "zh-CN": {
        "message": "输入消息",
        "system": "系统提示词",
        "temperature": "温度",
        "top_p": "Top-p",
        "max_tokens": "最多生成 token 数",
        "settings": "设置",
        "examples": "示例",
        "starting": "引擎正在启动。",
        "loading": "模型正在加载。",
        "ready": "就绪",
        "failed": "引擎启动失败。",
        "stopped": "引擎已停止。",
    },
}


def make_page(manifest: dict[str, Any], gateway: Any, url: str, key: str) -> FastAPI:
    """An ASGI application with the page at /."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    page = _blocks(manifest, gateway, url, key)
    return gr.mount_gradio_app(app, page, path="/", show_error=True, footer_links=[])


def _blocks(manifest: dict[str, Any], gateway: Any, url: str, key: str) -> gr.Blocks:
    plan, settings = manifest["plan"], manifest["app"]
    texts = gr.I18n(en=TEXTS["en"], **{"zh-CN": TEXTS["zh-CN"], "zh": TEXTS["zh-CN"]})
    engine = gateway.engine

    def status() -> str:
        english, chinese = TEXTS["en"][engine.state], TEXTS["zh-CN"][engine.state]
        if engine.state == "ready":
            return f"{engine.model} · {engine.settings.name} · {plan['session_len']} tokens"
        return f"**{english} / {chinese}** {engine.detail}"

    async def reply(
        message: str, history: list[dict[str, Any]], system: str, temperature: float, top_p: float, max_tokens: float
    ) -> AsyncIterator[Any]:
        messages = [{"role": "system", "content": system}] if system.strip() else []
        messages += [{"role": turn["role"], "content": _text(turn["content"])} for turn in history]
        body = {
            "model": engine.model,
            "messages": [*messages, {"role": "user", "content": message}],
            "temperature": temperature,
            "top_p": top_p,
            "max_tokens": int(max_tokens),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        async for text, note in _stream(url, key, body, plan["session_len"]):
            yield (
                gr.ChatMessage(role="assistant", content=text, metadata={"title": note} if note else None)
                if note
                else text
            )

    with gr.Blocks(title=settings["title"], fill_height=True) as page:
        line = gr.Markdown(status)
        gr.Timer(1.0).tick(status, outputs=line, show_progress="hidden")
        longest = max(1, plan["session_len"] - 1)
        controls = [
            gr.Textbox(label=texts("system"), lines=2, render=False),
            gr.Slider(0, 2, value=0.7, step=0.05, label=texts("temperature"), render=False),
            gr.Slider(0.05, 1, value=0.95, step=0.05, label=texts("top_p"), render=False),
            gr.Slider(1, longest, value=min(512, longest), step=1, label=texts("max_tokens"), render=False),
        ]
        gr.ChatInterface(
            reply,
            chatbot=gr.Chatbot(show_label=False, scale=1, height="60vh"),
            textbox=gr.Textbox(placeholder=texts("message"), show_label=False, submit_btn=True, stop_btn=True),
            examples=[[example] for example in settings["examples"]] or None,
            cache_examples=False,
            additional_inputs=controls,
            additional_inputs_accordion=gr.Accordion(label=texts("settings"), open=False, render=False),
            title=settings["title"],
            api_visibility="private",
        )
    page.i18n = texts
    return page


def _text(content: Any) -> str:
    """What a turn of the history says; Gradio keeps it as a text or as parts."""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return str(content)


async def _stream(url: str, key: str, body: dict[str, Any], session_len: int) -> AsyncIterator[tuple[str, str]]:
    """The answer so far, and at the end a note with its speed and the context used."""
    text, started, first = "", time.monotonic(), 0.0
    limits = httpx.Timeout(10, read=None)
    head = {"Authorization": f"Bearer {key}"}
    async with (
        httpx.AsyncClient(base_url=url, timeout=limits, headers=head, trust_env=False) as client,
        client.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        if answer.status_code != 200:
            content = await answer.aread()
            raise gr.Error(_message(content))
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            for choice in event["choices"]:
                piece = choice["delta"].get("content") or ""
                first = first or (time.monotonic() if piece else 0.0)
                text += piece
                if piece:
                    yield text, ""
            if event.get("usage"):
                usage = event["usage"]
                seconds = max(time.monotonic() - (first or started), 1e-3)
                speed = usage["completion_tokens"] / seconds
                yield text, f"{speed:.1f} tokens/s · {usage['total_tokens']} / {session_len} tokens"


def _message(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "the request failed"
