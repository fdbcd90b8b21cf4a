"""A registry's login goes to the registry and to the token server that it names, never in the clear, never on."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from stranger import Answer, Stranger, make_certificate, stranger

from deploytk.base.errors import DeployError, ImageError, TryAgainError
from deploytk.base.retry import RetryPolicy
from deploytk.image.reference import Reference, parse_reference
from deploytk.image.registry.connection import Connection
from deploytk.image.registry.logins import Login
from deploytk.image.registry.pull import read_registry
from deploytk.image.registry.referrers import _path

LOGIN = Login("me", "s3cret-word")
BASIC = base64.b64encode(b"me:s3cret-word").decode()
QUICK = RetryPolicy(attempts=2, total_s=5.0, first_s=0.01)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stranger]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with stranger() as server:
        yield server


@pytest.fixture(params=["http", "https"])
def other(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stranger]:
    certificate = make_certificate(tmp_path) if request.param == "https" else None
    with stranger(certificate) as server:
        yield server


def _connection(registry: Stranger) -> Connection:
    return Connection(parse_reference(f"{registry.host}/a/b:1"), LOGIN, QUICK)


def _to(other: Stranger, status: int = 307) -> Answer:
    return (status, {"Location": f"{other.url}/v2/a/b/blobs/x"}, b"")


def _bearer(realm: str) -> Answer:
    return (401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="s"'}, b"")


TOKEN: Answer = (200, {}, json.dumps({"token": "t0ken-of-the-registry", "expires_in": 300}).encode())


@pytest.mark.parametrize("challenge", ["basic", "bearer"])
def test_an_upload_that_goes_on_elsewhere_carries_no_login(registry: Stranger, other: Stranger, challenge: str) -> None:
    registry.answers[:] = [(401, {"WWW-Authenticate": 'Basic realm="r"'}, b"")]
    if challenge == "bearer":
        registry.answers[:] = [_bearer(f"{registry.url}/token"), TOKEN]
    registry.answers += [_to(other, 202)]
    with _connection(registry) as connection:
        response = connection.ask("POST", f"{connection.root}/blobs/uploads/", (202,))
        with pytest.raises(DeployError):  # it is not trusted, or asks for a login
            connection.ask("PUT", connection.follow(response), (201,), content=b"x")

    assert registry.logins
    assert other.logins == []
    assert not other.saw(LOGIN.secret)
    assert not other.saw("t0ken-of-the-registry")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "HEAD"])
def test_no_request_follows_a_redirect_by_itself(registry: Stranger, method: str, status: int) -> None:
    with stranger() as other:
        registry.answers[:] = [_to(other, status)]
        with _connection(registry) as connection, pytest.raises(ImageError, match="redirects without end"):
            connection.ask(method, f"{connection.root}/x", (200,))

        assert other.requests == []


def test_who_redirects_downloads_in_a_circle_is_told_so(registry: Stranger) -> None:
    registry.always = (307, {"Location": "/v2/a/b/again"}, b"")

    with pytest.raises(ImageError, match="redirects without end"):
        read_registry(f"{registry.host}/a/b:1")


@pytest.mark.parametrize(
    "where", ["http://192.0.2.1/x", "http://storage.example.com/x", "ftp://h/x", "http://[", "data:,"]
)
def test_blobs_go_nowhere_in_the_clear(registry: Stranger, where: str) -> None:
    registry.always = (202, {"Location": where}, b"")
    with _connection(registry) as connection:
        response = connection.ask("POST", f"{connection.root}/blobs/uploads/", (202,))
        with pytest.raises(ImageError, match=r"without encryption|no web address"):
            connection.follow(response)


def test_a_registry_elsewhere_sends_nobody_to_this_machine() -> None:
    import httpx

    reference = Reference("registry.example.com", "a/b", "1")
    request = httpx.Request("POST", f"{reference.url}/v2/a/b/blobs/uploads/")
    with Connection(reference, LOGIN) as connection:
        for address in ("http://127.0.0.1:9/x", "http://localhost/x"):
            with pytest.raises(ImageError, match="without encryption"):
                connection.follow(httpx.Response(202, headers={"Location": address}, request=request))
        # Behind a proxy that speaks TLS for it, it may think that it speaks http.
        own = httpx.Response(202, headers={"Location": "http://registry.example.com/v2/x"}, request=request)
        assert connection.follow(own) == "https://registry.example.com/v2/x"
        assert connection._authorization.headers("http://registry.example.com/v2/x") == {}
        assert connection._authorization.headers("https://registry.example.com:444/v2/x") == {}


@pytest.mark.parametrize(
    "realm", ["http://auth.example.com/token", "http://192.0.2.1/token", "", "ftp://h/t", "http://["]
)
def test_a_login_goes_to_no_token_server_in_the_clear(registry: Stranger, realm: str) -> None:
    registry.always = _bearer(realm)

    with _connection(registry) as connection, pytest.raises(ImageError, match=r"without encryption|no address"):
        connection.ask("GET", f"{connection.root}/x", (200,))


def test_a_registry_elsewhere_has_its_token_server_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    reference = Reference("registry.example.com", "a/b", "1")
    request = httpx.Request("GET", f"{reference.url}/v2/x")
    headers = {"WWW-Authenticate": 'Bearer realm="http://127.0.0.1:9/token"'}
    with Connection(reference, LOGIN) as connection, pytest.raises(ImageError, match="without encryption"):
        connection.renew(httpx.Response(401, headers=headers, request=request))


def test_the_token_server_gets_the_login_and_sends_it_nowhere(registry: Stranger) -> None:
    with stranger() as tokens, stranger() as other:
        registry.answers[:] = [_bearer(f"{tokens.url}/token")]
        tokens.answers[:] = [(307, {"Location": f"{other.url}/token"}, b"")]

        with _connection(registry) as connection, pytest.raises(ImageError, match="does not accept the login"):
            connection.ask("GET", f"{connection.root}/x", (200,))

        assert tokens.logins == [f"Basic {BASIC}"]
        assert other.requests == []
        assert registry.logins == []


def test_an_identity_token_is_never_sent_as_a_password(registry: Stranger) -> None:
    registry.always = (401, {"WWW-Authenticate": 'Basic realm="r"'}, b"")
    login = Login("<token>", "opaque", is_identity_token=True)

    with Connection(parse_reference(f"{registry.host}/a/b:1"), login, QUICK) as connection, pytest.raises(ImageError):
        connection.ask("GET", f"{connection.root}/x", (200,))

    assert registry.logins == []


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"[" * 100_000, b'{"token": "a\\r\\nX: y"}', b'{"token": 5, "expires_in": "x"}']
)
def test_a_token_that_is_none_is_said(registry: Stranger, content: bytes) -> None:
    registry.answers[:] = [_bearer(f"{registry.url}/token"), (200, {}, content)]

    with _connection(registry) as connection, pytest.raises(ImageError, match="does not accept the login"):
        connection.ask("GET", f"{connection.root}/x", (200,))


def test_an_answer_without_end_or_packed_is_no_traceback(registry: Stranger) -> None:
    registry.answers[:] = [(200, {}, b"x" * (17 * 2**20))]
    with pytest.raises(ImageError, match="more than 16 MiB"):
        read_registry(f"{registry.host}/a/b:1")

    registry.answers[:] = [(200, {"Content-Encoding": "gzip"}, b"no gzip")]
    with pytest.raises(ImageError, match="is no image"):
        read_registry(f"{registry.host}/a/b:1")


def test_a_busy_registry_is_said_at_once_with_the_time(registry: Stranger) -> None:
    said: list[str] = []
    registry.answers[:] = [(429, {"Retry-After": "1"}, b""), (200, {}, b"")]
    reference = parse_reference(f"{registry.host}/a/b:1")

    with Connection(reference, None, RetryPolicy(first_s=0.01), note=said.append) as connection:
        connection.ask("GET", f"{connection.root}/x", (200,))

    assert said[0].startswith(f"{registry.host} answers 429: again in 1.0 s, until ")


def test_a_registry_that_asks_for_an_hour_is_not_waited_for(registry: Stranger) -> None:
    registry.always = (503, {"Retry-After": "3600"}, b"")

    with _connection(registry) as connection, pytest.raises(TryAgainError, match="asks to wait 3600 s"):
        connection.ask("GET", f"{connection.root}/x", (200,))

    assert len(registry.requests) == 1


def test_a_name_that_cannot_be_resolved_is_told_from_a_refused_connection() -> None:
    for host, words in (("127.0.0.1:9", "connection is refused"), ("no.such.host.invalid", "cannot be resolved")):
        reference = Reference(host, "a/b", "1")
        with Connection(reference, None, QUICK) as connection, pytest.raises(TryAgainError, match=words):
            connection.ask("GET", f"{connection.root}/x", (200,))


def test_a_storage_that_names_a_token_server_gets_no_login_to_it(registry: Stranger) -> None:
    with stranger() as storage, stranger() as tokens:
        storage.always = _bearer(f"{tokens.url}/token")
        tokens.always = TOKEN
        registry.answers[:] = [_to(storage, 202)]
        with _connection(registry) as connection:
            response = connection.ask("POST", f"{connection.root}/blobs/uploads/", (202,))
            with pytest.raises(ImageError, match=r"where .* sends us, asks for a login"):
                connection.ask("PUT", connection.follow(response), (201,), content=b"x")

        assert storage.requests
        assert tokens.requests == []


@pytest.mark.parametrize(
    "address",
    ["https://evil.example/v2/", "//evil.example/v2/", "@evil.example/v2/", ".evil.example/v2/", ":80@evil/v2/", ""],
)
def test_a_list_of_what_is_attached_goes_on_at_the_registry_alone(address: str) -> None:
    with pytest.raises(ImageError, match="goes on elsewhere"):
        _path(address)
    assert _path("/v2/a/b/referrers/x?n=2") == "/v2/a/b/referrers/x?n=2"
