"""A canary: its share, its judgement, and what serves at the end."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import pytest
from bundles import Notes, given_bundle, whole_bundle
from commands import run
from conftest import MODELS
from ground_truth import Behaviour, serving
from ray_cluster import FakeCluster, dashboard
from replicas import replica, wishes
from test_scale_kubernetes import FakeApi
from test_smoke_report import EVIDENCE

from deploytk.base.errors import EndpointError, ScaleError
from deploytk.bundle import BundleOptions, Golden
from deploytk.scale import Replicas, applying
from deploytk.scale.judging import WORKLOAD, Judged, Revisions, judged
from deploytk.scale.kubernetes import canary as on_kubernetes
from deploytk.scale.kubernetes import objects_of
from deploytk.scale.kubernetes.apply import apply_objects
from deploytk.scale.prepare import Prepared
from deploytk.scale.ray import canary as on_ray
from deploytk.scale.ray.apply import apply
from deploytk.scale.ray.config import serve_config
from deploytk.scale.ray.routes import OLD_ALONE, is_for_old_alone, is_ours
from deploytk.smoke import Evidence

NAME = "internlm-chat-7b-awq"
GOOD = Judged("same", 0, ())
BAD = Judged("slower", 3, ("tpot_ms is 1.50 times that of the old revision",))
UNCLEAR = Judged("inconclusive", 4, ("tpot_ms cannot be told: too little was measured",))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploytk.scale.ray.apply.ASK_EVERY_S", 0.0)
    monkeypatch.setattr("deploytk.scale.kubernetes.apply.ASK_EVERY_S", 0.0)


# On Ray


def _ray() -> FakeCluster:
    cluster = FakeCluster()
    apply(cluster, serve_config(replica(), wishes(bundle_place="/srv/old", replicas=Replicas(20, 20))), 60.0, Notes())
    return cluster


def _try(cluster: FakeCluster, judge: Any, percent: float = 10.0) -> Judged:
    new = wishes(bundle_place="/srv/new", replicas=Replicas(20, 20))
    return on_ray.roll_out(cluster, replica(), new, percent, judge, Notes())


def _serving(cluster: FakeCluster) -> dict[str, tuple[str, object]]:
    """Bundle and settings of every application."""
    return {
        name: (one["config"]["args"]["bundle"], one["config"]["deployments"][0]["user_config"])
        for name, one in cluster.applications.items()
    }


def test_while_it_is_judged_the_canary_gets_its_share_and_the_old_revision_stays() -> None:
    cluster, seen = _ray(), []

    def judge() -> Judged:
        seen.append(_serving(cluster))
        seen.append(cluster.applications[f"{NAME}-canary"]["config"])  # type: ignore[arg-type]
        return GOOD

    _try(cluster, judge)

    share = {"canary": {"application": f"{NAME}-canary", "percent": 10.0}}
    assert seen[0] == {NAME: ("/srv/old", share), f"{NAME}-canary": ("/srv/new", {})}
    assert seen[1]["deployments"][0]["num_replicas"] == 2  # type: ignore[call-overload]  # 10 % of 20
    assert seen[1]["route_prefix"] == f"/{NAME}-canary"  # type: ignore[call-overload]


@pytest.mark.parametrize(
    # 10 % by 2 replicas beside 90 % by 20 are 5 beside 4.5 each; 20 % by 4 beside 80 % by 20 are 5 beside 4.
    # 1 % by 1 beside 99 % by 20 is 1 beside 4.95: 0.2 times.
    ("percent", "words"),
    [(10.0, ""), (20.0, ""), (1.0, "each of its replicas 0.2 times what an old one has")],
)
def test_another_load_than_that_of_the_old_replicas_is_said(percent: float, words: str) -> None:
    cluster, notes = _ray(), Notes()
    new = wishes(bundle_place="/srv/new", replicas=Replicas(20, 20))

    on_ray.roll_out(cluster, replica(), new, percent, lambda: GOOD, notes)

    [line] = [line for line in notes.lines if "of the requests" in line]
    assert words in line
    assert ("times" in line) == bool(words)


def test_the_old_revision_is_measured_without_the_answers_of_the_canary(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []

    def judge(old: str, new: str, *_: object) -> Any:
        seen.append((old, new))
        return lambda: GOOD

    monkeypatch.setattr(applying, "_judge", judge)
    monkeypatch.setattr("deploytk.scale.ray.dashboard.Dashboard.at", lambda _: _ray())
    given = wishes(bundle_place="/srv/new", replicas=Replicas(20, 20), nodes=("10.0.0.1", "10.0.0.2"))
    made = Prepared(replica(), given, {}, (), (), ())

    applying.rolled_out("ray", made, "http://127.0.0.1:8265", applying.Trial(10.0, None, None, (), 60.0), Notes())

    assert seen == [(f"http://10.0.0.1:8000{OLD_ALONE}", f"http://10.0.0.1:8000/{NAME}-canary")]
    assert is_for_old_alone(f"{OLD_ALONE}/v1/completions")
    assert not is_for_old_alone("/v1/completions")
    assert not is_ours("POST", f"{OLD_ALONE}/v1/completions")  # without a canary there is no such path


def test_a_canary_is_sized_by_the_replicas_that_run_and_not_by_the_fewest_that_may() -> None:
    cluster, seen = FakeCluster(), []
    cluster.autoscaled = 30
    given = wishes(bundle_place="/srv/old", replicas=Replicas(1, 40))
    apply(cluster, serve_config(replica(), given), 60.0, Notes())

    def judge() -> Judged:
        seen.append(cluster.applications[f"{NAME}-canary"]["config"]["deployments"][0]["num_replicas"])
        return GOOD

    _try(cluster, judge)

    assert seen == [3]  # 10 % of the 30 that run


def test_a_good_one_is_promoted_and_its_own_application_goes() -> None:
    cluster = _ray()

    assert _try(cluster, lambda: GOOD) == GOOD

    assert _serving(cluster) == {NAME: ("/srv/new", {})}


@pytest.mark.parametrize("verdict", [BAD, UNCLEAR])
def test_one_that_is_not_good_is_taken_back(verdict: Judged) -> None:
    cluster = _ray()

    assert _try(cluster, lambda: verdict) == verdict

    assert _serving(cluster) == {NAME: ("/srv/old", {})}


def test_the_share_ends_before_the_canary_does() -> None:
    cluster = _ray()
    _try(cluster, lambda: BAD)

    last, before = cluster.deployed[-1], cluster.deployed[-2]
    assert [one["name"] for one in last["applications"]] == [NAME]
    assert {one["name"] for one in before["applications"]} == {NAME, f"{NAME}-canary"}
    assert all(one["deployments"][0]["user_config"] == {} for one in before["applications"])


@pytest.mark.parametrize("error", [EndpointError("it does not answer", hint="-"), KeyboardInterrupt()])
def test_whatever_stops_the_judging_the_old_revision_serves_alone(error: BaseException) -> None:
    cluster = _ray()

    def judge() -> Judged:
        raise error

    with pytest.raises(type(error)):
        _try(cluster, judge)
    assert _serving(cluster) == {NAME: ("/srv/old", {})}


def test_a_canary_that_does_not_come_up_leaves_the_old_revision() -> None:
    cluster = _ray()
    cluster.fails.add("/srv/new")

    with pytest.raises(ScaleError, match="does not run"):
        _try(cluster, lambda: GOOD)
    assert _serving(cluster) == {NAME: ("/srv/old", {})}


def test_without_an_old_revision_there_is_nothing_to_try_it_beside() -> None:
    with pytest.raises(ScaleError, match="beside which a canary"):
        _try(FakeCluster(), lambda: GOOD)


# On Kubernetes


def _kubernetes() -> FakeApi:
    api = FakeApi()
    apply_objects(api, list(objects_of(replica(), wishes(replicas=Replicas(9, 9))).values()), Notes())
    return api


def _new() -> Any:
    return replica(image=f"ghcr.io/me/chat@sha256:{'0' * 64}")


def _image(api: FakeApi, name: str) -> Any:
    return api.objects[f"Deployment {name}"]["spec"]["template"]["spec"]["containers"][0]["image"]


@pytest.mark.parametrize(("percent", "old", "pods"), [(10, 9, 1), (10, 18, 2), (50, 3, 3), (1, 5, 1), (25, 9, 3)])
def test_pods_of_the_canary_are_its_share_of_all(percent: float, old: int, pods: int) -> None:
    # 3 beside 9 are a quarter of 12.
    assert on_kubernetes.pods_for(percent, old) == pods


def test_both_run_while_it_is_judged_and_a_good_one_is_promoted() -> None:
    api, seen = _kubernetes(), []

    def judge() -> Judged:
        seen.extend([_image(api, NAME), _image(api, f"{NAME}-canary"), *sorted(api.objects)])
        return GOOD

    given = wishes(replicas=Replicas(9, 9))
    assert on_kubernetes.roll_out(api, _new(), given, 10.0, judge, Notes()) == GOOD

    assert seen[0] == replica().image
    assert seen[1] == _new().image
    assert f"Service {NAME}-stable" in seen
    assert _image(api, NAME) == _new().image
    assert not [name for name in api.objects if name.endswith(("-canary", "-stable"))]


def test_a_bad_one_is_gone_and_the_old_one_untouched() -> None:
    api = _kubernetes()
    before = dict(api.objects)

    on_kubernetes.roll_out(api, _new(), wishes(replicas=Replicas(9, 9)), 10.0, lambda: BAD, Notes())

    assert {name: one["spec"] for name, one in api.objects.items()} == {n: one["spec"] for n, one in before.items()}


# The judgement


def _evidence(factor: float, turn: int) -> Evidence:
    """The usual one, so many times slower, and no two values quite the same."""
    records = []
    for number, record in enumerate(EVIDENCE.records):
        slower = factor * (1 + 0.001 * ((number * 7 + turn) % 5))
        events = tuple(int(record.sent_ns + (when - record.sent_ns) * slower) for when in record.event_ns)
        records.append(dataclasses.replace(record, event_ns=events))
    return dataclasses.replace(EVIDENCE, records=tuple(records), findings=())


def _rounds(factor: float = 1.0) -> list[tuple[Evidence, Evidence]]:
    return [(_evidence(1.0, turn), _evidence(factor, turn)) for turn in range(5)]


def test_the_same_speed_is_good() -> None:
    assert (judged(_rounds()).status, judged(_rounds()).exit_code) == ("same", 0)
    assert judged(_rounds(0.5)).status == "faster"


def test_a_slower_one_is_worse() -> None:
    found = judged(_rounds(1.5))

    assert (found.status, found.exit_code) == ("slower", 3)
    assert "times that of the old revision" in found.reasons[0]


# The command


def test_the_command_judges_at_the_addresses_that_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = dataclasses.replace(WORKLOAD, requests=3, warmup_requests=0)
    monkeypatch.setattr("deploytk.scale.judging.LOOKS", (1,))
    monkeypatch.setattr(applying, "Revisions", functools.partial(Revisions, workload=few))
    options = BundleOptions(name="tiny", golden=(Golden("2+2=", "4"),))
    bundle = given_bundle(MODELS / "hf-awq", tmp_path / "bundle", options)
    right, wrong = (Behaviour(answer=lambda _, one=one: one) for one in ("4 it is", "5 it is"))  # type: ignore[misc]
    words = ["scale", str(bundle.path), "--on", "ray", "-o", str(tmp_path / "out"), "--apply", "-q"]

    with dashboard(FakeCluster()) as cluster, serving(right) as old, serving(wrong) as new:
        assert run(*words, "--address", cluster).code == 0
        canary = ["--canary", "10%", "--old-url", old.url, "--new-url", new.url]
        done = run(*words, "--address", cluster, *canary, "--json")

    found = json.loads(done.stdout)
    assert (done.code, found["applied"], found["canary"]["rounds"]) == (3, "the old revision serves on", 1), done.stderr
    assert found["canary"]["reasons"][0].startswith("golden answers: 0 of 1 right")
    assert [one["metric"] for one in found["canary"]["metrics"]] == ["ttft_ms", "tpot_ms"]
    assert set(found["canary"]["metrics"][0]) == {"metric", "ratio", "low", "high", "limit", "judgement"}


@pytest.mark.parametrize(
    "words",
    [
        ("--canary", "10%"),
        ("--canary", "60%", "--apply"),
        ("--old-url", "http://a"),
        ("--judge-within", "10m"),
        ("--canary", "10%", "--apply", "--judge-within", "soon"),
        ("--canary", "10%", "--apply", "--judge-within", "0s"),
        ("--canary", "10%", "--apply", "--new-url", "10.0.0.1:8000"),
        ("--canary", "10%", "--apply", "--old-url", "./bundle"),  # it would be served
    ],
)
def test_options_without_effect_are_bad_usage(words: tuple[str, ...], tmp_path: Path) -> None:
    made = whole_bundle(MODELS / "hf-awq", tmp_path / "b")

    done = run("scale", str(made.path), "--on", "ray", "-o", str(tmp_path / "o"), "--json", *words)

    assert done.code == 2
    assert json.loads(done.stdout)["error"]["exit_code"] == 2
    assert not (tmp_path / "o").exists()
