"""The chat page without Gradio, which needs a newer Python than OpenXLab has: one HTML file over the app's API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "chat.html"


def make_page(manifest: dict[str, Any], _: Any) -> Any:
    """An ASGI application that shows the page at / and nothing else."""
    settings = {"title": manifest["app"]["title"], "examples": manifest["app"]["examples"]}
    text = json.dumps(settings, ensure_ascii=False).replace("<", "\\u003c")
    html = PAGE.read_text(encoding="utf-8").replace("{}/*settings*/", text).encode()

    async def page(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            return
        status, body = (200, html) if scope["path"] == "/" else (404, b"")
        headers = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return page
