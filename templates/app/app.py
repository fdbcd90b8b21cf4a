"""Runs the model of this bundle: a chat page and an OpenAI-style API on one port.

    python app.py

It reads deploytk.json beside it. The environment may override:
    HOST, PORT                   where to listen (0.0.0.0:7860)
    DEPLOYTK_ENGINE              turbomind or cpu instead of the planned engine
    DEPLOYTK_API_KEYS            keys, separated by commas, that /v1, /metrics and the chat page then ask for
    DEPLOYTK_ENGINE_LOG          a file for the engine's output (stderr)
    DEPLOYTK_FETCH               a command that brings the model's files when they are not here
    DEPLOYTK_MAX_RUNNING         requests at the engine at once (the planned batch)
    DEPLOYTK_MAX_WAITING         requests that may wait for it (64); more get 429
    DEPLOYTK_MAX_BODY_BYTES      largest request (4194304)
    DEPLOYTK_REQUEST_S           longest answer (600)
    DEPLOYTK_BODY_S              longest time for a request to arrive (30)
    DEPLOYTK_DRAIN_S             time for running requests to end when the app is told to stop (30)
    DEPLOYTK_READY_S             longest time until the first token (1800)
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

BUNDLE = Path(__file__).resolve().parent
sys.path.insert(0, str(BUNDLE))

from deploytk_engine import Engine, EngineSettings  # noqa: E402
from deploytk_gateway import Gateway  # noqa: E402
from deploytk_limits import Limits  # noqa: E402


class PatientProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Closes connections on which no whole request head arrives; uvicorn itself waits for ever."""

    head_within_s = 30.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._late = self.loop.call_later(self.head_within_s, self._close_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        self._late.cancel()
        super().connection_lost(exc)

    def _close_if_silent(self) -> None:
        if self.cycle is None:
            self.transport.abort()


class Server(uvicorn.Server):
    """Lets the gateway refuse new requests as soon as the app is told to stop."""

    gateway: Gateway

    def handle_exit(self, sig: int, frame: Any) -> None:
        if not self.should_exit:
            asyncio.get_event_loop().call_soon_threadsafe(self.gateway.drain)
        super().handle_exit(sig, frame)


def make_page(gateway: Gateway, manifest: dict[str, Any]) -> Any:
    from chat_page import make_page

    return make_page(manifest, gateway)


def main() -> None:
    manifest = json.loads((BUNDLE / "deploytk.json").read_text(encoding="utf-8"))
    settings = manifest["app"]
    keys = frozenset(key.strip() for key in os.environ.pop("DEPLOYTK_API_KEYS", "").split(",") if key.strip())
    engine = Engine(EngineSettings.of(BUNDLE, manifest))
    limits = Limits.of(manifest)
    PatientProtocol.head_within_s = limits.body_s
    with_page = settings["kind"] == "gradio"
    gateway = Gateway(engine, limits, keys, (lambda gateway: make_page(gateway, manifest)) if with_page else None)
    config = uvicorn.Config(
        gateway,
        host=os.environ.get("HOST") or settings["host"],
        port=int(os.environ.get("PORT") or settings["port"]),
        http=PatientProtocol,
        ws="none",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=int(limits.drain_s),
    )
    server = Server(config)
    server.gateway = gateway
    server.run()


if __name__ == "__main__":
    main()
