"""What a replica lets through: the routes of the API, and of headers those that mean something there."""

from __future__ import annotations

from collections.abc import Mapping

ROUTES = {
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("GET", "/health"),
    ("GET", "/ready"),
}

OLD_ALONE = "/deploytk-old"
"""Before a path, while there is a canary: answered by the old revision itself, which is to be measured alone."""

Head = tuple[int, list[tuple[str, str]]]
"""Status and headers of an answer."""

# An Origin or a cookie is of a page, and no page comes this way.
_THERE = ("authorization", "content-type", "accept", "origin", "sec-fetch-site")
_BACK = ("content-type", "content-length", "cache-control", "retry-after", "www-authenticate", "x-accel-buffering")


def is_ours(method: str, path: str) -> bool:
    return (method, path) in ROUTES


def is_for_old_alone(path: str) -> bool:
    return path.startswith(f"{OLD_ALONE}/")


def passed_on(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, headers[name]) for name in _THERE if name in headers]


def passed_back(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, headers[name]) for name in _BACK if name in headers]


def error_of(code: str, message: str) -> dict[str, object]:
    """As OpenAI's clients expect it."""
    kind = "invalid_request_error" if code == "not_found" else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
