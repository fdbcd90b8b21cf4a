"""Ray: a config that is refused before Ray takes it in silence, and a deployment that is watched to its end."""

from __future__ import annotations

import copy
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from bundles import Notes, whole_bundle
from commands import run
from conftest import MODELS
from pydantic import ValidationError
from ray_cluster import FakeCluster, dashboard
from replicas import replica, wishes

from deploytk.base.errors import ScaleError, UsageError
from deploytk.scale import Replicas
from deploytk.scale.ray import apply as apply_module
from deploytk.scale.ray.apply import apply
from deploytk.scale.ray.config import ServeConfig, serve_config
from deploytk.scale.ray.dashboard import Dashboard
from deploytk.scale.ray.routes import is_ours, passed_back, passed_on

TOKEN = "canary-c0ffee"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(apply_module, "ASK_EVERY_S", 0.0)
    monkeypatch.setattr("deploytk.scale.ray.dashboard._PAUSES_S", (0.0, 0.0))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


def _config(bundle: str = "/srv/bundle", **changes: Any) -> ServeConfig:
    return serve_config(replica(**changes), wishes(bundle_place=bundle))


def _other() -> dict[str, Any]:
    return {**_config("/srv/theirs", name="theirs").written()["applications"][0], "route_prefix": "/theirs"}


# The config


@pytest.mark.parametrize("place", [(), ("http_options",), ("applications", 0), ("applications", 0, "deployments", 0)])
def test_a_misspelled_key_is_refused_at_every_level(place: tuple[str | int, ...]) -> None:
    written: Any = copy.deepcopy(_config().written())
    at = written
    for step in place:
        at = at[step]
    at["num_replicaz"] = 2

    with pytest.raises(ValidationError):
        ServeConfig.model_validate(written)


def test_what_is_written_is_read_back() -> None:
    assert ServeConfig.model_validate(_config().written()) == _config()


def test_the_numbers_follow_from_the_plan() -> None:
    [one] = serve_config(replica(), wishes(replicas=Replicas(1, 4))).applications[0].deployments

    # A batch of 8, and half of one waiting in the replica; 64 x 4 in front.
    assert (one.max_ongoing_requests, one.max_queued_requests) == (12, 256)
    assert one.num_replicas is None
    assert one.autoscaling_config is not None
    assert (one.autoscaling_config.target_ongoing_requests, one.autoscaling_config.max_replicas) == (8.0, 4)
    # Two GPUs that share a model are on one node.
    assert (one.placement_group_bundles, one.placement_group_strategy) == ([{"CPU": 6.0, "GPU": 2.0}], "STRICT_PACK")
    assert one.graceful_shutdown_timeout_s == 50.0  # 30 s to drain, 20 s for the engine


def test_one_gpu_needs_no_placement_group() -> None:
    [one] = _config(tensor_parallel=1, gpus=1).applications[0].deployments

    assert one.placement_group_bundles is None
    assert one.ray_actor_options.num_gpus == 1.0


# Applying it


def test_it_is_watched_until_it_runs() -> None:
    cluster, notes = FakeCluster(), Notes()

    done = apply(cluster, _config(), 60.0, notes)

    assert (done.status, done.replicas, done.nodes) == ("RUNNING", 2, ("10.0.0.1",))
    assert any("DEPLOYING" in line for line in notes.lines)


def test_applications_of_others_stay() -> None:
    cluster = FakeCluster()
    cluster.deploy({"applications": [_other()]})

    apply(cluster, _config(), 60.0, Notes())

    assert set(cluster.applications) == {"theirs", "internlm-chat-7b-awq"}
    assert cluster.applications["theirs"]["config"] == _other()


def test_one_that_does_not_come_up_is_taken_back() -> None:
    cluster = FakeCluster()
    apply(cluster, _config("/srv/old"), 60.0, Notes())
    cluster.fails.add("/srv/new")

    with pytest.raises(ScaleError, match="does not run: the engine ended with code 1") as failed:
        apply(cluster, _config("/srv/new"), 60.0, Notes())

    assert "the one before serves on" in failed.value.hint
    assert cluster.applications["internlm-chat-7b-awq"]["config"]["args"]["bundle"] == "/srv/old"


def test_a_first_one_that_does_not_come_up_leaves_nothing() -> None:
    cluster = FakeCluster()
    cluster.fails.add("/srv/bundle")

    with pytest.raises(ScaleError):
        apply(cluster, _config(), 60.0, Notes())

    assert cluster.applications == {}


def test_a_key_that_ray_left_out_is_no_success() -> None:
    cluster = FakeCluster()
    cluster.drops.add("max_queued_requests")

    with pytest.raises(ScaleError, match="NOT YET DEPLOYED"):
        apply(cluster, _config(), -apply_module._PATIENCE_S + 0.2, Notes())


def test_one_that_finds_no_room_is_given_up_with_what_ray_says_of_it() -> None:
    cluster = FakeCluster()
    cluster.delay, cluster.message = 10**9, "1 replicas have taken more than 30s to be scheduled"

    with pytest.raises(ScaleError, match="it is DEPLOYING: 1 replicas have taken more than 30s to be scheduled"):
        apply(cluster, _config(), -apply_module._PATIENCE_S + 0.2, Notes())
    assert cluster.applications == {}


def test_an_application_that_a_program_deployed_is_not_taken_away() -> None:
    cluster = FakeCluster()
    cluster.deploy({"applications": [_other()]})
    cluster.applications["theirs"]["config"] = None  # Ray tells no config of it
    cluster._shown = lambda one: {"status": "RUNNING", "deployed_app_config": None, "deployments": {}}  # type: ignore[method-assign]

    with pytest.raises(ScaleError, match="deployed by a program"):
        apply(cluster, _config(), 60.0, Notes())
    assert len(cluster.deployed) == 1


# The dashboard


def test_the_token_goes_to_the_dashboard_and_a_busy_one_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    (tmp_path / "token").chmod(stat.S_IRUSR)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))

    with dashboard(FakeCluster(), TOKEN, busy=2) as url:
        assert apply(Dashboard.at(url), _config(), 60.0, Notes()).status == "RUNNING"


def test_a_wrong_token_is_said_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong-c0ffee")

    with dashboard(FakeCluster(), TOKEN) as url, pytest.raises(ScaleError, match="wants another token") as failed:
        Dashboard.at(url).details()
    assert "c0ffee" not in str(failed.value) + failed.value.hint + repr(Dashboard.at(url))


def test_a_dashboard_on_the_network_is_asked_with_a_token_and_not_in_clear_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UsageError, match="there is no token"):
        Dashboard.at("http://10.0.0.1:8265")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    with pytest.raises(UsageError, match="in clear text"):
        Dashboard.at("http://10.0.0.1:8265")
    assert Dashboard.at("https://ray.example.com").key is not None


@pytest.mark.parametrize("address", ["", "ray://10.0.0.1", "127.0.0.1:8265", "http://", "file:///etc/passwd"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="no address of a dashboard"):
        Dashboard.at(address)


def test_a_dashboard_that_is_away_is_said_in_a_sentence() -> None:
    with pytest.raises(ScaleError, match="does not answer"):
        Dashboard.at("http://127.0.0.1:9").details()


def test_the_command_deploys_and_says_what_runs(tmp_path: Path) -> None:
    bundle = whole_bundle(MODELS / "hf-awq", tmp_path / "bundle")
    words = ["scale", str(bundle.path), "--on", "ray", "-o", str(tmp_path / "out"), "--apply", "--json", "-q"]

    with dashboard(FakeCluster()) as url:
        done = run(*words, "--address", url)
    away = run(*words, "--address", url)

    assert (done.code, away.code) == (0, 1), done.stderr
    assert json.loads(done.stdout)["applied"].startswith("1 replicas run, with proxies on 10.0.0.1")
    assert "does not answer" in json.loads(away.stdout)["error"]["what"]


# What a replica lets through


@pytest.mark.parametrize(
    "path", ["/update_weights", "/metrics", "/nodes/add", "/terminate", "/", "/v1", "/v1/models/", "/docs"]
)
def test_no_other_route_is_let_through(path: str) -> None:
    assert not any(is_ours(method, path) for method in ("GET", "POST", "PUT", "DELETE", "HEAD"))
    assert is_ours("POST", "/v1/chat/completions")
    assert not is_ours("GET", "/v1/chat/completions")


def test_of_headers_those_that_mean_something_go_on() -> None:
    sent = {
        "authorization": "Bearer k",
        "cookie": "a=b",
        "x-forwarded-for": "1.2.3.4",
        "content-type": "application/json",
    }

    assert passed_on(sent) == [("authorization", "Bearer k"), ("content-type", "application/json")]
    assert passed_back({"content-type": "a", "set-cookie": "b", "server": "c"}) == [("content-type", "a")]
