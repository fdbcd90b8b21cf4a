"""Runs the model of this bundle: a chat page and an OpenAI-style API on one port.

    python app.py

It reads deploytk.json beside it. The environment may override:
    HOST, PORT                   where to listen (0.0.0.0:7860)
    DEPLOYTK_ENGINE              turbomind or cpu instead of the planned engine
    DEPLOYTK_API_KEYS            keys, separated by commas, that /v1 then asks for
    DEPLOYTK_ENGINE_LOG          where the engine's output goes (a temporary file)
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import uvicorn

BUNDLE = Path(__file__).resolve().parent
sys.path.insert(0, str(BUNDLE))

from deploytk_engine import Engine, EngineSettings  # noqa: E402
from deploytk_gateway import Gateway, Limits  # noqa: E402


def main() -> None:
    manifest = json.loads((BUNDLE / "deploytk.json").read_text(encoding="utf-8"))
    settings = manifest["app"]
    host = os.environ.get("HOST") or settings["host"]
    port = int(os.environ.get("PORT") or settings["port"])
    keys = [key for key in os.environ.pop("DEPLOYTK_API_KEYS", "").split(",") if key]
    engine = Engine(EngineSettings.of(BUNDLE, manifest))
    gateway = Gateway(engine, Limits.of(manifest), frozenset(keys))
    if settings["kind"] == "gradio":
        from chat_page import make_page

        gateway.page = make_page(manifest, gateway, f"http://127.0.0.1:{port}", keys[0] if keys else "none")
    uvicorn.run(gateway, host=host, port=port, log_level="warning", timeout_graceful_shutdown=30, access_log=False)


if __name__ == "__main__":
    main()
