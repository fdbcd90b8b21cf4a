"""A hub that lies: "verified" is true only of what it hands out; and its token leaves it never."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bundles import given_bundle
from conftest import MODELS
from hf_hub import WRITER, Hub, hf_hub
from huggingface_hub import constants
from lies import LIES
from stranger import Stranger, make_certificate, stranger

from deploytk.base.errors import DeployError, ReleaseError, UsageError
from deploytk.base.origin import Origin
from deploytk.base.progress import Silent
from deploytk.bundle import Bundle, BundleOptions
from deploytk.publish.options import PublishOptions
from deploytk.publish.record import Release
from deploytk.publish.release import publish_bundle
from deploytk.publish.targets.huggingface import HuggingFace
from deploytk.publish.targets.huggingface.client import Client
from deploytk.publish.targets.huggingface.place import Hub as Place
from deploytk.publish.targets.huggingface.place import find_hub
from deploytk.publish.targets.huggingface.space_waiting import Waiting

REPO = "me/tiny"
WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def _xet_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return given_bundle(MODELS / "hf-awq", tmp_path / "bundle", BundleOptions(name="tiny", license="mit", app="api"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hf_hub(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", WRITER)
        yield hub


@pytest.fixture
def other() -> Iterator[Stranger]:
    with stranger() as server:
        yield server


def _publish(bundle: Bundle) -> Release:
    return publish_bundle(bundle, HuggingFace(patience_s=1.0), PublishOptions(repo=REPO), Silent())


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("path", [WEIGHTS, "config.json"])
@pytest.mark.parametrize("has_ranges", [True, False])
def test_files_that_are_others_are_found_out_again_and_again(
    hub: Hub, bundle: Bundle, path: str, lie: str, *, has_ranges: bool
) -> None:
    hub.shows[path], hub.has_ranges = LIES[lie], has_ranges

    for _ in range(2):  # the second time nothing is to be sent
        with pytest.raises(ReleaseError, match=f"{path} with other bytes"):
            _publish(bundle)


def test_a_file_that_is_listed_and_not_there_is_found_out(hub: Hub, bundle: Bundle) -> None:
    hub.faults["resolve"] = [404] * 100

    with pytest.raises(ReleaseError, match=r"says that it has .* and answers 404"):
        _publish(bundle)


def _changed(key: str, value: object) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    def change(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [entry | {key: value} if entry["path"] == "config.json" else entry for entry in entries]

    return change


@pytest.mark.parametrize("key", ["size", "oid", "absent", "large"])
def test_a_listing_that_is_not_of_what_was_sent_is_found_out(hub: Hub, bundle: Bundle, key: str) -> None:
    lies = {
        "size": _changed("size", 5),
        "oid": _changed("oid", "0" * 40),
        "absent": lambda entries: [entry for entry in entries if entry["path"] != "config.json"],
        "large": _changed("lfs", {"oid": "0" * 64, "size": 1, "pointerSize": 130}),
    }
    hub.on["commit"] = lambda: setattr(hub, "lists", lies[key])

    with pytest.raises(ReleaseError, match=r"shows config\.json otherwise than it was committed"):
        _publish(bundle)


def test_a_branch_that_stays_at_an_old_commit_is_found_out(hub: Hub, bundle: Bundle) -> None:
    hub.on["commit"] = lambda: setattr(hub, "heads", lambda _: "0" * 40)

    with pytest.raises(ReleaseError, match=r"at 0000.*, not at"):
        _publish(bundle)


def test_what_was_read_back_once_is_not_read_again(hub: Hub, bundle: Bundle) -> None:
    _publish(bundle)
    hub.requests.clear()

    _publish(bundle)

    assert "resolve" not in {kind for kind, path in hub.requests if not path.endswith("deploytk.json")}


# --- where the token goes


def _keeps_its_token(hub: Hub, bundle: Bundle, other: Stranger) -> None:
    with pytest.raises(DeployError) as caught:
        _publish(bundle)

    assert other.logins == []
    assert not other.saw(WRITER)
    assert WRITER not in f"{caught.value} {caught.value.hint}"


def test_an_upload_to_elsewhere_carries_no_token(hub: Hub, bundle: Bundle, other: Stranger) -> None:
    hub.objects_at = other.url
    _keeps_its_token(hub, bundle, other)
    assert other.requests


def test_a_confirmation_to_elsewhere_carries_no_token(hub: Hub, bundle: Bundle, other: Stranger) -> None:
    hub.verify_at = other.url
    _keeps_its_token(hub, bundle, other)
    assert other.requests


def test_a_next_page_elsewhere_gets_no_token(hub: Hub, bundle: Bundle, other: Stranger) -> None:
    _publish(bundle)
    hub.page, hub.next_page_at = 3, other.url
    _keeps_its_token(hub, bundle, other)
    assert other.requests


@pytest.mark.parametrize("kind", ["info", "create", "tree", "preupload", "batch", "PUT", "verify", "commit", "resolve"])
def test_a_redirect_takes_the_token_nowhere(hub: Hub, bundle: Bundle, other: Stranger, kind: str) -> None:
    hub.redirects[kind] = other.url
    _keeps_its_token(hub, bundle, other)


@pytest.mark.parametrize("place", ["http://192.0.2.1", "ftp://192.0.2.1"])
@pytest.mark.parametrize("what", ["objects_at", "verify_at"])
def test_nothing_is_sent_in_the_clear(hub: Hub, bundle: Bundle, what: str, place: str) -> None:
    setattr(hub, what, place)

    with pytest.raises(DeployError, match="without encryption"):
        _publish(bundle)


@pytest.mark.parametrize("kind", ["info", "tree", "preupload", "commit", "resolve"])
def test_a_hub_that_redirects_in_a_circle_is_no_traceback(hub: Hub, bundle: Bundle, kind: str) -> None:
    hub.redirects[kind] = hub.url

    with pytest.raises(DeployError, match="in a circle"):
        _publish(bundle)


@pytest.mark.parametrize(
    "address", ["http://mirror.example.com", "http://192.0.2.1:8080", "https://h?x", "https://h:x"]
)
def test_a_token_goes_to_no_hub_in_the_clear(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", WRITER)

    with pytest.raises(UsageError):
        find_hub()


def test_a_login_that_was_kept_goes_to_no_mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_kept")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example.com")

    with pytest.raises(ReleaseError, match=r"no access token for mirror\.example\.com"):
        find_hub()

    monkeypatch.delenv("HF_ENDPOINT")
    assert find_hub().token == "hf_kept"


@pytest.mark.parametrize(
    ("endpoint", "host", "gets"),
    [
        ("https://huggingface.co", "https://me-tiny.hf.space", True),
        ("https://huggingface.co", "http://me-tiny.hf.space", False),
        ("https://huggingface.co", "http://me-tiny.hf.space:443", False),
        ("https://huggingface.co", "https://me-tiny.hf.space:8443", False),
        ("https://huggingface.co", "https://hf.space.evil.example", False),
        ("https://huggingface.co", "https://evilhf.space", False),
        ("https://mirror.example.com", "https://me-tiny.hf.space", False),
        ("https://mirror.example.com", "https://mirror.example.com/apps/x", True),
        ("https://mirror.example.com", "", False),
    ],
)
def test_an_app_gets_the_token_when_it_is_at_the_hub(endpoint: str, host: str, *, gets: bool) -> None:
    client = Client(Place(endpoint, WRITER), Silent())

    key = Waiting(client, REPO, "0" * 40, host, is_changed=False)._key()

    assert (key is not None) == gets
    assert key is None or key.origin == Origin.of(host)


def test_a_certificate_that_nobody_trusts_is_said(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stranger(make_certificate(tmp_path)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", WRITER)

        with pytest.raises(DeployError, match="certificate is not trusted"):
            _publish(bundle)
