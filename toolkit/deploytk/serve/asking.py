"""What a running server is asked: whether it is ready, which model it serves, whether it completes anything.

Through base/net.py alone, so bounded in time and size; what it answers is of the right shape here, or no answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deploytk.base.errors import EndpointError, UsageError
from deploytk.base.net import Answer, Key, ask
from deploytk.base.terminal import one_line

API_KEY = "DEPLOYTK_API_KEY"
"""The variable with the key that a server at a URL wants, when no other is named."""

OWN_KEYS = "DEPLOYTK_API_KEYS"
"""The variable with the keys that the app takes."""

_ASK_WITHIN_S = 5.0
_COMPLETE_WITHIN_S = 60.0
_LONGEST_NAME = 256
_LONGEST_DETAIL = 2000


@dataclass(frozen=True, slots=True)
class State:
    """What an app says about itself at /ready."""

    name: str  # "ready", "failed", or how far it is
    detail: str
    engine: str | None


def state_of(url: str, key: Key | None = None) -> State | None:
    """None when nothing like our app answers at `url`."""
    found = _json(f"{url}/ready", key)
    if not isinstance(found, dict) or not isinstance(found.get("state"), str):
        return None
    detail, engine = found.get("detail"), found.get("engine")
    detail = detail[:_LONGEST_DETAIL] if isinstance(detail, str) else ""
    return State(one_line(found["state"], 40), detail, one_line(engine, 40) if isinstance(engine, str) else None)


def model_of(url: str, key: Key | None = None) -> tuple[str, str]:
    """Name and owner of the first model that the server lists.

    Raises EndpointError when it lists none, or wants another key.
    """
    try:
        answer = ask(f"{url}/v1/models", _ASK_WITHIN_S, key=key)
        require_key(url, answer.status, key)
        found = answer.json()
    except (ConnectionError, ValueError) as error:
        if isinstance(error, ConnectionError):
            hint = "start the server, or correct the address; one that is still loading needs a longer --wait"
            raise EndpointError(f"nothing answers at {url}: {one_line(str(error))}", hint=hint) from error
        raise _no_models(url, one_line(str(error))) from error
    models = found.get("data") if isinstance(found, dict) else None
    first = models[0] if isinstance(models, list) and models else None
    name = first.get("id") if isinstance(first, dict) else None
    if not isinstance(first, dict) or not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
        raise _no_models(url, f"HTTP status {answer.status}" if answer.status != 200 else "it has another shape")
    if not name.isprintable():
        raise _no_models(url, "a name holds what no name does")
    owner = first.get("owned_by")
    return name, owner if isinstance(owner, str) else ""


def _no_models(url: str, reason: str) -> EndpointError:
    hint = "name the address of an OpenAI-style server, without /v1"
    return EndpointError(f"{url}/v1/models answers no list of models: {reason}", hint=hint)


def completes(url: str, model: str, key: Key | None = None, within_s: float = _COMPLETE_WITHIN_S) -> bool:
    """Whether the server gives one token; a list of models alone may come long before.

    Raises EndpointError when it wants another key.
    """
    try:
        answer = complete(url, model, key, within_s, max_tokens=1)
    except ConnectionError:
        return False
    require_key(url, answer.status, key)
    return answer.status == 200


def complete(url: str, model: str, key: Key | None, within_s: float, *, max_tokens: int) -> Answer:
    """The answer to a prompt of one letter; raises ConnectionError when none comes."""
    body: Mapping[str, object] = {
        "model": model,
        "messages": [{"role": "user", "content": "1"}],
        "max_tokens": max_tokens,
    }
    return ask(f"{url}/v1/chat/completions", within_s, body=body, key=key)


def require_key(url: str, status: int, key: Key | None) -> None:
    """Raises EndpointError when the server asks for a key, or for another one."""
    if status not in (401, 403):
        return
    what = f"{url} does not take the key" if key else f"{url} wants a key"
    raise EndpointError(
        f"{what} (HTTP status {status})",
        hint=f"set {API_KEY} to one that it takes, or name the variable that holds it with --api-key-env",
    )


def wants_key(url: str, key: Key | None) -> bool:
    """Whether the list of models is kept from us for want of a key: waiting does not help then."""
    try:
        return ask(f"{url}/v1/models", _ASK_WITHIN_S, key=key).status in (401, 403)
    except ConnectionError:
        return False


def key_for(url: str, token: str | None) -> Key | None:
    """`token` bound to the server at `url`; raises UsageError for one that no header can hold."""
    if token is None:
        return None
    try:
        return Key.bound_to(url, token)
    except ValueError as error:
        raise UsageError(f"no key can be sent to {url}: {error}", hint="correct the key, or the address") from error


def own_key(url: str, environment: Mapping[str, str]) -> Key | None:
    """A key of the app that we start ourselves, which asks us for one as it asks everybody."""
    keys = [key.strip() for key in environment.get(OWN_KEYS, "").split(",") if key.strip()]
    return key_for(url, keys[0] if keys else None)


def _json(url: str, key: Key | None) -> object:
    """The JSON that a server answers, None when it answers none."""
    try:
        return ask(url, _ASK_WITHIN_S, key=key).json()
    except (ConnectionError, ValueError):
        return None
