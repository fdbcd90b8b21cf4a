"""The chat page: Gradio, in English or Chinese as the browser asks, over the app's own API."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import gradio as gr
from deploytk_relay import RefusedError
from fastapi import FastAPI

TEXTS = {
    "en": {
        "message": "Message",
        "system": "System prompt",
        "temperature": "Temperature",
        "top_p": "Top-p",
        "max_tokens": "Max tokens",
        "settings": "Settings",
        "key": "API key",
    },
    "zh-CN": {
        "message": "输入消息",
        "system": "系统提示词",
        "temperature": "温度",
        "top_p": "Top-p",
        "max_tokens": "最多生成 token 数",
        "settings": "设置",
        "key": "API 密钥",
    },
}


STATES = {
    "starting": "The engine is starting. 引擎正在启动。",
    "verifying": "The files are being checked. 正在校验文件。",
    "loading": "The model is loading. 模型正在加载。",
    "failed": "The engine failed. 引擎启动失败。",
    "draining": "The server is stopping. 服务正在停止。",
    "stopped": "The server is stopping. 服务正在停止。",
}
TROUBLE = "⚠️ "  # what an answer that is none begins with
# On a phone the page is as wide as the screen, and the messages get what the controls leave.
CSS = """
.gradio-container { padding: 0.5rem !important; }
#chat { min-height: 16rem; }
#speed, #state { min-height: 1.5rem; overflow-wrap: anywhere; }
"""


def make_page(manifest: dict[str, Any], gateway: Any) -> FastAPI:
    """An ASGI application with the page at /."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    texts = gr.I18n(en=TEXTS["en"], **{"zh-CN": TEXTS["zh-CN"], "zh": TEXTS["zh-CN"]})
    page = _blocks(manifest, gateway, texts)
    return gr.mount_gradio_app(app, page, path="/", show_error=True, footer_links=[], i18n=texts, css=CSS)


def _blocks(manifest: dict[str, Any], gateway: Any, texts: gr.I18n) -> gr.Blocks:
    plan, settings, engine = manifest["plan"], manifest["app"], gateway.engine
    session_len = int(plan["session_len"])

    def state() -> str:
        if engine.state == "ready":
            return f"{engine.model} · {engine.settings.name} · {session_len} tokens"
        return f"**{STATES[engine.state]}** {engine.detail}"

    async def reply(
        message: str, history: list[dict[str, Any]], system: str | None, *chosen: Any
    ) -> AsyncIterator[tuple[str, str]]:
        temperature, top_p, max_tokens, key = (*chosen, None)[:4]
        messages = [{"role": "system", "content": system}] if system and system.strip() else []
        messages += _turns(history)
        fields = {
            "model": engine.model,
            "messages": [*messages, {"role": "user", "content": message}],
            "temperature": temperature,
            "top_p": top_p,
            "max_tokens": int(max_tokens),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        async with aclosing(_answer(gateway, fields, key or "none", session_len)) as pieces:
            async for piece in pieces:
                yield piece

    longest = max(1, session_len - 1)
    with gr.Blocks(title=settings["title"], fill_height=True) as page:
        line = gr.Markdown("", elem_id="state")
        page.load(state, outputs=line, show_progress="hidden", api_visibility="private")
        gr.Timer(2.0).tick(state, outputs=line, show_progress="hidden", api_visibility="private")
        speed = gr.Markdown("", elem_id="speed", render=False)
        controls = [
            gr.Textbox(label=texts("system"), lines=2, elem_id="system", render=False),
            gr.Slider(0, 2, value=0.7, step=0.05, label=texts("temperature"), elem_id="temperature", render=False),
            gr.Slider(0.05, 1, value=0.95, step=0.05, label=texts("top_p"), elem_id="top-p", render=False),
            gr.Slider(1, longest, value=min(512, longest), step=1, label=texts("max_tokens"), elem_id="max-tokens",
                      render=False),
        ]  # fmt: skip
        if gateway.has_keys:
            controls.append(gr.Textbox(label=texts("key"), type="password", elem_id="key", render=False))
        gr.ChatInterface(
            reply,
            chatbot=gr.Chatbot(show_label=False, scale=1, elem_id="chat", height="55vh", buttons=["copy", "copy_all"]),
            textbox=gr.Textbox(
                placeholder=texts("message"), show_label=False, submit_btn=True, stop_btn=True, elem_id="message"
            ),
            examples=[[example] for example in settings["examples"]] or None,
            cache_examples=False,
            additional_inputs=controls,
            additional_outputs=[speed],
            additional_inputs_accordion=gr.Accordion(label=texts("settings"), open=False, render=False),
            title=settings["title"],
            api_visibility="private",
        )
        speed.render()
    return page


def _turns(history: list[dict[str, Any]]) -> list[dict[str, str]]:
    """What was said before, without the questions that got an error for an answer."""
    turns: list[dict[str, str]] = []
    for turn in history:
        text = _text(turn["content"])
        if turn["role"] == "assistant" and text.startswith(TROUBLE):
            del turns[-1:]
        else:
            turns.append({"role": turn["role"], "content": text})
    return turns


def _text(content: Any) -> str:
    """What a turn of the history says; Gradio keeps it as a text or as parts."""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return str(content)


@dataclass
class _Speed:
    """Tokens per second since the first token, and how much of the context is used."""

    session_len: int
    first: float = 0.0
    pieces: int = 0

    def note(self, usage: dict[str, int] | None = None) -> str:
        seconds = max(time.monotonic() - self.first, 1e-3)
        tokens = usage["completion_tokens"] if usage else self.pieces
        speed = f"{max(0, tokens - 1) / seconds:.1f} tokens/s"
        return f"{speed} · {usage['total_tokens']} / {self.session_len} tokens" if usage else speed


async def _answer(gateway: Any, fields: dict[str, Any], key: str, session_len: int) -> AsyncIterator[tuple[str, str]]:
    """The answer so far, and a note on its speed; in the end also on the context used."""
    text, note, speed, rest = "", "", _Speed(session_len), b""
    try:
        async with aclosing(gateway.ask("/v1/chat/completions", fields, key)) as parts:
            async for part in parts:
                *events, rest = (rest + part).split(b"\n\n")
                for event in events:
                    if not event.startswith(b"data: {"):
                        continue
                    piece, usage = _parsed(event[6:])
                    if piece and not speed.pieces:
                        speed.first = time.monotonic()
                    speed.pieces += bool(piece)
                    text += piece
                    note = speed.note(usage) if usage else note
                if text:
                    yield text, note or speed.note()
    except RefusedError as error:
        # Raising gr.Error would leave the text box disabled: Gradio 6 enables it again only after a success.
        yield f"{TROUBLE}{error.message}", note


def _parsed(event: bytes) -> tuple[str, dict[str, int] | None]:
    """The text and the usage in an event; raises RefusedError when it tells of an error."""
    content = json.loads(event)
    if content.get("error"):
        raise RefusedError(502, "engine_lost", str(content["error"]["message"]))
    pieces = [choice.get("delta", {}).get("content") or "" for choice in content.get("choices", [])]
    return "".join(pieces), content.get("usage")
