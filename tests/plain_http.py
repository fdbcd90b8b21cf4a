"""httpx over plain HTTP, without what it prepares for TLS each time: 40 ms of work, more than most tests ask for."""

from __future__ import annotations

import functools

import httpx

_PLAIN = {"trust_env": False, "verify": False}

get = functools.partial(httpx.get, **_PLAIN)
post = functools.partial(httpx.post, **_PLAIN)
options = functools.partial(httpx.options, **_PLAIN)
request = functools.partial(httpx.request, **_PLAIN)
stream = functools.partial(httpx.stream, **_PLAIN)
Client = functools.partial(httpx.Client, **_PLAIN)
AsyncClient = functools.partial(httpx.AsyncClient, **_PLAIN)
