"""OpenXLab's token goes to OpenXLab's server and nowhere else, whatever that server says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from bundles import given_bundle, make_bundle
from conftest import MODELS
from git_server import WRITER, GitServer
from stranger import Stranger, make_certificate, stranger

from deploytk.base.errors import DeployError, ReleaseError, UsageError
from deploytk.base.progress import Silent
from deploytk.bundle import Bundle
from deploytk.publish.options import PublishOptions
from deploytk.publish.record import Release
from deploytk.publish.release import publish_bundle
from deploytk.publish.targets.openxlab import OpenXLab, sdk_child
from deploytk.publish.targets.openxlab.git import Git
from deploytk.publish.targets.openxlab.lfs_upload import read_action
from deploytk.publish.targets.openxlab.place import Account, check_server

REPO = "me/tiny"
TOKEN = WRITER[1]
SECRETS = (TOKEN, "bWU6dzByZC10aGF0LW1heS13cml0ZQ")  # the pair, as Basic has it


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return given_bundle(MODELS / "hf-awq", tmp_path / "bundle")


@pytest.fixture(params=["http", "https"])
def other(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stranger]:
    """A server on another port, which asks for a login; once by plain http, once by https that is trusted."""
    certificate = None
    if request.param == "https":
        certificate = make_certificate(tmp_path)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        monkeypatch.setenv("GIT_SSL_CAINFO", str(certificate))
    with stranger(certificate) as server:
        yield server


def _publish(bundle: Bundle, patience_s: float = 1.0) -> Release:
    return publish_bundle(bundle, OpenXLab(patience_s=patience_s), PublishOptions(repo=REPO), Silent())


def _saw_nothing(other: Stranger) -> bool:
    return not any(other.saw(secret) for secret in SECRETS)


@pytest.mark.parametrize("kind", ["GET", "push", "batch", "POST", "PUT"])
def test_a_redirect_takes_the_token_nowhere(git_hub: GitServer, bundle: Bundle, other: Stranger, kind: str) -> None:
    """GET is info/refs, POST git-upload-pack, push git-receive-pack, batch and PUT are LFS."""
    if kind == "POST":
        _publish(bundle)
    git_hub.faults[kind] = [other.url] * 20

    with pytest.raises(DeployError) as caught:
        _publish(bundle if kind != "POST" else _changed(bundle))

    assert _saw_nothing(other)
    assert other.logins == []
    assert TOKEN not in f"{caught.value} {caught.value.hint}"


def _changed(bundle: Bundle) -> Bundle:
    return given_bundle(MODELS / "workspace-0.4.2-awq", bundle.path.with_name("other"))


@pytest.mark.parametrize("echoes", [True, False])
def test_objects_that_lie_elsewhere_are_sent_there_without_the_token(
    git_hub: GitServer, bundle: Bundle, other: Stranger, *, echoes: bool
) -> None:
    git_hub.objects_at, git_hub.echoes_login = other.url, echoes

    with pytest.raises(DeployError) as caught:
        _publish(bundle)

    assert _saw_nothing(other)
    assert TOKEN not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("command", [("ls-remote", "hub"), ("fetch", "hub", "main"), ("push", "hub", "main")])
def test_git_itself_follows_no_redirect_of_info_refs(
    command: tuple[str, ...], git_hub: GitServer, other: Stranger, tmp_path: Path
) -> None:
    """Before it publish asks by itself, and stops there: here git alone is asked."""
    git = Git(tmp_path / "work", f"{git_hub.url}/{REPO}.git", Account(*WRITER), Silent(), 1.0)
    git.start()
    head = "commit refs/heads/main\ncommitter She <she@x> 1800000000 +0000\ndata 0\n"
    git.must("fast-import", "--quiet", stdin=head.encode())
    git_hub.faults["GET"] = [other.url] * 20

    with pytest.raises(ReleaseError, match="sends elsewhere, where its token does not go"):
        git.must(*command)

    assert any("info/refs" in request for request in git_hub.requests)
    assert other.requests == []


def test_what_a_model_brings_for_git_is_not_obeyed(
    git_hub: GitServer, other: Stranger, model_copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hooks, filters, a repository, settings and logins, in the model, from which it is published."""
    model, marker = model_copy("hf-awq"), model_copy("hf-fp16").with_name("ran")
    run = f"touch {marker}"
    hooks = model / ".git" / "hooks"
    hooks.mkdir(parents=True)
    for hook in ("pre-push", "post-commit", "reference-transaction", "post-index-change", "fsmonitor-watchman"):
        (hooks / hook).write_text(f"#!/bin/sh\n{run}\n")
        (hooks / hook).chmod(0o755)
    settings = (
        f'[core]\n fsmonitor = {run}\n sshCommand = {run}\n gitProxy = {run}\n[credential]\n helper = "!{run}"\n'
        f'[filter "evil"]\n clean = {run}\n smudge = {run}\n process = {run}\n'
        f'[url "{other.url}/"]\n insteadOf = {git_hub.url}/\n[http]\n proxy = {other.url}\n[include]\n path = config\n'
    )
    for place in (".git/config", ".gitconfig", ".config/git/config", "config"):
        (model / place).parent.mkdir(parents=True, exist_ok=True)
        (model / place).write_text(settings)
    (model / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (model / ".gitattributes").write_text("* filter=evil diff=evil\n")
    (model / ".lfsconfig").write_text(f"[lfs]\n url = {other.url}\n")
    (model / ".netrc").write_text("machine 127.0.0.1 login evil password evil\n")
    monkeypatch.chdir(model)
    monkeypatch.setenv("HOME", str(model))

    release = _publish(make_bundle(model, model.with_name("bundle")))

    assert release.verified
    assert not marker.exists()
    assert other.requests == []


def test_it_says_where_a_server_has_moved_to(git_hub: GitServer, bundle: Bundle) -> None:
    git_hub.faults["GET"] = ["https://new.example.invalid"] * 20

    with pytest.raises(ReleaseError, match=r"sends .* to https://new\.example\.invalid") as caught:
        _publish(bundle)

    assert "OPENXLAB_GIT_ENDPOINT" in caught.value.hint


def test_a_server_that_redirects_for_ever_is_an_error_in_words(git_hub: GitServer, bundle: Bundle) -> None:
    for kind in ("GET", "batch", "PUT"):
        git_hub.faults = {kind: [git_hub.url] * 100}

        with pytest.raises(DeployError) as caught:
            _publish(bundle)

        assert len(str(caught.value).splitlines()) == 1


@pytest.fixture
def git(tmp_path: Path) -> Git:
    git = Git(tmp_path / "a work", "https://code.example.com/me/tiny.git", Account(*WRITER), Silent(), 0.0)
    git.start()
    return git


@pytest.mark.parametrize(
    "address",
    ["http://192.0.2.1/1", "http://code.example.com/1", "ftp://h/1", "file:///etc/passwd", "", 5, "https://a:b@h/1"],
)
def test_objects_are_not_sent_in_the_clear(git: Git, address: object) -> None:
    with pytest.raises(ReleaseError, match="without encryption"):
        read_action(git, {"href": address})


@pytest.mark.parametrize("value", [f"Basic {SECRETS[1]}==", f"Bearer {TOKEN}", f"{TOKEN}"])
@pytest.mark.parametrize("address", ["https://storage.example.com/1", "https://code.example.com:444/1"])
def test_a_login_in_the_answer_goes_to_no_other_server(git: Git, address: str, value: str) -> None:
    with pytest.raises(ReleaseError, match=r"wants its login to be sent to https://"):
        read_action(git, {"href": address, "header": {"X-Any": value}})


def test_a_storage_gets_what_the_server_says_for_it(git: Git) -> None:
    action = read_action(git, {"href": "https://storage.example.com/1", "header": {"Authorization": "signed"}})

    assert action.headers == {"Authorization": "signed"}


def test_git_is_told_to_follow_nobody(git: Git) -> None:
    lines = git.must("config", "--list").decode().splitlines()
    settings = dict(line.split("=", 1) for line in lines)

    assert settings["http.followredirects"] == "false"
    assert settings["protocol.allow"] == "never"
    assert settings["protocol.https.allow"] == "always"
    assert "protocol.http.allow" not in settings


@pytest.mark.parametrize(
    ("asked", "is_answered"),
    [
        ("protocol=https\nhost=code.example.com\n", True),
        ("protocol=http\nhost=code.example.com\n", False),
        ("protocol=https\nhost=code.example.com:444\n", False),
        ("protocol=https\nhost=code.example.com.evil.invalid\n", False),
        ("protocol=https\nhost=evil.invalid\npath=code.example.com\n", False),
        ("protocol=https\n", False),
        ("", False),
    ],
)
def test_the_credential_helper_answers_one_server(git: Git, asked: str, *, is_answered: bool) -> None:
    done = git.run("credential", "fill", stdin=f"{asked}\n".encode())

    assert (TOKEN in done.stdout.decode()) == is_answered
    assert TOKEN not in json.dumps(done.stderr)


@pytest.mark.parametrize(
    ("address", "server"),
    [
        ("https://Code.Example.COM:443/", "https://code.example.com"),
        ("https://code.example.com/git/", "https://code.example.com/git"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
    ],
)
def test_a_server_is_written_as_git_compares_it(address: str, server: str) -> None:
    assert check_server(address) == server


@pytest.mark.parametrize(
    "address", ["http://localhost.example.com", "https://h:x", "https://[::1", "https://a@h", "//h"]
)
def test_an_address_that_is_no_safe_one_is_refused(address: str) -> None:
    with pytest.raises(UsageError):
        check_server(address)


def test_the_askpass_of_the_environment_is_not_asked(
    git_hub: GitServer, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "asked"
    program = tmp_path / "askpass"
    program.write_text(f"#!/bin/sh\necho x >> {asked}\n")
    program.chmod(0o755)
    for name in ("GIT_ASKPASS", "SSH_ASKPASS"):
        monkeypatch.setenv(name, str(program))
    git_hub.faults["GET"] = [401]

    _publish(bundle)

    assert not asked.exists()


@pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
@pytest.mark.parametrize("url", ["https://elsewhere.example/x", "http://hub.example/x", "https://hub.example:8443/x"])
def test_openxlabs_own_package_takes_keys_to_no_server_that_they_are_not_for(method: str, url: str) -> None:
    class Session:
        sent: ClassVar[list[str]] = []

        def send(self, request: Any, **_: Any) -> Any:
            self.sent.append(request.url)
            return SimpleNamespace(status_code=200)

    requests = SimpleNamespace(Session=Session)
    sdk_child._guard(requests, [("https", "hub.example", 443)], "https://oss.example")
    headers = {"Authorization": "mine"}

    Session().send(SimpleNamespace(method=method, url="https://hub.example/x", headers=headers))
    with pytest.raises(sdk_child.AwayError, match="none of the servers"):
        Session().send(SimpleNamespace(method=method, url=url, headers=headers))

    assert Session.sent == ["https://hub.example/x"]
