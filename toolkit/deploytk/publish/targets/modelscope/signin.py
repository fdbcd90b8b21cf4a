"""The hub's client, signed in: its token goes to the hub and to where the hub keeps large files, nowhere else."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import Collection, Mapping
from typing import Any

import requests
from modelscope_hub import HubApi
from modelscope_hub.config import HubConfig
from requests.adapters import HTTPAdapter

from deploytk.base.bound import keep_at_home
from deploytk.base.credentials import ask_token
from deploytk.base.errors import ReleaseError, UsageError
from deploytk.base.origin import Origin, origin_of
from deploytk.base.retry import BUSY, retry_after_s

TOKEN_HINT = "set MODELSCOPE_API_TOKEN (ModelScope, account, access token) to one that may write"  # noqa: S105

_PUBLIC_SITES = ("modelscope.cn", "modelscope.ai")
_POOL = 32
_CONNECT_S, _COMMITTED_S = 30.0, 900.0
_NEVER_MEANT_OTHERWISE = (429, 503)  # others of BUSY may be faults of the hub, which the client tells apart


def sign_in() -> tuple[HubApi, str]:
    """The client with the token of the environment or of its own store, and whose token that is."""
    logging.getLogger("modelscope_hub").setLevel(logging.ERROR)
    config = HubConfig()
    home = origin_of(str(config.endpoint))
    if not home or not home.is_private:
        raise UsageError(
            f"{config.endpoint!r} is no server that a token may be sent to",
            hint="MODELSCOPE_ENDPOINT is an https address; plain http only on this machine",
        )
    if not config.token and (token := ask_token("ModelScope")):
        config = HubConfig(token=token)
    api = HubApi(config)
    if not config.token:
        raise ReleaseError("no token of ModelScope is here", hint=TOKEN_HINT)
    _bind(api, home)
    me = api.whoami()
    return api, str(me.username or "the owner of the token")


def has_token() -> bool:
    """Whether the environment or the client's own store has one."""
    return bool(HubConfig().token)


def home_of(api: HubApi) -> Origin:
    return Origin.of(str(api.legacy.endpoint))


def login_headers(api: HubApi) -> dict[str, str]:
    """What a request to the hub itself carries: downloads of the old interface want the cookie."""
    token = str(api.legacy._token)
    return {"Authorization": f"Bearer {token}", "Cookie": f"m_session_id={token}"}


def _bind(api: HubApi, home: Origin) -> None:
    """The client sends its token, as a header and as a cookie, to whatever address the hub names for an upload."""
    adapter = _Bound(home, _friends(home))
    for part in (api.legacy, api.openapi):
        for session in (one for one in vars(part).values() if isinstance(one, requests.Session)):
            session.trust_env = not home.is_loopback  # no proxy of the environment knows this machine's loopback
            session.mount("https://", adapter)
            session.mount("http://", adapter)


def _friends(home: Origin) -> tuple[Origin, ...]:
    """Where the public hubs keep large files, and ask for the token as well."""
    site = next((site for site in _PUBLIC_SITES if home.host in (site, f"www.{site}")), None)
    names = ("lfs", "www") if site else ()
    return tuple(Origin("https", f"{name}.{site}", 443) for name in names)


class HubBusy(BaseException):
    """The hub is busy. The client would wait as it is told, without a word, and asks again after any Exception."""

    def __init__(self, status: int, retry_after: float | None) -> None:
        super().__init__(f"answers {status}")
        self.status, self.retry_after = status, retry_after


class CommitLost(BaseException):
    """A commit without an answer; no Exception, after which the client would send it again."""

    def __init__(self, digests: Mapping[str, str | None], *, is_slow: bool) -> None:
        super().__init__("gave no answer to a commit")
        self.digests = digests  # path -> SHA-256 that it has in that commit, None: it is deleted
        self.is_slow = is_slow  # the hub may still be at it


class _Bound(HTTPAdapter):
    def __init__(self, home: Origin, friends: Collection[Origin]) -> None:
        self._home, self._friends = home, friends
        super().__init__(pool_connections=_POOL, pool_maxsize=_POOL)

    def send(self, request: Any, *arguments: Any, **more: Any) -> Any:
        keep_at_home(str(request.url), request.headers, self._home, self._friends)
        if "/commit/" in str(request.url):
            answer = self._commit(request, *arguments, **more)
        else:
            answer = super().send(request, *arguments, **more)
        asked_s = retry_after_s(answer.headers.get("Retry-After")) if answer.status_code in BUSY else None
        if answer.status_code in _NEVER_MEANT_OTHERWISE or asked_s is not None:
            answer.close()
            raise HubBusy(answer.status_code, asked_s)
        return answer

    def _commit(self, request: Any, *arguments: Any, **more: Any) -> Any:
        """Given up early, a commit lands all the same, and would be sent again."""
        more["timeout"] = (_CONNECT_S, _COMMITTED_S)
        try:
            return super().send(request, *arguments, **more)
        except requests.ConnectTimeout:
            raise
        except (requests.ReadTimeout, requests.ConnectionError) as error:
            raise CommitLost(_digests(request.body), is_slow=isinstance(error, requests.ReadTimeout)) from error


def _digests(body: str | bytes) -> dict[str, str | None]:
    """What the files of a commit will be."""
    found: dict[str, str | None] = {}
    for action in json.loads(body)["actions"]:
        content = base64.b64decode(action.get("content") or "")
        own = str(action.get("sha256") or hashlib.sha256(content).hexdigest())
        found[str(action["path"])] = None if action["action"] == "delete" else own
    return found
