"""ModelScope when it lies: "verified" is true only of what comes back, and its token stays with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bundles import as_shown_on, given_bundle
from conftest import MODELS
from modelscope_server import WRITER, ModelScopeServer
from stranger import Stranger, stranger

from deploytk.base.errors import DeployError, ReleaseError, TryAgainError, UsageError
from deploytk.base.origin import Origin
from deploytk.base.progress import Silent
from deploytk.bundle import Bundle
from deploytk.publish.options import PublishOptions
from deploytk.publish.record import Release
from deploytk.publish.release import publish_bundle

pytest.importorskip("modelscope_hub")
from deploytk.publish.targets.modelscope import ModelScope
from deploytk.publish.targets.modelscope.signin import _friends

REPO = "me/tiny"
WEIGHTS = "model.safetensors"


@pytest.fixture
def hub(modelscope_hub: ModelScopeServer, monkeypatch: pytest.MonkeyPatch) -> ModelScopeServer:
    # The client itself asks up to five times, with pauses.
    monkeypatch.setattr("modelscope_hub._openapi.API_MAX_RETRIES", 1)
    return modelscope_hub


@pytest.fixture
def other() -> Iterator[Stranger]:
    with stranger() as server:
        yield server


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return given_bundle(MODELS / "hf-awq", tmp_path / "bundle")


def _publish(bundle: Bundle) -> Release:
    return publish_bundle(bundle, ModelScope(patience_s=0.5), PublishOptions(repo=REPO), Silent())


_LIES: dict[str, Callable[[bytes], bytes]] = {
    "other bytes": lambda content: bytes(len(content)),
    "cut off": lambda content: content[:-1],
    "an error page": lambda _: b"<html>all is well</html>",
    "the end damaged": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
}


@pytest.mark.parametrize("lie", _LIES)
@pytest.mark.parametrize("path", [WEIGHTS, "config.json"])
def test_files_that_are_others_are_found_out_again_and_again(
    hub: ModelScopeServer, bundle: Bundle, path: str, lie: str
) -> None:
    hub.shows[path] = _LIES[lie]

    for _ in range(2):  # the second time nothing is to be sent
        with pytest.raises(ReleaseError, match=f"{path} with other bytes"):
            _publish(bundle)


def test_a_commit_that_drops_a_file_is_found_out(hub: ModelScopeServer, bundle: Bundle) -> None:
    hub.loses = {"config.json"}

    with pytest.raises(ReleaseError, match=r"config\.json is missing"):
        _publish(bundle)


def test_a_file_that_is_listed_and_not_there_is_found_out(hub: ModelScopeServer, bundle: Bundle) -> None:
    bundle = as_shown_on(bundle, "modelscope", REPO)
    _publish(bundle)
    there = hub.repositories[REPO].files
    listing = [
        {"Path": path, "Name": path, "Size": file.size, "Type": "blob", "Sha256": file.sha256}
        for path, file in {file.path: file for file in bundle.files}.items()
    ]
    hub.lists = lambda entries: [one for one in entries if one["Path"] == "deploytk.json"] + listing
    there.pop("config.json")
    _forget()

    with pytest.raises(ReleaseError, match=r"says that it has config\.json, and answers 404"):
        _publish(bundle)


def _forget() -> None:
    """What was read back before, in another cache, is not known here."""
    import os
    import shutil

    shutil.rmtree(Path(os.environ["DEPLOYTK_CACHE_DIR"]) / "read-back")


def test_an_upload_to_elsewhere_carries_no_token(hub: ModelScopeServer, bundle: Bundle, other: Stranger) -> None:
    hub.blobs_at = other.url

    with pytest.raises(DeployError):
        _publish(bundle)

    assert {one.method for one in other.requests} == {"PUT"}
    assert other.logins == []
    assert not other.saw(WRITER)


@pytest.mark.parametrize("kind", ["GET", "POST", "PUT", "batch", "commit"])
def test_a_redirect_takes_the_token_nowhere(hub: ModelScopeServer, bundle: Bundle, other: Stranger, kind: str) -> None:
    hub.redirects[kind] = other.url

    with pytest.raises(DeployError):
        _publish(bundle)

    assert other.logins == []
    assert not other.saw(WRITER)


@pytest.mark.parametrize("kind", ["GET", "PUT"])
def test_a_hub_that_redirects_in_a_circle_is_no_traceback(hub: ModelScopeServer, bundle: Bundle, kind: str) -> None:
    hub.redirects[kind] = hub.url

    with pytest.raises(ReleaseError, match="redirects in a circle"):
        _publish(bundle)


def test_nothing_is_sent_in_the_clear(hub: ModelScopeServer, bundle: Bundle) -> None:
    hub.blobs_at = "http://192.0.2.1"

    with pytest.raises(ReleaseError, match="without encryption"):
        _publish(bundle)


@pytest.mark.parametrize("address", ["http://mirror.example.com", "http://192.0.2.1"])
def test_a_token_goes_to_no_hub_in_the_clear(
    hub: ModelScopeServer, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", address)

    with pytest.raises(UsageError, match="no server that a token may be sent to"):
        _publish(bundle)


def test_a_hub_that_is_not_there_is_told_from_a_name_that_is_none(
    hub: ModelScopeServer, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address, words in (("http://127.0.0.1:9", "refused"), ("https://no.such.host.invalid", "cannot be resolved")):
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", address)

        with pytest.raises(TryAgainError, match=words):
            _publish(bundle)


@pytest.mark.parametrize(
    ("home", "friends"),
    [
        ("https://www.modelscope.cn", {"https://lfs.modelscope.cn", "https://www.modelscope.cn"}),
        ("https://modelscope.ai", {"https://lfs.modelscope.ai", "https://www.modelscope.ai"}),
        ("https://modelscope.cn.evil.example", set()),
        ("https://evilmodelscope.cn", set()),
        ("https://mirror.example.com", set()),
    ],
)
def test_only_the_public_hubs_have_a_second_address_for_large_files(home: str, friends: set[str]) -> None:
    assert {str(friend) for friend in _friends(Origin.of(home))} == friends
