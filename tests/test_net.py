"""The one getter: bounded in time and size, nothing unpacked, no way to elsewhere, keys where they belong."""

from __future__ import annotations

import asyncio
import functools
import gzip
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from lying_server import Asked, Script, lying, plain
from stranger import make_certificate, stranger

from deploytk.base import net
from deploytk.base.json import parse_json
from deploytk.base.net import Key, ask, describe
from deploytk.base.origin import Origin, is_loopback, origin_of

Send = Callable[[bytes], None]


def _always(data: bytes) -> Script:
    return lambda _, send: send(data)


def _drip(_: Asked, send: Send) -> None:
    send(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        send(b"x")
        time.sleep(0.05)


def _drip_head(_: Asked, send: Send) -> None:
    send(b"HTTP/1.1 200 OK\r\n")
    while True:
        send(b"X: y\r\n")
        time.sleep(0.05)


def _flood(_: Asked, send: Send) -> None:
    send(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        send(bytes(2**16))


def test_a_whole_answer_comes_as_it_is() -> None:
    with lying(_always(plain(b'{"a": 1}', "201 Made"))) as url:
        answer = ask(url, 5)

    assert (answer.status, answer.json(), answer.is_whole) == (201, {"a": 1}, True)


def test_a_body_is_posted_as_json() -> None:
    seen: list[Asked] = []
    with lying(lambda asked, send: (seen.append(asked), send(plain(b"{}")))[1]) as url:
        ask(f"{url}/v1/x", 5, body={"model": "é"})

    assert (seen[0].method, seen[0].path, parse_json(seen[0].body)) == ("POST", "/v1/x", {"model": "é"})


@pytest.mark.parametrize("script", [_drip, _drip_head], ids=["body", "head"])
def test_one_byte_after_the_other_ends_at_the_limit_for_everything(script: Script) -> None:
    with lying(script) as url, pytest.raises(ConnectionError, match="no whole answer within"):
        ask(url, 0.5)


def test_an_endless_answer_ends_at_the_limit_of_its_size() -> None:
    with lying(_flood) as url, pytest.raises(ConnectionError, match="larger than 1000000 bytes"):
        ask(url, 20, largest_bytes=1_000_000)


def test_a_packed_answer_is_refused_and_not_unpacked() -> None:
    bomb = gzip.compress(bytes(2**24))
    packed = plain(bomb, headers="Content-Encoding: gzip\r\n")
    with lying(_always(packed)) as url, pytest.raises(ConnectionError, match="packed"):
        ask(url, 5)


def test_no_packed_answer_is_asked_for() -> None:
    with lying(lambda asked, send: send(plain(asked.head))) as url:
        assert b"\r\naccept-encoding: identity" in ask(url, 5).body.lower()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "broke off"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfew", "broke off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://example.org/\r\n\r\n", "another server"),
        (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", "no address of a server"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://[\r\n\r\n", "."),
        (b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n", "circle"),
    ],
)
def test_what_is_no_answer_says_why(data: bytes, reason: str) -> None:
    with lying(_always(data)) as url, pytest.raises(ConnectionError, match=reason):
        ask(url, 5)


def test_a_redirect_to_another_port_of_the_same_host_is_elsewhere() -> None:
    reached: list[Asked] = []
    with lying(lambda asked, send: (reached.append(asked), send(plain(b"{}")))[1]) as other:
        redirect = plain(b"", "307 There", f"Location: {other}/ready\r\n")
        with lying(_always(redirect)) as url, pytest.raises(ConnectionError, match="another server"):
            ask(url, 5, key=Key.bound_to(url, "secret"))

    assert reached == []


def test_a_certificate_that_nobody_trusts_ends_it_before_a_key_is_sent(tmp_path: Path) -> None:
    with stranger(make_certificate(tmp_path)) as server:
        with pytest.raises(ConnectionError, match="certificate is not trusted"):
            ask(server.url, 5, key=Key.bound_to(server.url, "secret"))

        assert server.requests == []


def test_no_proxy_gets_what_is_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)

    with lying(_always(plain(b"{}"))) as url:
        assert ask(url, 5).body == b"{}"


def test_a_redirect_within_the_server_is_followed() -> None:
    def script(asked: Asked, send: Send) -> None:
        send(plain(b"", "302 There", "Location: /there\r\n") if asked.path == "/" else plain(asked.path.encode()))

    with lying(script) as url:
        assert ask(f"{url}/", 5).body == b"/there"


def test_nobody_there_is_said() -> None:
    with pytest.raises(ConnectionError, match="no connection"):
        ask("http://127.0.0.1:9", 5)


@pytest.mark.parametrize("script", [_drip, _flood], ids=["slow", "much"])
def test_the_start_of_an_endless_answer_can_be_enough(script: Script) -> None:
    with lying(script) as url:
        answer = ask(url, 2, takes_start=True, largest_bytes=5)

    assert 0 < len(answer.body) <= 5
    assert not answer.is_whole


def test_the_start_of_a_packed_answer_is_not_unpacked_either() -> None:
    bomb = gzip.compress(bytes(2**24))
    with lying(_always(plain(bomb, headers="Content-Encoding: gzip\r\n"))) as url:
        answer = ask(url, 5, takes_start=True, largest_bytes=2**20)

    assert answer.body == bomb


@pytest.mark.parametrize(
    "other", ["https://a.example/", "http://a.example:81/", "http://b.example/", "http://a.example.evil/"]
)
def test_a_key_goes_to_its_scheme_host_and_port_alone(other: str) -> None:
    key = Key.bound_to("http://a.example/v1", "secret")

    assert key.headers("http://A.example:80/x") == {"Authorization": "Bearer secret"}
    assert key.headers(other) == {}
    assert "secret" not in repr(key)


@pytest.mark.parametrize("token", ["", "a b", "a\nb", "a\r\nHost: x", "ключ", "a\x00"])
def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII") as caught:
        Key.bound_to("http://a.example", token)

    assert not token or token not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "a.example", "http://", "http://a:b/", "ftp://a.example", "http://["]
)
def test_what_is_no_address_of_a_web_server_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Origin.of(url)


@pytest.mark.parametrize(
    "text",
    [
        b"NaN",
        b"[Infinity]",
        b"1e999",
        b"-1e999",
        b"1" * 5000,
        b"[" * 100_000,
        b"\xff",
        b'"\xff"',
        b"{",
        b"",
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_is_no_json_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_json(text)


def test_an_object_with_a_key_twice_is_refused_where_that_matters() -> None:
    assert parse_json('{"a": 1, "a": 2}') == {"a": 2}
    with pytest.raises(ValueError, match="twice"):
        parse_json('[{"a": 1, "a": 2}]', has_unique_keys=True)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True),
     ("localhost.example", False), ("evillocalhost", False), ("evil.localhost", False),
     ("127.0.0.1.example", False), ("10.0.0.1", False), ("0.0.0.0", False), ("", False)],
)  # fmt: skip
def test_loopback_is_this_machine(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:9/", "the connection is refused"),
        ("http://no.such.host.invalid/", "its name cannot be resolved (DNS)"),
        ("ftp://127.0.0.1/", "its address is no web address"),
    ],
)
def test_a_name_that_is_none_is_told_from_a_connection_that_is_refused(url: str, words: str) -> None:
    with pytest.raises(httpx.HTTPError) as by_httpx:
        httpx.get(url, trust_env=False)

    assert describe(by_httpx.value) == words


def test_other_clients_errors_are_told_alike() -> None:
    requests = pytest.importorskip("requests")
    session = requests.Session()
    session.trust_env = False
    said = {}
    for url in ("http://127.0.0.1:9/", "http://no.such.host.invalid/"):
        with pytest.raises(requests.ConnectionError) as caught:
            session.get(url, timeout=5)
        said[url] = describe(caught.value)

    assert list(said.values()) == ["the connection is refused", "its name cannot be resolved (DNS)"]


def test_the_getter_tells_them_apart_as_well() -> None:
    with pytest.raises(ConnectionError, match="cannot be resolved"):
        ask("http://no.such.host.invalid/", 5)
    with pytest.raises(ConnectionError, match="refused"):
        ask("http://127.0.0.1:9/", 5)


def test_an_address_of_somebody_else_has_an_origin_or_none() -> None:
    assert str(origin_of("HTTPS://H.example:443/x")) == "https://h.example"
    assert str(origin_of("http://[::1]:80")) == "http://[::1]"
    assert str(origin_of("http://h:8080/")) == "http://h:8080"
    for url in ("https://a@h/", "https://:@h/", "h", "http://[", "http://h:x", "file:///x", None, 5):
        assert origin_of(url) is None


def test_only_tls_and_this_machine_are_private() -> None:
    private = ("https://h/", "http://127.0.0.2:1/", "http://[::1]/", "http://localhost/")
    assert all(Origin.of(url).is_private for url in private)
    assert not any(Origin.of(url).is_private for url in ("http://h/", "http://localhost.h/", "http://10.0.0.1/"))


def test_it_is_asked_from_within_an_event_loop_too() -> None:
    async def asked() -> str:
        with pytest.raises(ConnectionError) as error:
            ask("http://127.0.0.1:9/", 5.0)
        return str(error.value)

    assert "refused" in asyncio.run(asked())


class _Elsewhere:
    """Servers with names, without a network: what each was asked, and where the first one sends everybody."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
        self.asked: list[httpx.Request] = []
        self.place = place
        client = functools.partial(httpx.AsyncClient, transport=httpx.MockTransport(self._answer))
        monkeypatch.setattr(net.httpx, "AsyncClient", client)
        for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy"):
            monkeypatch.delenv(name, raising=False)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if request.url.host == "hub.example":
            return httpx.Response(302, headers={"Location": self.place})
        return httpx.Response(200, stream=httpx.ByteStream(b"weights"))


HUB = "https://hub.example/model.safetensors"


def test_an_answer_that_may_leave_comes_from_the_storage_and_the_key_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    servers = _Elsewhere(monkeypatch, "https://storage.example/abc?signature=1")

    answer = ask(HUB, 5, key=Key.bound_to("https://hub.example", "secret"), asks_start=True, may_leave=True)

    assert answer.body == b"weights"
    assert [(one.url.host, one.headers.get("authorization")) for one in servers.asked] == [
        ("hub.example", "Bearer secret"),
        ("storage.example", None),
    ]
    assert servers.asked[1].headers["range"].startswith("bytes=0-")


@pytest.mark.parametrize(
    "place", ["http://storage.example/abc", "https://127.0.0.1/abc", "https://localhost:8443/abc", "https://[::1]/abc"]
)
def test_what_may_leave_never_leaves_tls_or_comes_back_to_this_machine(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    servers = _Elsewhere(monkeypatch, place)

    with pytest.raises(ConnectionError, match="another server"):
        ask(HUB, 5, may_leave=True)
    assert len(servers.asked) == 1


def test_what_may_not_leave_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    servers = _Elsewhere(monkeypatch, "https://storage.example/abc")

    with pytest.raises(ConnectionError, match="another server"):
        ask(HUB, 5)
    assert len(servers.asked) == 1


def test_the_next_page_of_a_list_is_named_by_its_link(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Link": '</list?cursor=2>; rel="next"'}, stream=httpx.ByteStream(b"[]"))

    monkeypatch.setattr(
        net.httpx, "AsyncClient", functools.partial(httpx.AsyncClient, transport=httpx.MockTransport(answer))
    )

    assert ask("https://hub.example/list", 5).next_url == "https://hub.example/list?cursor=2"
