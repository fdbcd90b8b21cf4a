"""Who is let in, and for how long: keys, sessions, attempts, names and origins, without a server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from deploytk.app.connections import _is_strict
from deploytk.app.door import Door
from deploytk.app.identity import MOST_CLIENTS, SESSION_S, Attempts, Keys, Sessions
from deploytk.app.limits import Limits
from deploytk.app.origins import Hosts, is_cross_site
from deploytk.app.refused import RefusedError
from deploytk.app.relay import send_refusal
from deploytk.app.stage import Stage


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def test_only_a_whole_key_fits() -> None:
    keys = Keys(["one", "two", ""])

    assert [keys.fit(key) for key in (b"one", b"two", b"on", b"onee", b"", b"one,two", b"\xff")] == [
        True,
        True,
        *[False] * 5,
    ]
    assert (bool(keys), bool(Keys([]))) == (True, False)


def test_a_session_ends_with_its_time() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    token = sessions.open()

    clock.now_s += SESSION_S - 1
    assert sessions.is_open(token)
    clock.now_s += 1
    assert not sessions.is_open(token)


def test_a_session_is_of_one_process_and_cannot_be_made_longer() -> None:
    token = Sessions().open()
    until, nonce, signature = token.split(".")
    sessions = Sessions()
    ours = sessions.open()

    forged = [
        token,
        "",
        ".",
        "..",
        f"{int(until) + 9}.{nonce}.{signature}",
        ours + "0",
        ours[:-1],
        "é" + ours,
        ours.upper(),
    ]
    assert [sessions.is_open(one) for one in forged] == [False] * len(forged)
    assert sessions.open() != sessions.open()


def test_after_ten_wrong_keys_an_address_waits_a_minute() -> None:
    clock = Clock()
    attempts = Attempts(clock)

    for _ in range(10):
        assert attempts.may_try("192.0.2.1")
        attempts.note_failure("192.0.2.1")

    assert not attempts.may_try("192.0.2.1")
    assert attempts.may_try("192.0.2.2")
    clock.now_s += 59
    assert not attempts.may_try("192.0.2.1")
    clock.now_s += 2
    assert attempts.may_try("192.0.2.1")


def test_the_addresses_of_one_ipv6_network_are_one_client_and_memory_is_bounded() -> None:
    attempts = Attempts(Clock())
    for at in range(10):
        attempts.note_failure(f"2001:db8::{at}")

    assert not attempts.may_try("2001:db8::ffff%eth0")
    assert attempts.may_try("2001:db8:0:1::1")
    for at in range(MOST_CLIENTS + 10):
        attempts.note_failure(f"client {at}")
    assert len(attempts._failures) == MOST_CLIENTS


@pytest.mark.parametrize(
    ("listening_at", "allowed", "known", "unknown"),
    [
        ("127.0.0.1", "", ["localhost:1", "127.0.0.1", "[::1]", ""], ["evil.example", "10.0.0.1", "[fe80::1]"]),
        ("127.0.0.2", "", ["localhost", "127.0.0.2:1"], ["evil.example", "127.0.0.3"]),
        ("localhost", "Chat.example:80", ["chat.example", "CHAT.EXAMPLE:99", "chat.example."], ["evil.chat.example"]),
        ("::1", "*", ["evil.example"], []),
        # On all interfaces any name may be right, until somebody says which are.
        ("0.0.0.0", "", ["chat.example", "10.0.0.1"], []),
        ("0.0.0.0", "chat.example", ["chat.example", "10.0.0.1:1", "localhost"], ["evil.example", "[", "@"]),
    ],
)  # fmt: skip
def test_the_names_of_a_server(
    listening_at: str, allowed: str, known: list[str], unknown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPLOYTK_ALLOWED_HOSTS", allowed)
    hosts = Hosts.of(listening_at)

    assert [host for host in known if not hosts.know(host)] == []
    assert [host for host in unknown if hosts.know(host)] == []


@pytest.mark.parametrize(
    ("headers", "is_refused"),
    [
        ({}, False),
        ({"origin": "https://chat.example"}, False),
        ({"origin": "https://chat.example:443"}, True),  # browsers leave out the port of the scheme
        ({"origin": "https://other.example"}, False),  # that we were told of
        ({"origin": "https://evil.example"}, True),
        ({"origin": "null"}, True),
        ({"origin": ""}, True),
        ({"origin": "http://["}, True),
        ({"origin": "https://chat.example", "sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "same-site"}, True),
        ({"sec-fetch-site": "none"}, False),
    ],
)
def test_what_is_cross_site(headers: dict[str, str], is_refused: bool) -> None:
    hosts = Hosts("0.0.0.0", frozenset({"other.example"}))

    assert is_cross_site("POST", {"host": "chat.example", **headers}, hosts) == is_refused
    assert not is_cross_site("GET", {"host": "chat.example", **headers}, hosts)


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "\u0661", "9" * 40])
def test_a_setting_that_is_no_number_is_refused_in_words(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOYTK_WATCHDOG", value)

    with pytest.raises(SystemExit, match="DEPLOYTK_WATCHDOG is"):
        Limits.of({"plan": {"max_batch_size": 1, "session_len": 64}})


# The door itself, with somebody behind it who answers 200 to whatever is let through

KEY = "an-open-sesame"


class Behind:
    """A gateway that has a page, and keeps what came to it."""

    has_page, is_ending = True, False

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def is_open(self, path: str) -> bool:
        return path == "/"

    def count(self, scope: Any, status: int) -> None:
        pass

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.bodies.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Asker:
    """Sends requests to one door."""

    def __init__(self, limits: Limits = Limits(), keys: tuple[str, ...] = (KEY,)) -> None:  # noqa: B008 (it is frozen)
        self.behind = Behind()
        self.door = Door(self.behind, Keys(keys), Hosts("127.0.0.1", frozenset()), limits)  # type: ignore[arg-type]  # a stand-in

    def ask(self, method: str, path: str, body: bytes = b"", piece: int = 2**20, **headers: str) -> int:
        """The status; names of headers have _ for -."""
        told = {"host": "localhost", **headers}
        pieces = [body[at : at + piece] for at in range(0, len(body), piece)] or [b""]
        coming = iter(
            {"type": "http.request", "body": one, "more_body": at < len(pieces)} for at, one in enumerate(pieces, 1)
        )
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return next(coming, {"type": "http.disconnect"})

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        pairs = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in told.items()]
        scope = {"type": "http", "method": method, "path": path, "headers": pairs, "client": ("192.0.2.1", 1)}
        asyncio.run(self.door(scope, receive, send))
        return int(sent[0]["status"])


KNOWN = {"authorization": f"Bearer {KEY}"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/health", {}, 200),
        ("HEAD", "/ready", {}, 200),
        ("GET", "/", {}, 200),
        ("POST", "/health", {}, 401),  # open is what may be asked, not what may be done
        ("DELETE", "/", {}, 401),
        *[("GET", path, {}, 401) for path in ("/metrics", "/queue", "/v1/models", "/page/settings.json")],
        *[("GET", path, {}, 401) for path in ("//health", "/healthx", "/health/")],
        ("GET", "/metrics", {"authorization": "Bearer wrong"}, 401),
        ("GET", "/metrics", {"authorization": f"Basic {KEY}"}, 401),
        ("GET", "/metrics", {"authorization": KEY}, 401),
        ("GET", "/metrics", {"authorization": f"bearer  {KEY} "}, 200),
        ("GET", "/metrics", {**KNOWN, "host": "evil.example"}, 403),
        ("POST", "/v1/completions", {**KNOWN, "origin": "http://evil.example"}, 403),
        ("POST", "/v1/completions", {**KNOWN, "sec_fetch_site": "same-site"}, 403),
        ("POST", "/v1/completions", {**KNOWN, "content_length": "0", "transfer_encoding": "chunked"}, 400),
        ("GET", "/login", {}, 404),
    ],
)  # fmt: skip
def test_who_may_come_in_to_what(method: str, path: str, headers: dict[str, str], status: int) -> None:
    asker = Asker()

    assert asker.ask(method, path, **headers) == status
    assert bool(asker.behind.bodies) == (status == 200)


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "\u00b2", "1_0", "0x1", ""])
def test_a_length_that_is_none_is_refused(length: str) -> None:
    assert Asker().ask("POST", "/v1/completions", **KNOWN, content_length=length) == 413


def test_a_body_may_have_so_many_bytes_and_not_one_more() -> None:
    asker = Asker(Limits(body_bytes=200_000))

    assert [asker.ask("POST", "/x", b"x" * size, **KNOWN) for size in (200_000, 200_001)] == [200, 413]
    assert asker.ask("POST", "/x", **KNOWN, content_length="200001") == 413
    assert [len(body) for body in asker.behind.bodies] == [200_000]


def test_who_has_shown_no_key_sends_no_more_than_a_form_has() -> None:
    """Else strangers fill the room that all requests have together, and those who may ask are told to come again."""
    asker = Asker()

    assert [asker.ask("GET", "/health", b"x" * size) for size in (2**16, 2**16 + 1)] == [200, 413]
    assert asker.ask("POST", "/login", b"x" * (2**16 + 1), content_type="application/x-www-form-urlencoded") == 413
    assert Asker(keys=()).ask("POST", "/x", b"x" * (2**16 + 1)) == 200  # without keys nobody is a stranger


def test_requests_have_so_much_room_together_and_give_it_back() -> None:
    limits = Limits(body_bytes=100, running=1, waiting=1)
    asker = Asker(limits)
    room = limits.held_bytes  # 100 x (1 + 1 + 8)

    asker.door._held_bytes = room - 99
    assert [asker.ask("POST", "/x", b"x" * size, **KNOWN) for size in (99, 100)] == [200, 503]
    assert asker.door._held_bytes == room - 99
    for body, piece in ((b"x" * 100, 30), (b"x" * 101, 30), (b"x" * 300, 300)):
        asker.door._held_bytes = 0
        asker.ask("POST", "/x", body, piece, **KNOWN)
        assert asker.door._held_bytes == 0


def test_a_wrong_key_in_the_form_counts_and_the_right_one_then_waits_too() -> None:
    asker, form = Asker(), "application/x-www-form-urlencoded"
    right = f"key={KEY}".encode()

    assert asker.ask("POST", "/login", right, content_type="application/json") == 415
    assert asker.ask("POST", "/login", right, content_type=form) == 200
    assert [asker.ask("POST", "/login", b"key=wrong", content_type=form) for _ in range(10)] == [401] * 10
    assert asker.ask("POST", "/login", right, content_type=form) == 429


# Gradio behind it


async def _shown(page: Any, within_s: float = 5.0) -> list[dict[str, Any]]:
    """What a browser gets of an ASGI application on the stage."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await send({"type": "lifespan.startup.complete"})
        else:
            await page(send)

    stage = Stage(lambda: application, within_s)
    await stage.build()
    await stage.show({"type": "http", "method": "GET", "path": "/x"}, receive, send)
    return sent


def test_a_page_that_never_begins_is_ended() -> None:
    async def page(_: Any) -> None:
        await asyncio.sleep(60)

    with pytest.raises(RefusedError, match="no answer within") as refused:
        asyncio.run(_shown(page, 0.05))
    assert refused.value.status == 504


def test_a_page_that_fails_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    async def page(_: Any) -> None:
        raise KeyError("what it looked for")

    with pytest.raises(RefusedError) as refused:
        asyncio.run(_shown(page))

    assert refused.value.status == 502
    assert capsys.readouterr().err == "Gradio failed at GET '/x': KeyError: \"'what it looked for'\"\n"


def test_an_answer_that_the_page_breaks_off_is_ended() -> None:
    async def page(send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError

    assert asyncio.run(_shown(page))[-1] == {"type": "http.response.body", "body": b""}


def test_a_websocket_is_closed_at_the_door() -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    door = Door(None, Keys([]), Hosts("127.0.0.1", frozenset()), Limits())  # type: ignore[arg-type]  # nothing behind it is asked
    asyncio.run(door({"type": "websocket", "path": "/", "headers": []}, receive, send))

    assert sent == [{"type": "websocket.close", "code": 1008}]


class Failing(Behind):
    """A gateway that fails, before or after it has begun to answer."""

    def __init__(self, *, begins: bool) -> None:
        super().__init__()
        self.begins = begins

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.begins:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("a fault of ours")


@pytest.mark.parametrize(("begins", "statuses"), [(False, [500]), (True, [200])])
def test_a_fault_gets_an_answer_where_none_was_begun(begins: bool, statuses: list[int]) -> None:
    door = Door(Failing(begins=begins), Keys(()), Hosts("127.0.0.1", frozenset()), Limits())  # type: ignore[arg-type]  # a stand-in
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/health", "headers": [(b"host", b"localhost")]}
    with pytest.raises(RuntimeError, match="a fault of ours"):
        asyncio.run(door({**scope, "client": ("192.0.2.1", 1)}, receive, send))

    assert [message["status"] for message in sent if message["type"] == "http.response.start"] == statuses
    bodies = [json.loads(message["body"]) for message in sent if message["type"] == "http.response.body"]
    assert [body["error"]["type"] for body in bodies] == ["server_error"] * (not begins)


def _headers_of(error: RefusedError) -> dict[bytes, bytes]:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(send_refusal(send, error))
    return dict(sent[0]["headers"])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 500, 503])
def test_a_key_is_asked_for_where_one_is_missing_alone(status: int) -> None:
    found = _headers_of(RefusedError(status, "code", "words"))

    assert (b"www-authenticate" in found) == (status == 401)
    assert {b"retry-after", b"allow", b"connection"}.isdisjoint(found)


def test_a_refusal_says_when_to_come_back_and_what_is_allowed() -> None:
    found = _headers_of(RefusedError(405, "code", "words", 7, closes=True, allowed=("GET", "HEAD")))

    assert found[b"retry-after"] == b"7"
    assert found[b"allow"] == b"GET, HEAD"
    assert found[b"connection"] == b"close"


@pytest.mark.parametrize(("size", "is_strict"), [(32 * 1024, True), (32 * 1024 + 1, False)])
def test_a_head_has_32_kib_at_most(size: int, is_strict: bool) -> None:
    head = b"GET / HTTP/1.1\r\nA: "

    assert _is_strict(head + b"x" * (size - len(head)) + b"\r\n\r\n") == is_strict
