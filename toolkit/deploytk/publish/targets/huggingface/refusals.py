"""What the hub and its client complain of: whether waiting helps, and in words what to do."""

from __future__ import annotations

import importlib
import json

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError

from deploytk.base.errors import DeployError, ReleaseError, TryAgainError
from deploytk.publish.targets.huggingface.place import Hub

TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
"""The answers of a hub that is busy or restarts."""

_session = type(huggingface_hub.get_session())
_transport_error: type[Exception] = importlib.import_module(_session.__module__.split(".")[0]).TransportError

_UNREADABLE = (json.JSONDecodeError, LookupError, TypeError, AttributeError)  # an answer without what a hub's has

FAILURES = (HfHubHTTPError, _transport_error, RuntimeError, ValueError, OSError, *_UNREADABLE)
"""What a call of huggingface_hub raises, whether it sends by httpx or, later, by httpx2."""


def is_transient(error: BaseException) -> bool:
    cause = _cause(error)
    return status_of(cause) in TRANSIENT or isinstance(cause, (_transport_error, TimeoutError, ConnectionError))


def status_of(error: BaseException) -> int | None:
    response = getattr(_cause(error), "response", None)
    return int(response.status_code) if response is not None else None


def wait_s(error: BaseException) -> float | None:
    """How long the hub asks to wait."""
    response = getattr(_cause(error), "response", None)
    value = response.headers.get("Retry-After", "") if response is not None else ""
    return float(value) if value.isdecimal() else None


def in_words(error: Exception, what: str, hub: Hub, patience_s: float) -> DeployError:
    cause = _cause(error)
    status, host = status_of(cause), hub.host
    if status == 401:
        return ReleaseError(
            f"{host} does not accept the access token",
            hint=f"it is wrong, expired or revoked: make another at {hub.tokens_page} and set HF_TOKEN",
        )
    if status == 403:
        return ReleaseError(
            f"the access token may not write to {what} at {host}",
            hint="it may only read, or the repository is somebody else's: check --repo, or make a token that may"
            f" write at {hub.tokens_page}",
        )
    if status == 402:
        return ReleaseError(
            f"{host} wants a paid plan for {what}",
            hint=f"see {hub.endpoint}/pricing; the model alone (without --app) needs none, and"
            " `deploytk serve` runs the app here",
        )
    if status == 404:
        return ReleaseError(
            f"{host} has no {what}, or hides it from this token", hint="check --repo and whose token it is"
        )
    if status == 413:
        return ReleaseError(f"{what} is too large for {host}", hint="fewer or smaller files")
    if is_transient(cause):
        busy = f"{host} answers {status}" if status else f"{host} does not answer"
        return TryAgainError(f"{busy}, also after {patience_s:.0f} s", hint="run the same command again later")
    if isinstance(cause, _UNREADABLE):
        return ReleaseError(
            f"{host} does not answer {what} as a hub does",
            hint="check HF_ENDPOINT, and whether a login page or proxy answers in the hub's place",
        )
    said = hub.redact(_said(cause))
    return ReleaseError(f"{host} refuses {what}: {said}", hint="correct what it names, then run again")


def _cause(error: BaseException) -> BaseException:
    """What an upload thread met: the client wraps it into a RuntimeError."""
    while type(error) is RuntimeError and error.__cause__:
        error = error.__cause__
    return error


def _said(error: BaseException) -> str:
    """The server's own words, in one line."""
    said = getattr(error, "server_message", None)
    return " ".join(str(said or error).split())[:300]
