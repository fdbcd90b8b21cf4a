"""The files of the chat page as the app hands them out: small, kept by browsers, and needing nothing from elsewhere."""

from __future__ import annotations

import asyncio
import gzip
import re
from pathlib import Path
from typing import Any

import pytest

from deploytk.app.page import PLACE, POLICY, SETTINGS, Page
from deploytk.app.refused import RefusedError

MANIFEST = {"app": {"title": "书生", "examples": ["a"]}, "plan": {"session_len": 64}}
FILES = sorted(path for path in PLACE.rglob("*") if path.is_file())


def asked(path: str, method: str = "GET", **headers: str) -> tuple[int, dict[bytes, bytes], bytes]:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    page = Page(MANIFEST, 8)
    assert page.has(path)
    asyncio.run(page.show({"method": method, "path": path, "headers": raw}, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


def test_a_browser_gets_a_file_packed_and_only_when_it_has_changed() -> None:
    status, headers, body = asked("/page/app.js", accept_encoding="br, gzip")
    again = asked("/page/app.js", if_none_match=headers[b"etag"].decode())

    assert (status, headers[b"content-encoding"]) == (200, b"gzip")
    assert gzip.decompress(body) == (PLACE / "app.js").read_bytes() == asked("/page/app.js")[2]
    assert (again[0], again[2]) == (304, b"")


def test_nothing_from_elsewhere_may_be_loaded() -> None:
    policy = asked("/")[1][b"content-security-policy"].decode()

    assert "default-src 'none'" in policy
    assert re.findall(r"(?:script|style|img|connect)-src ([^;]+)", policy) == [
        "'self'", "'self'", "'self' data:", "'self'"
    ]  # fmt: skip


def test_the_whole_policy_of_the_page() -> None:
    said = dict(one.strip().split(" ", 1) for one in POLICY.decode().split(";"))

    assert said == {
        "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "style-src-attr": "'unsafe-inline'",
        "img-src": "'self' data:", "connect-src": "'self'", "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_of_the_page_names_another_server(path: Path) -> None:
    text = re.sub(r"/\*!.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)  # licences
    named = set(re.findall(r"https?://[\w.-]+", text))

    assert named <= {"http://www.w3.org"}  # a namespace, which nobody fetches


def test_only_the_settings_are_for_who_may_use_the_model() -> None:
    page = Page(MANIFEST, 8)
    text = asked("/")[2].decode() + "".join(path.read_text(encoding="utf-8") for path in FILES)

    assert (page.is_open("/"), page.is_open("/page/app.js"), page.is_open(SETTINGS)) == (True, True, False)
    assert not any(page.has(path) for path in ("/page/", "/page/../page.py", "/page/index.html", "/page/none.js"))
    assert "书生" not in text
    with pytest.raises(RefusedError):
        asked("/", "POST")


def test_all_of_the_page_without_formulas_is_less_than_100_kib_on_the_wire() -> None:
    page = Page(MANIFEST, 8)
    packed = sum(len(file._packed) for path, file in page._files.items() if "temml" not in path)

    assert packed < 100 * 1024


def test_every_test_that_the_page_of_the_chat_page_names_is_there() -> None:
    root = Path(__file__).parents[1]
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", (root / "docs" / "howto" / "chat-page.md").read_text("utf-8")))
    there = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_app_*.py"))

    assert len(named) > 15
    assert [name for name in sorted(named) if f"def {name}(" not in there] == []
