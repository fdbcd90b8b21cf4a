"""What runs on the nodes: a replica is an actor of Ray Serve with the app of the bundle as its child.

It hands on the routes of the API and no others. `user_config` may name a canary, an application beside this one that
gets a share of the requests; where it fails, they are answered here.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
from ray import serve
from ray.exceptions import RayError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from deploytk.scale.ray.process import AppProcess, checked_bundle
from deploytk.scale.ray.routes import (
    OLD_ALONE,
    Head,
    error_of,
    is_for_old_alone,
    is_ours,
    passed_back,
    passed_on,
)

_ENDS_WITHIN_S = 45.0
_HEALTHY_WITHIN_S = 4.0


class _Canary:
    """Another application, and the share of requests that it gets."""

    def __init__(self, name: str, percent: float) -> None:
        self.percent = percent
        self._handle = serve.get_app_handle(name)

    def is_next(self) -> bool:
        return random.uniform(0, 100) < self.percent  # noqa: S311 (a share, no secret)

    def answer(self, *request: Any) -> Any:
        return self._handle.options(stream=True).answer.remote(*request)


@serve.deployment(name="Replica")
class Replica:
    """One bundle, served."""

    async def __init__(  # type: ignore[misc]  # Ray waits for it
        self, bundle: str, digest: str, environment: Mapping[str, str]
    ) -> None:
        place = Path(bundle)
        await asyncio.to_thread(checked_bundle, place, digest)
        self._canary: _Canary | None = None
        self._app = AppProcess(place, environment)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        # The app itself has limits of time for every answer.
        waits = httpx.Timeout(None)
        self._client = httpx.AsyncClient(base_url=self._app.url, trust_env=False, timeout=waits, limits=limits)
        await self._app.wait_until_ready(float(environment["DEPLOYTK_READY_S"]))

    def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Takes or gives up a canary, while requests run."""
        canary = user_config.get("canary")
        self._canary = _Canary(str(canary["application"]), float(canary["percent"])) if canary else None

    async def check_health(self) -> None:
        """Raises where the model does not answer: Ray starts another replica then."""
        answer = await self._client.get("/ready", timeout=_HEALTHY_WITHIN_S)
        answer.raise_for_status()

    async def __call__(self, request: Request) -> Response:
        method, path = request.method, request.url.path.removeprefix(request.scope.get("root_path", ""))
        canary = self._canary
        if canary and is_for_old_alone(path):
            canary, path = None, path.removeprefix(OLD_ALONE)
        if not is_ours(method, path):
            return JSONResponse(error_of("not_found", f"there is no {method} {path[:200]}"), 404)
        body, headers = await request.body(), passed_on(request.headers)
        if canary and method == "POST" and canary.is_next():
            found = await _begun(canary.answer(method, path, headers, body))
            if found is not None:
                return found
        own = await _begun(self.answer(method, path, headers, body))
        if own is not None:
            return own
        return JSONResponse(error_of("engine_lost", "the engine ended"), 503, {"retry-after": "1"})

    async def answer(
        self, method: str, path: str, headers: list[tuple[str, str]], body: bytes
    ) -> AsyncIterator[Head | bytes]:
        """The head of the app's answer, then its bytes as they come."""
        async with self._client.stream(method, path, headers=headers, content=body) as answer:
            yield answer.status_code, passed_back(answer.headers)
            async for chunk in answer.aiter_raw():
                yield chunk

    def __del__(self) -> None:
        app = getattr(self, "_app", None)
        if app is not None:
            app.end()
            app.wait(_ENDS_WITHIN_S)


async def _begun(parts: Any) -> StreamingResponse | None:
    """The answer whose head has come; None where the other side is gone, or has trouble of its own."""
    try:
        status, headers = await anext(aiter(parts))
    except (RayError, httpx.TransportError, StopAsyncIteration):
        return None
    if status >= 500 and status != 504:
        return None
    return StreamingResponse(_rest(parts), status, dict(headers))


async def _rest(parts: Any) -> AsyncIterator[bytes]:
    async for part in parts:
        yield part


def build(args: Mapping[str, Any]) -> Any:
    """The application, of the `args` of a Serve config."""
    return Replica.bind(args["bundle"], args["digest"], args["environment"])  # type: ignore[attr-defined]
