"""What strangers send to the app, over raw sockets: nobody gets in, nothing breaks, and the log has no traceback."""

from __future__ import annotations

import contextlib
import json
import random
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import plain_http
import pytest
from apps import App, make_app, running_app, wait_for

KEY = "an-open-sesame-of-thirty-two-chars"
BODY_S = 2
BODY_BYTES = 65536
JSON = "Content-Type: application/json\r\n"
WELL = {"model": "tiny", "prompt": "x", "max_tokens": 1}


@contextlib.contextmanager
def unharmed(bundle: Path, log: Path, **environment: str) -> Iterator[App]:
    """An app that has to be as well after the test as before it."""
    limits = {"DEPLOYTK_BODY_S": str(BODY_S), "DEPLOYTK_MAX_BODY_BYTES": str(BODY_BYTES), **environment}
    with running_app(bundle, log, limits) as app:
        app.wait("ready")
        yield app
        key = environment.get("DEPLOYTK_API_KEYS", "none").partition(",")[0]
        answer = app.post("/v1/completions", WELL, headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == 200, answer.text
        assert "Traceback" not in app.output
        assert app.process.poll() is None


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_app(tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="module")
def app(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """One without page and keys."""
    with unharmed(bundle, tmp_path_factory.mktemp("log") / "app.log") as app:
        yield app


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """One with the page and Gradio, which wants a key."""
    place = tmp_path_factory.mktemp("page")
    with unharmed(make_app(place, "gradio"), place / "app.log", DEPLOYTK_API_KEYS=f"{KEY},another") as app:
        wait_for(lambda: app.get("/config", headers=known()).status_code == 200, 110, lambda: app.output)
        yield app


def connect(app: App) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port_of(app)), timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def port_of(app: App) -> int:
    return int(app.url.rpartition(":")[2])


def talk(app: App, data: bytes, within_s: float = 10) -> bytes:
    """All that comes back until the server closes, or has been quiet for a second."""
    with connect(app) as connection:
        with contextlib.suppress(ConnectionError):  # it may have heard enough before all is sent
            connection.sendall(data)
        return heard(connection, within_s)


def heard(connection: socket.socket, within_s: float = 10) -> bytes:
    got, deadline = b"", time.monotonic() + within_s
    with contextlib.suppress(ConnectionError, TimeoutError):
        while time.monotonic() < deadline:
            connection.settimeout(1.0 if got else within_s)
            data = connection.recv(65536)
            if not data:
                break
            got += data
    return got


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", answer)]


def known(**more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEY}", **more}


Count = Callable[[str, object], None]
"""`record_property("inputs", n)`: how many a test has sent, for tests/hostile.py."""


# Who has no key


ENUMERATE = """
import json, types
from deploytk.app.gradio_app import make_application
from deploytk.app.limits import Limits
settings = types.SimpleNamespace(name="cpu", features=())
engine = types.SimpleNamespace(state="ready", model="", settings=settings, detail="")
manifest = {"plan": {"session_len": 64}, "app": {"title": "", "examples": []}}
gateway = types.SimpleNamespace(engine=engine, limits=Limits())
waiting, found = list(make_application(manifest, gateway)._application.routes), []
while waiting:
    route = waiting.pop()
    # A mounted application, or a router that was included.
    inner = getattr(route, "original_router", None) or getattr(route, "app", None)
    waiting += getattr(inner, "routes", [])
    found += [(method, route.path) for method in getattr(route, "methods", None) or ()]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def routes() -> list[tuple[str, str]]:
    """Every method and path that Gradio has for our API, with a name for each variable part."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", ENUMERATE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = {(method, re.sub(r"{.*?}", "x", path)) for method, path in json.loads(done.stdout)}
    assert {("POST", "/gradio_api/upload"), ("GET", "/config"), ("GET", "/gradio_api/file=x")} <= found
    return sorted(found)


def test_no_route_of_the_page_is_open_without_a_key(
    page: App, routes: list[tuple[str, str]], record_property: Count
) -> None:
    record_property("inputs", 3 * len(routes))
    with plain_http.Client(base_url=page.url, timeout=20) as client:
        let_in = [
            (method, path, answer.status_code)
            for method, path in routes
            for headers in (
                {},
                {"authorization": "Bearer wrong"},
                {"cookie": f"deploytk_session_{port_of(page)}=1.2.3"},
            )
            if (answer := client.request(method, path, headers=headers)).status_code not in (401, 404, 405)
        ]

    assert len(routes) > 60
    # The page itself is the same for every model and visitor; a key can be shown.
    assert {one[:2] for one in let_in} <= {("GET", "/"), ("HEAD", "/"), ("POST", "/login")}


def test_uploads_and_files_are_off_even_with_the_key(
    page: App, routes: list[tuple[str, str]], record_property: Count
) -> None:
    with plain_http.Client(base_url=page.url, timeout=20, headers=known()) as client:
        answers = {
            (method, path): client.request(method, path).status_code
            for method, path in routes
            if method not in ("GET", "HEAD")
            or re.search("file|proxy|stream|upload|component|vibe|profil|monitor", path)
        }
        record_property("inputs", len(answers) + 2)
        uploaded = client.post("/gradio_api/upload", files={"files": ("a", b"x" * 1000)})
        passwd = client.get("/gradio_api/file=/etc/passwd")

    open_ones = {route for route, status in answers.items() if status not in (401, 404, 405)}
    used = {("POST", f"/gradio_api/{name}") for name in ("queue/join", "cancel", "reset")}
    assert open_ones == {*used, ("POST", "/login")}
    assert (uploaded.status_code, passwd.status_code) == (404, 404)


def test_a_browser_shows_its_key_once(page: App) -> None:
    with plain_http.Client(base_url=page.url, timeout=20) as client:
        asked = client.get("/", headers={"accept": "text/html"})
        settings = client.get("/page/settings.json")
        wrong = client.post("/login", data={"key": "wrong"})
        right = client.post("/login", data={"key": KEY}, headers={"x-forwarded-proto": "https"})
        cookie = right.headers["set-cookie"]
        session = cookie.partition(";")[0]
        opened = [
            client.get(path, headers={"cookie": session}).status_code
            for path in ("/page/settings.json", "/config", "/v1/models")
        ]
        forged = [
            client.get("/config", headers={"cookie": other.encode()}).status_code
            for other in (
                session[:-2] + "zz",
                session[:-1],
                session.replace("=", "=9"),
                session.upper(),
                session + "\xe9",
            )
        ]

    assert (asked.status_code, settings.status_code, "tiny" in asked.text) == (200, 401, False)
    assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
    assert (right.status_code, right.json()) == (200, {})
    assert {"HttpOnly", "SameSite=Lax", "Secure", "Path=/"} <= set(cookie.split("; "))
    assert KEY not in cookie
    assert opened == [200, 200, 200]
    assert forged == [401] * 5


def test_keys_cannot_be_guessed_one_after_the_other(bundle: Path, tmp_path: Path) -> None:
    place = tmp_path / "gradio"
    with unharmed(make_app(place, "gradio"), tmp_path / "log", DEPLOYTK_API_KEYS=KEY) as app:
        tries = [plain_http.post(f"{app.url}/login", data={"key": str(at)}) for at in range(12)]
        right = plain_http.post(f"{app.url}/login", data={"key": KEY})

        assert [answer.status_code for answer in tries] == [401] * 10 + [429] * 2
        assert int(tries[-1].headers["retry-after"]) > 0
        assert right.status_code == 429  # else a guess would be told from a wrong one
        # Programs that have the key are not kept out by somebody's guesses.
        assert app.get("/v1/models", headers=known()).status_code == 200


def test_strangers_learn_the_state_and_no_more(page: App) -> None:
    stranger, friend = page.get("/ready").json(), page.get("/ready", headers=known()).json()

    assert (stranger["state"], stranger["model"], stranger["detail"]) == ("ready", "", "")
    assert friend["model"] == "tiny"
    assert page.get("/metrics").status_code == page.get("/openapi.json").status_code == 401
    refused = page.get("/v1/models")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.json()["error"]["code"] == "invalid_api_key"


# Pages of other sites


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),  # another app of this machine
        ({"origin": "http://[evil"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site", "origin": "OURS"}, 403),
        ({"origin": "OURS"}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"origin": "https://chat.example", "x-forwarded-host": "chat.example"}, 200),  # behind a proxy
        ({}, 200),
    ],
)  # fmt: skip
def test_what_another_site_posts_is_refused(app: App, headers: dict[str, str], status: int) -> None:
    sent = {name: app.url if value == "OURS" else value for name, value in headers.items()}

    assert app.post("/v1/completions", WELL, headers=sent).status_code == status


FOREIGN = """evil.example evil.example:80 127.0.0.1.evil.example localhost.evil [::2] 10.0.0.1 127.0.0.1@evil.example
    [ localhost:1@evil xn-- .""".split()


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/v1/models", "/metrics"])
def test_on_loopback_a_name_that_is_not_ours_is_refused(app: App, path: str, record_property: Count) -> None:
    record_property("inputs", len(FOREIGN))
    for host in FOREIGN:
        request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"

        assert statuses(talk(app, request.encode())) == [403], host


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:7860", "127.0.0.1:1", "[::1]:7860", "localhost."])
def test_on_loopback_its_own_names_are_known(app: App, host: str) -> None:
    request = f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"

    assert statuses(talk(app, request.encode())) == [200]


# Requests that two servers would read differently

HIDDEN = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def post(headers: str, body: bytes = b"") -> bytes:
    return f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n{JSON}{headers}\r\n".encode() + body


@pytest.mark.parametrize(
    "request_",
    [
        post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + HIDDEN),
        post("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", b"0\r\n\r\n" + HIDDEN),
        post("Content-Length: 0\r\nContent-Length: 5\r\n", HIDDEN),
        post("Content-Length: 0, 5\r\n", HIDDEN),
        post("Content-Length: +0\r\n", HIDDEN),
        post("Content-Length: -1\r\n", HIDDEN),
        post("Content-Length: 0x0\r\n", HIDDEN),
        post("Content-Length: \u0660\r\n", HIDDEN),
        post("Content-Length: " + "9" * 400 + "\r\n", HIDDEN),
        post("Content-Length : 0\r\n", HIDDEN),
        post(" Content-Length: 0\r\n", HIDDEN),
        post("Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n" + HIDDEN),
        post("Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n" + HIDDEN),
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", b"0\r\n\r\n" + HIDDEN),
        post("Transfer-Encoding:\x0bchunked\r\n", b"0\r\n\r\n" + HIDDEN),
        post("Transfer-Encoding: chunked\r\n", b"-1\r\n\r\n" + HIDDEN),
        post("Transfer-Encoding: chunked\r\n", b"zz\r\n" + HIDDEN),
        post("Transfer-Encoding: chunked\r\n", b"1\r\nxx\r\n0\r\n\r\n" + HIDDEN),
        post("Transfer-Encoding: chunked\r\n", b"ffffffffffffffffffffffff\r\n" + HIDDEN),
        post("Transfer-Encoding: chunked\r\n", b"1" * 100_000),
        post("Content-Length: 2\r\nContent-Length: 2\r\n", b"{}" + HIDDEN),
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n",
        b"GET /v1/models HTTP/1.1\nHost: localhost\n\n",
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX: a\nY: b\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nNo colon\r\n\r\n",
        b"GET  /v1/models  HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/models\r\nHost: localhost\r\n\r\n",
        b"GET /v1/models HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET /v1/mod\x00els HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://evil.example/v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"\r\n\r\n\r\n",
        b"\x00" * 1000,
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 20_000 + b"\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=range(42),
)  # fmt: skip
def test_an_ambiguous_request_is_refused_and_what_follows_it_is_not_answered(app: App, request_: bytes) -> None:
    answer = talk(app, request_)

    assert not {status for status in statuses(answer) if status < 400 or status >= 500}, answer[:500]


WEBSOCKET = (
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eHh4eHh4eHh4eHh4eHh4eA==\r\n\r\n"
)


@pytest.mark.parametrize(
    "request_", [b"GET /health HTTP/1.0\r\n\r\n", WEBSOCKET, WEBSOCKET.replace(b"websocket", b"h2c")]
)
def test_what_is_odd_but_clear_is_answered(app: App, request_: bytes) -> None:
    assert statuses(talk(app, request_)) == [200]


# Clients that take their time


def test_a_slow_client_is_dropped_at_whatever_point_it_dawdles(app: App, page: App, record_property: Count) -> None:
    first = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    dawdlers = {
        "says nothing": (app, b""),
        "head": (app, b"GET /hea"),
        "head of the second request": (app, first + b"GET /hea"),
        "head of the third": (app, first * 2 + b"G"),
        "body": (app, post("Content-Length: 60\r\n", b"{")),
        "body of the second": (app, first + post("Content-Length: 60\r\n", b"{")),
        "chunks": (app, post("Transfer-Encoding: chunked\r\n", b"5\r\n{")),
        "body of a route that is not there": (app, post("Content-Length: 60\r\n").replace(b"v1/", b"v2/")),
        "body after the answer": (page, post("Content-Length: 60\r\n")),
        "login": (page, post("Content-Length: 60\r\n").replace(b"/v1/completions", b"/login")),
        "page": (page, post(f"Content-Length: 60\r\nAuthorization: Bearer {KEY}\r\n").replace(b"v1", b"gradio_api")),
    }
    record_property("inputs", len(dawdlers))
    with contextlib.ExitStack() as stack:
        open_ones = {}
        for name, (one, data) in dawdlers.items():
            open_ones[name] = stack.enter_context(connect(one))
            open_ones[name].sendall(data)
        deadline = time.monotonic() + BODY_S + 5 + 8  # the limit, the grace for an answer, and a busy machine
        silent = open_ones.pop("says nothing")
        while open_ones and time.monotonic() < deadline:
            open_ones = {name: one for name, one in open_ones.items() if not _is_closed(one)}
            time.sleep(0.3)

        assert not open_ones
        assert heard(silent, 5) == b""


def _is_closed(connection: socket.socket) -> bool:
    """After one more byte, of a kind that never makes the request whole."""
    try:
        connection.sendall(b"x")
        connection.setblocking(False)
        return connection.recv(65536) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    finally:
        connection.setblocking(True)


def test_a_client_that_does_not_read_keeps_no_place(bundle: Path, tmp_path: Path) -> None:
    with unharmed(bundle, tmp_path / "log", DEPLOYTK_MAX_RUNNING="1") as app, connect(app) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body = json.dumps({**WELL, "max_tokens": 1_000_000, "stream": True}).encode()
        deaf.sendall(post(f"Content-Length: {len(body)}\r\n", body))
        wait_for(lambda: {1} & {app.stub()["running"], app.stub()["cancelled"]}, 30)

        assert app.post("/v1/completions", WELL).status_code == 200  # waits for the place, and gets it
        wait_for(lambda: app.stub()["running"] == 0, 30)


def test_a_place_comes_free_when_its_client_is_gone(bundle: Path, tmp_path: Path) -> None:
    with unharmed(bundle, tmp_path / "log", DEPLOYTK_MAX_RUNNING="1", DEPLOYTK_MAX_WAITING="1") as app:
        body = json.dumps({**WELL, "max_tokens": 10_000, "stub_tokens_per_s": 10}).encode()
        for _ in range(3):
            with connect(app) as running, connect(app) as waiting:
                for connection in (running, waiting):
                    connection.sendall(post(f"Content-Length: {len(body)}\r\n", body))
                wait_for(lambda: "deploytk_requests_waiting 1" in app.get("/metrics").text, 30)
            wait_for(lambda: "deploytk_requests_waiting 0" in app.get("/metrics").text, 30)
            wait_for(lambda: "deploytk_requests_running 0" in app.get("/metrics").text, 30)

        assert app.post("/v1/completions", WELL).status_code == 200


def test_idle_connections_make_room_for_who_asks(bundle: Path, tmp_path: Path) -> None:
    with (
        unharmed(bundle, tmp_path / "log", DEPLOYTK_MAX_CONNECTIONS="16", DEPLOYTK_BODY_S="60") as app,
        contextlib.ExitStack() as stack,
    ):
        idle = [stack.enter_context(connect(app)) for _ in range(100)]
        for connection in idle[::2]:
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"GET /health")

        assert app.get("/health").status_code == 200
        # Of 100 at most 16 are left, the newest.
        wait_for(lambda: sum(_is_closed(one) for one in idle) >= 84, 10)


def test_connections_that_are_cut_anywhere_leave_nothing_behind(app: App, record_property: Count) -> None:
    record_property("inputs", 30)
    body = json.dumps({**WELL, "max_tokens": 500, "stream": True, "stub_tokens_per_s": 100}).encode()
    whole = post(f"Content-Length: {len(body)}\r\n", body)
    for cut in (1, 30, len(whole) - len(body), len(whole) - 1, len(whole), len(whole)):
        for _ in range(5):
            with connect(app) as connection:
                connection.sendall(whole[:cut])
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
                if cut == len(whole):
                    connection.recv(100)

    wait_for(lambda: app.stub()["running"] == 0, 30)
    wait_for(lambda: "deploytk_requests_running 0" in app.get("/metrics").text, 30)


# Bodies without end


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/models", "/v1/nothing", "/", "/health", "/metrics", "/x"])
@pytest.mark.parametrize("method", ["POST", "PUT", "GET", "DELETE", "PATCH"])
@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x"])
def test_no_route_takes_a_body_beyond_the_limit(
    app: App, path: str, method: str, kind: str, record_property: Count
) -> None:
    record_property("inputs", 2)
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nConnection: close\r\n"
    chunks = b"8000\r\n" + b"x" * 32768 + b"\r\n"

    chunked = talk(app, f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks * 3 + b"0\r\n\r\n")
    whole = talk(app, f"{head}Content-Length: {BODY_BYTES + 1}\r\n\r\n".encode() + b"x" * (BODY_BYTES + 1))

    assert (statuses(chunked), statuses(whole)) == ([413], [413])


@pytest.mark.parametrize("path", ["/gradio_api/queue/join", "/gradio_api/upload", "/login", "/config"])
def test_no_route_of_the_page_takes_a_body_beyond_the_limit(page: App, path: str) -> None:
    for size in (BODY_BYTES + 1, 10 * BODY_BYTES):
        answer = plain_http.post(
            page.url + path, content=iter([b"x" * size]), headers=known(), timeout=20
        )  # an iterator goes in chunks

        assert answer.status_code == 413


# Bodies that are odd

_HUGE = int("9" * 400)
_ODD: list[Any] = [
    None, True, "x", "\x00", "\ud83d\ude00", [], {}, [None], [[]], {"": {}}, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63),
    _HUGE, -_HUGE, 1.5, -0.0, 1e308, 5e-324, ["x"] * 17, [{"role": "user", "content": "x"}], {"type": "json_object"},
    [{"role": "user", "content": [{"type": "text"}]}], [{"role": [], "content": {}}], "x" * 3000,
]  # fmt: skip
_NAMES = """model messages prompt max_tokens max_completion_tokens n seed top_k temperature top_p min_p stop stream
    stream_options presence_penalty frequency_penalty repetition_penalty ignore_eos logprobs top_logprobs echo tools
    skip_special_tokens logit_bias response_format user unknown""".split()
_RAW = [
    b"", b" ", b"null", b"1", b'"x"', b"[]", b"{", b"{}}", b'{"a":}', b"\xef\xbb\xbf{}", b"\xff\xfe{\x00}\x00", b"\x00",
    b'{"model":"tiny","prompt":"\\ud800"}', b'{"model":"tiny","prompt":"\\udfff\\ud800"}', b'{"\\ud800":1}',
    b'{"model":"tiny","prompt":"\xed\xa0\x80"}', b'{"model":"tiny","prompt":"x","seed":1e400}',
    b'{"model":"tiny","prompt":"x","seed":' + b"9" * 60_000 + b"}", b'{"x":' + b"9" * 60_000 + b"}",
    b'{"x":' + b"9" * 5_000 + b".5}", b'{"x":1e' + b"9" * 5_000 + b"}", b'{"x":-Infinity}', b'{"x":NaN}',
    b"[" * 30_000, b'{"x":' * 10_000, b'{"model":"tiny","prompt":"x","y":' + b"[" * 900 + b"]" * 900 + b"}",
    b'{"model":"tiny","prompt":"x","y":' + b"[" * 70 + b"]" * 70 + b"}",
]  # fmt: skip


def odd_bodies(count: int) -> Iterator[bytes]:
    yield from _RAW
    chance = random.Random(13)
    for name in _NAMES:
        for value in (_HUGE, -_HUGE, 2**64):
            yield json.dumps({**WELL, "messages": [{"role": "user", "content": "x"}], name: value}).encode()
    for _ in range(count):
        fields = {name: chance.choice(_ODD) for name in chance.sample(_NAMES, chance.randint(1, 4))}
        yield json.dumps({**WELL, "messages": [{"role": "user", "content": "x"}], **fields}).encode()


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_no_body_is_an_error_of_the_server(app: App, path: str, record_property: Count) -> None:
    headers = {"content-type": "application/json"}
    record_property("inputs", len(list(odd_bodies(250))))
    with plain_http.Client(base_url=app.url, timeout=30) as client:
        for body in odd_bodies(250):
            answer = client.post(path, content=body, headers=headers)

            assert answer.status_code in (200, 400, 404), (body[:300], answer.text)
            if answer.status_code != 200:
                assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_no_number_is_too_large_to_be_refused_by_name(app: App) -> None:
    for name in ("max_tokens", "n", "seed", "top_k", "temperature", "top_p", "logprobs"):
        answer = app.post("/v1/completions", {**WELL, name: _HUGE})

        assert (answer.status_code, name in answer.json()["error"]["message"]) == (400, True), name


def test_no_field_takes_a_number_without_end(app: App) -> None:
    assert app.post("/v1/completions", {**WELL, "unknown": [{"x": _HUGE}]}).status_code == 400


def test_no_body_makes_the_page_fail(page: App, record_property: Count) -> None:
    record_property("inputs", 4 * (len(_RAW) + 40))
    chance = random.Random(13)
    odd = [value for value in _ODD if value not in (_HUGE, -_HUGE)]
    names = ["data", "fn_index", "session_hash", "event_id", "event_data", "trigger_id", "api_name"]
    with plain_http.Client(base_url=page.url, timeout=20, headers=known()) as client:
        for path in ("queue/join", "call/chat", "cancel", "reset"):
            for raw in (*_RAW, *(_body_for_gradio(chance, names, odd) for _ in range(40))):
                answer = client.post(f"/gradio_api/{path}", content=raw, headers={"content-type": "application/json"})

                assert answer.status_code < 500, (path, raw[:300], answer.text)


def _body_for_gradio(chance: random.Random, names: list[str], odd: list[Any]) -> bytes:
    fields = {name: chance.choice(odd) for name in chance.sample(names, chance.randint(1, 4))}
    if chance.random() < 0.7:
        fields |= {"fn_index": chance.randint(-2, 14), "data": chance.choices(odd, k=chance.randint(0, 7))}
    return json.dumps({"session_hash": "s", **fields}).encode()


METHODS = ["OPTIONS", "TRACE", "PUT", "DELETE", "PATCH", "HEAD", "PROPFIND", "X" * 200, "get", "post"]


@pytest.mark.parametrize(
    "path", ["/", "/health", "/v1/models", "/v1/completions", "/metrics", "/..%2f", "/%00", "//", "*"]
)
def test_no_method_is_an_error_of_the_server(app: App, path: str, record_property: Count) -> None:
    record_property("inputs", len(METHODS))
    for method in METHODS:
        answer = talk(app, f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())

        assert all(200 <= status < 500 for status in statuses(answer)), (method, answer[:200])
        assert statuses(answer), method


def test_random_bytes_do_no_harm(app: App, record_property: Count) -> None:
    record_property("inputs", 60)
    chance = random.Random(13)
    start: list[Callable[[], bytes]] = [
        lambda: b"", lambda: b"GET / HTTP/1.1\r\nHost: localhost\r\n", lambda: post("Transfer-Encoding: chunked\r\n")
    ]  # fmt: skip
    for _ in range(60):
        with connect(app) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(chance.choice(start)() + chance.randbytes(chance.randint(1, 4000)))
            connection.sendall(b"\r\n\r\n")

    assert app.get("/health").status_code == 200
