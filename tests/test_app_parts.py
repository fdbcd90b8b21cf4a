"""Parts of the app that need no server to be asked: what it takes on, whether its files are there, chunks."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h11
import pytest

from deploytk.app.chunks import Unchunked, are_chunks
from deploytk.app.connections import GuardedProtocol
from deploytk.app.gateway import _is_json
from deploytk.app.limits import Limits
from deploytk.app.page import SETTINGS, Page
from deploytk.app.settings import EngineSettings

PLAN = {"max_batch_size": 8, "session_len": 2048}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"


def _settings(bundle: Path, files: dict[str, int], program: str = sys.executable) -> EngineSettings:
    return EngineSettings("turbomind", (program,), bundle, files, None)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"0123", ""),
        (None, "weights/a is missing"),
        (b"012", "weights/a has 3 bytes, deploytk.json says 4"),
        (b"01234", "weights/a has 5 bytes, deploytk.json says 4"),
        (POINTER, "weights/a is a git-lfs pointer, not the file: run `git lfs pull`"),
        (POINTER[:23], "weights/a is a git-lfs pointer, not the file: run `git lfs pull`"),
    ],
)
def test_an_engine_starts_only_with_all_of_its_files(tmp_path: Path, content: bytes | None, problem: str) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "first").write_bytes(b"")
    if content is not None:
        (tmp_path / "weights" / "a").write_bytes(content)

    assert _settings(tmp_path, {"first": 0, "weights/a": 4}).find_problem() == problem


def test_an_engine_that_is_not_installed_is_named(tmp_path: Path) -> None:
    assert _settings(tmp_path, {}, "no-such-engine").find_problem() == "no-such-engine is not installed here"


def test_an_app_takes_on_what_its_plan_says() -> None:
    limits = Limits.of({"plan": PLAN})

    assert (limits.running, limits.waiting, limits.session_len) == (8, 64, 2048)
    assert (limits.body_bytes, limits.connections) == (4 * 2**20, 512)
    assert (limits.request_s, limits.body_s, limits.drain_s, limits.watchdog_s) == (600, 30, 30, 30)
    assert limits.held_bytes == (8 + 64 + 8) * 4 * 2**20
    assert Limits.of({"plan": PLAN | {"max_batch_size": 0}}).running == 1


SMALLEST = {
    "MAX_BODY_BYTES": 1, "MAX_RUNNING": 1, "MAX_WAITING": 0, "REQUEST_S": 1, "BODY_S": 1, "DRAIN_S": 0,
    "MAX_CONNECTIONS": 8, "WATCHDOG": 0,
}  # fmt: skip
"""What each of the environment's limits may be at least: 0 where "none" means something."""


@pytest.mark.parametrize(("name", "least"), SMALLEST.items())
def test_limits_of_the_environment_have_a_least_value(name: str, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"MAX_BODY_BYTES": "body_bytes", "MAX_RUNNING": "running", "MAX_WAITING": "waiting",
              "MAX_CONNECTIONS": "connections", "WATCHDOG": "watchdog_s"}  # fmt: skip
    monkeypatch.setenv(f"DEPLOYTK_{name}", str(least))
    assert getattr(Limits.of({"plan": PLAN}), fields.get(name, name.lower())) == least

    for wrong in (str(least - 1), "1.5", "many", "٣", "9" * 16, " 9"):
        monkeypatch.setenv(f"DEPLOYTK_{name}", wrong)
        with pytest.raises(SystemExit, match=f"DEPLOYTK_{name} is .* at least {least} is needed"):
            Limits.of({"plan": PLAN})


def test_the_page_is_open_to_everybody_and_its_settings_are_not() -> None:
    page = Page({"app": {"title": "t", "examples": []}, "plan": PLAN}, 8)

    assert page.is_open("/")
    assert page.has("/")
    assert page.has(SETTINGS)
    assert not page.is_open(SETTINGS)
    assert not page.has("/page/index.html")  # it has one name
    assert not page.has("/page/other.js")


@pytest.mark.parametrize(
    ("kinds", "is_json"),
    [
        ([b"application/json"], True),
        ([b"Application/JSON ; charset=utf-8"], True),
        ([b"text/plain", b"application/json"], True),
        ([b"application/json", b"text/plain"], False),
        ([b"application/atom"], False),
        ([b"application/json5"], False),
        ([b"text/plain"], False),
        ([b""], False),
        ([], False),
    ],
)
def test_only_json_is_taken_for_json(kinds: list[bytes], is_json: bool) -> None:
    scope: Any = {"headers": [(b"accept", b"application/json"), *((b"Content-Type", kind) for kind in kinds)]}

    assert _is_json(scope) is is_json


@pytest.mark.parametrize(
    ("head", "chunked"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", True),
        (b"HTTP/1.1 200 OK\r\nA: b\r\ntransfer-encoding : gzip, chunked\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", False),
        (b"HTTP/1.1 200 transfer-encoding: chunked\r\n", False),
        (b"HTTP/1.1 200 OK\r\nX: transfer-encoding: chunked\r\n", False),
    ],
)
def test_chunks_are_told_by_their_header(head: bytes, chunked: bool) -> None:
    assert are_chunks(head) is chunked


async def _exactly(body: Unchunked, size: int) -> bytes | int:
    try:
        return await body.readexactly(size)
    except asyncio.IncompleteReadError as error:
        return len(error.partial)


@pytest.mark.parametrize("end", ["shutdown", "timeout_keep_alive_handler"])
def test_a_connection_with_nothing_left_to_say_is_closed_all_the_same(end: str) -> None:
    """An app that is told to stop would wait for it, half a minute."""
    closed = []
    protocol: Any = GuardedProtocol.__new__(GuardedProtocol)
    protocol.cycle, protocol.conn = None, h11.Connection(h11.SERVER)
    protocol.transport = SimpleNamespace(is_closing=lambda: False, close=lambda: closed.append(end))
    protocol.conn.send_failed()  # from here on h11 sends nothing

    getattr(protocol, end)()

    assert closed == [end]


def _unchunked(data: bytes, *sizes: int) -> list[bytes | int]:
    """What is read with these limits, one after the other; the bytes that were there instead of too few."""

    async def read() -> list[bytes | int]:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        body, found = Unchunked(reader), list[bytes | int]()
        for size in sizes:
            found.append(await (_exactly(body, size) if size > 0 else body.read(-size)))
        return found

    return asyncio.run(read())


def test_chunks_are_taken_apart() -> None:
    whole = b"3\r\nabc\r\n2;name=value\r\nde\r\n0\r\n\r\n"

    assert _unchunked(whole, 5) == [b"abcde"]
    assert _unchunked(whole, 1, 1, 3) == [b"a", b"b", b"cde"]
    assert _unchunked(whole, -2, -9, -9, -9) == [b"ab", b"c", b"de", b""]  # at most one chunk at a time
    assert _unchunked(whole, 6, -9) == [5, b""]
    assert _unchunked(b"A\r\n0123456789\r\n0\r\n\r\n", 10) == [b"0123456789"]


@pytest.mark.parametrize("broken", [b"", b"nonsense\r\nabc", b"-3\r\nabc\r\n", b"5\r\nabc", b"0\r\n\r\nabc", b"3"])
def test_chunks_that_break_off_end_there(broken: bytes) -> None:
    *_, last = _unchunked(broken, -9, -9, -9)

    assert last == b""
