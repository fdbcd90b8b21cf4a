"""Waits for an app that a hub hosts."""

from __future__ import annotations

import os
import time
from typing import Any

from deploytk.base.errors import EndpointError, TryAgainError
from deploytk.base.pause import pause
from deploytk.base.progress import Progress
from deploytk.base.terminal import one_line
from deploytk.serve import Endpoint, asking, attach

_COMPLETE_WITHIN_S = 120.0
_PAUSE_S = 5.0
_TELL_EVERY_S = 60.0


def await_app(url: str, limit_s: float, progress: Progress, *, preflight_passed: bool) -> Endpoint:
    """The app at `url`, once its model completes a prompt; asked until `limit_s` is over.

    Raises EndpointError when the app itself says that it failed, TryAgainError when the hub still does not run it.
    """
    url = url.rstrip("/")
    started = told = time.monotonic()
    while True:
        state, words = _state(url)
        if state == "failed":
            raise EndpointError(f"the app at {url} failed: {words}", hint="see the app's log on its page, 日志")
        if state == "ready":
            endpoint = attach(url, asking.key_for(url, os.environ.get(asking.API_KEY)))
            _complete(endpoint)
            return endpoint
        now = time.monotonic()
        if now - started >= limit_s:
            raise _still_waiting(url, state, words, limit_s, preflight_passed=preflight_passed)
        if now - told >= _TELL_EVERY_S:
            told = now
            progress.note(f"{url}: {state} {words}".rstrip())
        pause(min(_PAUSE_S, max(0.05, limit_s - (now - started))))


def _still_waiting(url: str, state: str, words: str, limit_s: float, *, preflight_passed: bool) -> TryAgainError:
    again = f"run the same command again later, with a longer --wait; or preview here: deploytk serve ({url})"
    if state != "queued":
        return TryAgainError(f"the app at {url} is still {state} after {limit_s:.0f} s {words}".rstrip(), hint=again)
    whose = (
        "pre-flight passed here, so the queue is the platform's: no hardware is free"
        if preflight_passed
        else "run `deploytk preflight` to see whether it could ever start"
    )
    return TryAgainError(
        f"no app answers at {url} after {limit_s:.0f} s; {whose}",
        hint=f"ask for other hardware on the app's page, or {again}",
    )


def _state(url: str) -> tuple[str, str]:
    """queued when nothing of ours answers, else what the app says about itself."""
    state = asking.state_of(url)
    return (state.name, one_line(state.detail)) if state else ("queued", "")


def _complete(endpoint: Endpoint) -> None:
    """Raises EndpointError unless one prompt is completed."""
    try:
        answer = asking.complete(endpoint.url, endpoint.model, endpoint.key, _COMPLETE_WITHIN_S, max_tokens=8)
        asking.require_key(endpoint.url, answer.status, endpoint.key)
        found: Any = answer.json()
        content = found["choices"][0]["message"]["content"]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise EndpointError(
            f"the app at {endpoint.url} is up but completes nothing", hint="see the app's log on its page, 日志"
        ) from error
    if not isinstance(content, str):
        raise EndpointError(f"the app at {endpoint.url} answers no text", hint="see the app's log on its page, 日志")
