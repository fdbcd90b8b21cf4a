"""What a client library sends: credentials to one server, nothing in the clear."""

from __future__ import annotations

import pytest

from deploytk.base.bound import keep_at_home
from deploytk.base.errors import ReleaseError
from deploytk.base.origin import Origin

HUB = Origin.of("https://hub.example.com")
HERE = Origin.of("http://127.0.0.1:8080")


def _left(url: str, home: Origin, *friends: Origin) -> set[str]:
    headers = {"Authorization": "Bearer s3cret", "cookie": "m_session_id=s3cret", "Range": "bytes=0-1"}
    keep_at_home(url, headers, home, friends)
    return set(headers)


@pytest.mark.parametrize("url", ["https://hub.example.com/x", "https://HUB.example.com:443/x"])
def test_the_hub_itself_gets_all(url: str) -> None:
    assert _left(url, HUB) == {"Authorization", "cookie", "Range"}


@pytest.mark.parametrize(
    "url", ["https://hub.example.com:444/", "https://hub.example.com.evil.example/", "https://cdn.example.com/"]
)
def test_others_get_no_credential(url: str) -> None:
    assert _left(url, HUB) == {"Range"}
    assert _left(url, HUB, Origin.of("https://cdn.example.com")) >= {"Range"}


def test_a_friend_gets_all() -> None:
    assert "Authorization" in _left("https://cdn.example.com/", HUB, Origin.of("https://cdn.example.com"))


def test_a_friend_at_another_port_is_none() -> None:
    assert _left("https://cdn.example.com:444/", HUB, Origin.of("https://cdn.example.com")) == {"Range"}


def test_a_friend_in_the_clear_is_none() -> None:
    with pytest.raises(ReleaseError, match="without encryption"):
        _left("http://cdn.example.com/", HUB, Origin.of("https://cdn.example.com"))


@pytest.mark.parametrize(
    "url", ["http://hub.example.com/", "http://127.0.0.1:9/", "http://localhost/", "https://127.0.0.1/", "ftp://h/", ""]
)
def test_nothing_of_a_hub_goes_into_the_clear_or_to_this_machine(url: str) -> None:
    with pytest.raises(ReleaseError, match="without encryption or on this machine"):
        _left(url, HUB)


def test_a_hub_on_this_machine_may_name_another_port_of_it() -> None:
    assert _left("http://127.0.0.1:9/", HERE) == {"Range"}
    with pytest.raises(ReleaseError):
        _left("http://192.0.2.1/", HERE)
