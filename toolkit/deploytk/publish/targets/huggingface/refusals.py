"""What the hub and its client complain of: whether waiting helps, and in words what to do."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError

from deploytk.base.errors import DeployError, ReleaseError, TryAgainError
from deploytk.base.net import describe
from deploytk.base.retry import BUSY, retry_after_s
from deploytk.publish.targets.huggingface.place import Hub

_http = importlib.import_module(type(huggingface_hub.get_session()).__module__.split(".")[0])  # httpx, or httpx2
_transport_error: type[Exception] = _http.TransportError

_UNREADABLE = (json.JSONDecodeError, LookupError, TypeError, AttributeError)  # an answer without what a hub's has

FAILURES = (HfHubHTTPError, _http.HTTPError, _http.InvalidURL, RuntimeError, ValueError, OSError, *_UNREADABLE)
"""What a call of huggingface_hub raises, whether it sends by httpx or, later, by httpx2."""


def is_transient(error: BaseException) -> bool:
    cause = _cause(error)
    is_lost = isinstance(cause, (_transport_error, TimeoutError, ConnectionError)) or _is_of_other_thread(cause)
    return is_lost or status_of(cause) in BUSY


def _is_of_other_thread(cause: BaseException) -> bool:
    """huggingface_hub closes the client of all threads when one of them has lost its connection."""
    return type(cause) is RuntimeError and "client has been closed" in str(cause)


def status_of(error: BaseException) -> int | None:
    response = getattr(_cause(error), "response", None)
    return int(response.status_code) if response is not None else None


def wait_s(error: BaseException) -> float | None:
    """How long the hub asks to wait."""
    response = getattr(_cause(error), "response", None)
    return asked_wait_s(response.headers) if response is not None else None


def asked_wait_s(headers: Mapping[str, str]) -> float | None:
    """How long an answer asks to wait: by Retry-After, or by the hub's RateLimit ("api";r=0;t=55)."""
    spent = re.search(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d{1,9})", headers.get("RateLimit", ""))
    asked_s = retry_after_s(headers.get("Retry-After"))
    return asked_s if asked_s is not None else float(spent[1]) if spent else None


def is_slow(error: BaseException) -> bool:
    """Whether the hub has the request, and only its answer did not come in time."""
    return isinstance(_cause(error), _http.ReadTimeout)


def busy(error: BaseException) -> str:
    """What keeps a hub from answering, in words: "answers 503"."""
    status = status_of(error)
    return f"answers {status}" if status else f"does not answer: {describe(_cause(error))}"


def in_words(error: Exception, what: str, hub: Hub) -> DeployError:
    cause = _cause(error)
    if isinstance(cause, DeployError):
        return cause
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
        return TryAgainError(f"{host} {busy(cause)}", hint="run the same command again later")
    if isinstance(cause, _http.TooManyRedirects):
        return ReleaseError(
            f"{host} redirects {what} in a circle", hint="check HF_ENDPOINT, and what answers in the hub's place"
        )
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
