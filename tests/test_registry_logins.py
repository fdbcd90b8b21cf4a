"""Where logins for registries come from: the environment, Docker's settings, and real credential helpers."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from deploytk.base.errors import ImageError
from deploytk.image.registry.logins import Login, find_login

HOST = "registry.example.com"
FOUND = '{{"ServerURL": "{key}", "Username": "{user}", "Secret": "{secret}"}}'
HELPER = """#!/bin/sh
echo "$@" >> "{log}"
read -r key
case "$key" in
{cases}
esac
echo "credentials not found in native keychain"
exit 1
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Docker's settings go; without those of whoever runs the tests."""
    for name in ("DEPLOYTK_REGISTRY_USER", "DEPLOYTK_REGISTRY_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path / "config.json"


def _install(settings: Path, program: str, logins: dict[str, tuple[str, str]]) -> Path:
    """Puts a credential helper on the PATH; returns the file where it notes what it is asked to do."""
    place = settings.parent / "bin" / program
    place.parent.mkdir(exist_ok=True)
    log = settings.parent / f"{program}.log"
    cases = [
        f"'{key}') echo '{FOUND.format(key=key, user=user, secret=secret)}'; exit 0;;"
        for key, (user, secret) in logins.items()
    ]
    place.write_text(HELPER.format(log=log, cases="\n".join(cases)))
    place.chmod(0o755)
    return log


def _auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_a_helper_of_a_registry_is_asked(settings: Path) -> None:
    log = _install(settings, "docker-credential-test", {HOST: ("me", "from-the-helper")})
    settings.write_text(json.dumps({"credHelpers": {HOST: "test"}, "auths": {HOST: _auth("me", "old")}}))

    login = find_login(HOST, is_destination=True)

    assert login == Login("me", "from-the-helper")
    assert log.read_text() == "get\n"  # the name of the registry goes over its input, nothing else over its arguments


def test_a_helper_is_asked_for_its_registries_alone(settings: Path) -> None:
    log = _install(settings, "docker-credential-test", {"other.example.com": ("me", "secret")})
    settings.write_text(json.dumps({"credHelpers": {HOST: "test"}}))

    assert find_login("other.example.com", is_destination=True) is None
    assert not log.exists()


def test_the_store_is_asked_for_everything_else(settings: Path) -> None:
    _install(settings, "docker-credential-test", {HOST: ("me", "of-the-store")})
    _install(settings, "docker-credential-other", {"other.example.com": ("me", "of-the-other")})
    settings.write_text(json.dumps({"credsStore": "test", "credHelpers": {"other.example.com": "other"}}))

    assert find_login(HOST, is_destination=False) == Login("me", "of-the-store")
    assert find_login("other.example.com", is_destination=False) == Login("me", "of-the-other")
    assert find_login("third.example.com", is_destination=False) is None


def test_docker_hub_has_its_old_name_in_every_store(settings: Path) -> None:
    old = "https://index.docker.io/v1/"
    _install(settings, "docker-credential-test", {old: ("me", "of-the-store")})
    settings.write_text(json.dumps({"credsStore": "test"}))

    assert find_login("docker.io", is_destination=True) == Login("me", "of-the-store")

    settings.write_text(json.dumps({"auths": {old: _auth("me", "of-the-file")}}))

    assert find_login("docker.io", is_destination=True) == Login("me", "of-the-file")


@pytest.mark.parametrize("key", [HOST, f"https://{HOST}", f"https://{HOST}/v1/", f"http://{HOST}/v2/"])
def test_entries_of_older_clients_are_found(settings: Path, key: str) -> None:
    settings.write_text(json.dumps({"auths": {key: _auth("me", "pass:word")}}))

    assert find_login(HOST, is_destination=True) == Login("me", "pass:word")


def test_an_identity_token_is_told_from_a_password(settings: Path) -> None:
    settings.write_text(json.dumps({"auths": {HOST: _auth("me", "") | {"identitytoken": "opaque"}}}))
    from_file = find_login(HOST, is_destination=True)
    _install(settings, "docker-credential-test", {HOST: ("<token>", "opaque")})
    settings.write_text(json.dumps({"credsStore": "test"}))
    from_helper = find_login(HOST, is_destination=True)

    assert from_file == from_helper == Login("<token>", "opaque", is_identity_token=True)


def test_the_environment_counts_only_for_the_registry_that_is_pushed_to(
    settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.write_text(json.dumps({"auths": {HOST: _auth("me", "of-the-file")}}))
    monkeypatch.setenv("DEPLOYTK_REGISTRY_USER", "robot")
    monkeypatch.setenv("DEPLOYTK_REGISTRY_PASSWORD", "of-the-environment")

    assert find_login(HOST, is_destination=True) == Login("robot", "of-the-environment")
    assert find_login(HOST, is_destination=False) == Login("me", "of-the-file")


def test_a_helper_that_is_missing_is_named(settings: Path) -> None:
    settings.write_text(json.dumps({"credsStore": "absent"}))

    with pytest.raises(ImageError, match="docker-credential-absent, which Docker's settings name, is not installed"):
        find_login(HOST, is_destination=True)


def test_what_a_helper_says_is_not_repeated(settings: Path) -> None:
    place = settings.parent / "bin" / "docker-credential-test"
    place.parent.mkdir()
    place.write_text('#!/bin/sh\necho \'{"Secret": "s3cret-word\'\n')
    place.chmod(0o755)
    settings.write_text(json.dumps({"credsStore": "test"}))

    with pytest.raises(ImageError, match="docker-credential-test does not work") as caught:
        find_login(HOST, is_destination=True)

    assert "s3cret-word" not in f"{caught.value} {caught.value.hint} {caught.value.__cause__}"


@pytest.mark.parametrize("name", ["../test", "a b", "x;reboot", ""])
def test_a_helper_with_a_strange_name_is_not_run(settings: Path, name: str) -> None:
    settings.write_text(json.dumps({"credHelpers": {HOST: name}}))

    if name:
        with pytest.raises(ImageError, match="credential helper"):
            find_login(HOST, is_destination=True)
    else:
        assert find_login(HOST, is_destination=True) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"auths": 1}', '{"auths": {"registry.example.com": 1}}', '{"credHelpers": []}']
)
def test_settings_that_say_nothing_are_no_login(settings: Path, text: str) -> None:
    settings.write_text(text)

    assert find_login(HOST, is_destination=True) is None


def test_a_user_without_a_home_has_no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    monkeypatch.setattr("os.getuid", lambda: 4_000_000_000)  # in no list of users

    assert find_login(HOST, is_destination=True) is None


def test_a_login_is_never_shown() -> None:
    assert "s3cret-word" not in f"{Login('me', 's3cret-word')!r} {Login('me', 's3cret-word')}"


@pytest.mark.parametrize(
    "other",
    ["evil-registry.example.com", "example.com", "registry.example.com.evil.example", "registry.example.com:5000"],
)
def test_a_login_is_of_one_host_and_of_no_other_that_is_called_alike(settings: Path, other: str) -> None:
    settings.write_text(json.dumps({"auths": {HOST: _auth("me", "mine")}}))

    assert find_login(HOST, is_destination=True) == Login("me", "mine")
    assert find_login(other, is_destination=True) is None
