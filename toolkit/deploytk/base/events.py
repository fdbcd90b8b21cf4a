"""Reads a stream of events (SSE) of a server that nobody vouches for: bounded in size and silence, nothing unpacked."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from deploytk.base.net import Key, Origin, describe, trusted
from deploytk.base.retry import retry_after_s

_CONNECT_WITHIN_S = 10.0
_LARGEST_BYTES = 2**26
_LARGEST_LINE = 2**20
_LARGEST_REFUSAL_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Stream:
    """What came: `events` one by one while they come, or, of a refusal and of an answer that is whole, the `body`."""

    status: int
    events: Iterator[str]
    body: bytes
    retry_after_s: float | None


@contextmanager
def post_for_events(url: str, body: Mapping[str, object], key: Key | None, silent_s: float) -> Iterator[Stream]:
    """POST `body` and read what comes; leaving the context closes the connection, and the server can stop its work.

    Raises ConnectionError, which says why, when the server cannot be reached, is silent for `silent_s`, or sends what
    is no stream of events.
    """
    # A proxy of the environment does not know this machine's loopback.
    is_near = Origin.of(url).is_loopback
    headers = {"Accept-Encoding": "identity", **(key.headers(url) if key else {})}
    timeout = httpx.Timeout(silent_s, connect=_CONNECT_WITHIN_S)
    try:
        with (
            httpx.Client(timeout=timeout, verify=trusted(), trust_env=not is_near) as client,
            client.stream("POST", url, json=dict(body), headers=headers) as response,
        ):
            is_stream = response.status_code == 200 and "event-stream" in response.headers.get("content-type", "")
            content = b"" if is_stream else _start(response)
            events = _events(response) if is_stream else iter(())
            yield Stream(response.status_code, events, content, retry_after_s(response.headers.get("retry-after")))
    except ConnectionError:  # what is said here already
        raise
    except httpx.ReadTimeout as error:
        raise ConnectionError(f"nothing came for {silent_s:.0f} s") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise ConnectionError(describe(error)) from error


def _start(response: httpx.Response) -> bytes:
    content = bytearray()
    for piece in response.iter_raw():
        content += piece
        if len(content) > _LARGEST_REFUSAL_BYTES:
            raise ConnectionError(f"its answer is larger than {_LARGEST_REFUSAL_BYTES} bytes")
    return bytes(content)


def _events(response: httpx.Response) -> Iterator[str]:
    """The data of each event that is on one line, as every server of this API writes them."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest, size = "", 0
    for piece in response.iter_raw():
        size += len(piece)
        *lines, rest = (rest + decoder.decode(piece)).split("\n")
        if size > _LARGEST_BYTES or len(rest) > _LARGEST_LINE:
            raise ConnectionError("its answer has no end")
        yield from (line[5:].strip() for line in lines if line.startswith("data:"))
