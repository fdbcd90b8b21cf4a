"""Objects for Kubernetes: what the lint finds, what every version's schema says, and applying them."""

from __future__ import annotations

import copy
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from bundles import Notes
from replicas import IMAGE, replica, wishes

from deploytk.base.errors import ScaleError
from deploytk.scale import Replicas
from deploytk.scale.kubernetes import lint, objects_of
from deploytk.scale.kubernetes.apply import apply_objects, rollout_of
from deploytk.scale.kubernetes.files import canary_objects, kubernetes_files
from deploytk.scale.kubernetes.lint import RULES

Objects = dict[str, Any]


def _objects() -> Objects:
    given = wishes(replicas=Replicas(1, 4), has_monitoring=True, claim="weights")
    return copy.deepcopy(objects_of(replica(weights="mount"), given))


def _container(objects: Objects) -> Any:
    return objects["deployment"]["spec"]["template"]["spec"]["containers"][0]


def _pod(objects: Objects) -> Any:
    return objects["deployment"]["spec"]["template"]["spec"]


def _set(place: str, value: Any) -> Callable[[Objects], None]:
    """Sets `deployment.spec.replicas`; `!` as the value deletes; a number in the place is an index."""

    def change(objects: Objects) -> None:
        *parents, last = [int(part) if part.isdigit() else part.replace("~", ".") for part in place.split(".")]
        at: Any = objects
        for part in parents:
            at = at[part]
        if value == "!":
            del at[last]
        else:
            at[last] = value

    return change


POD = "deployment.spec.template.spec"
BOX = f"{POD}.containers.0"
FAULTS: dict[str, list[Callable[[Objects], None]]] = {
    "names are dns labels": [
        _set("service.metadata.name", "Chat_7B"),
        _set("service.metadata.name", "a" * 64),
        _set("pdb.metadata.name", "-a"),
        lambda objects: objects.update(again=objects["pdb"]),
    ],
    "label values are valid": [_set("pdb.metadata.labels.a", "a b"), _set("pdb.metadata.labels.a", 3)],
    "selectors select their own pods": [
        _set("deployment.spec.selector.matchLabels.a", "b"),
        _set("deployment.spec.selector.matchLabels", {}),
    ],
    "selectors select something": [
        _set("service.spec.selector.a", "b"),
        _set("networkpolicy.spec.podSelector.matchLabels.a", "b"),
        _set("servicemonitor.spec.selector.matchLabels.a", "b"),
        _set("service.spec.selector", {}),
    ],
    "services lead to ports": [
        _set("service.spec.ports.0.targetPort", "https"),
        _set("service.spec.ports.0.targetPort", 80),
    ],
    "policies let the port in": [
        _set("networkpolicy.spec.ingress.0.ports.0.port", 80),
        _set("networkpolicy.spec.ingress", []),
    ],
    "budgets let nodes be drained": [
        _set(
            "pdb.spec",
            {"minAvailable": 1, "selector": {"matchLabels": {"app.kubernetes.io/name": "internlm-chat-7b-awq"}}},
        ),
        _set("pdb.spec.maxUnavailable", 0),
    ],
    "autoscalers own the number": [
        _set("deployment.spec.replicas", 2),
        _set("autoscaler.spec.minReplicas", 9),
        _set("autoscaler.spec.minReplicas", 0),
        _set("autoscaler.spec.scaleTargetRef.name", "another"),
    ],
    "updates find gpus": [
        _set("deployment.spec.strategy.rollingUpdate.maxSurge", 1),
        _set("deployment.spec.strategy", {}),
        _set("deployment.spec.strategy.rollingUpdate.maxUnavailable", 0),
    ],
    "starts have time": [_set("deployment.spec.progressDeadlineSeconds", 60), _set(f"{BOX}.startupProbe", "!")],
    "endings have time": [_set(f"{POD}.terminationGracePeriodSeconds", 30), _set(f"{BOX}.lifecycle", {})],
    "mounts and volumes belong together": [
        _set(f"{BOX}.volumeMounts.0.name", "temp"),
        _set(f"{BOX}.volumeMounts.1.mountPath", "/tmp"),
        lambda objects: _pod(objects)["volumes"].append({"name": "idle", "emptyDir": {}}),
    ],
    "probes ask at ports": [
        _set(f"{BOX}.livenessProbe.httpGet.port", 80),
        _set(f"{BOX}.startupProbe.httpGet.port", "web"),
    ],
    "quantities are readable": [
        _set(f"{BOX}.resources.limits.memory", "32Qi"),
        _set(f"{BOX}.resources.requests.cpu", 4),
        _set(f"{BOX}.resources.limits.memory", "-1Gi"),
        _set(f"{POD}.volumes.1.emptyDir.sizeLimit", "4 Gi"),
    ],
    "gpus are asked for in full": [
        _set(f"{BOX}.resources.requests.nvidia~com/gpu", "1"),
        _set(f"{BOX}.resources.limits.nvidia~com/gpu", "!"),
    ],
    "resources are set": [
        _set(f"{BOX}.resources.requests.cpu", "!"),
        _set(f"{BOX}.resources.limits.memory", "!"),
        _set(f"{BOX}.resources.requests.memory", "!"),
    ],
    "images are named by digest": [
        _set(f"{BOX}.image", "ghcr.io/me/chat:latest"),
        _set(f"{BOX}.image", "ghcr.io/me/chat"),
        lambda objects: _pod(objects)["volumes"][2].update(image={"reference": "ghcr.io/me/weights:1"}),
    ],
    "no secret is written down": [
        lambda objects: _container(objects)["env"].append({"name": "HF_TOKEN", "value": "hf_x"}),
        lambda objects: _container(objects)["env"].append({"name": "DEPLOYTK_API_KEYS", "value": "x"}),
        lambda objects: _container(objects)["env"].append({"name": "DB_PASSWORD", "value": "x"}),
    ],
    "nobody is root": [
        _set(f"{POD}.securityContext.runAsNonRoot", "!"),
        _set(f"{POD}.securityContext.runAsUser", 0),
        _set(f"{BOX}.securityContext.runAsUser", 0),
    ],
    "pods are restricted": [
        _set(f"{BOX}.securityContext.allowPrivilegeEscalation", True),
        _set(f"{BOX}.securityContext.privileged", True),
        _set(f"{BOX}.securityContext.capabilities.drop", []),
        _set(f"{BOX}.securityContext.capabilities.add", ["SYS_ADMIN"]),
        _set(f"{BOX}.securityContext.readOnlyRootFilesystem", False),
        _set(f"{POD}.securityContext.seccompProfile", "!"),
        _set(f"{POD}.hostNetwork", True),
        _set(f"{POD}.automountServiceAccountToken", True),
        lambda objects: _pod(objects)["volumes"][0].update(hostPath={"path": "/"}),
    ],
}
CASES = [(rule, change) for rule, changes in FAULTS.items() for change in changes]


def test_what_we_write_has_no_fault() -> None:
    assert lint(list(_objects().values())) == ()


def test_every_rule_has_a_fault_that_it_finds() -> None:
    assert {rule.__name__.replace("_", " ") for rule in RULES} == FAULTS.keys()


@pytest.mark.parametrize(("rule", "change"), CASES)
def test_every_planted_fault_is_found_by_its_rule(rule: str, change: Callable[[Objects], None]) -> None:
    objects = _objects()
    change(objects)

    assert [fault for fault in lint(list(objects.values())) if fault.startswith(f"{rule}: ")]


def test_both_revisions_are_behind_the_common_service_and_one_behind_its_own() -> None:
    given = wishes(replicas=Replicas(9, 9))
    objects = [*objects_of(replica(), given).values(), *canary_objects(replica(), given).values()]
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in objects if one["kind"] == "Deployment"]
    common, own = (one["spec"]["selector"] for one in objects if one["kind"] == "Service")

    assert lint(objects) == ()
    assert [common.items() <= one.items() for one in labels] == [True, True]
    assert [own.items() <= one.items() for one in labels] == [False, True]


def test_an_autoscaled_deployment_leaves_its_number_to_the_autoscaler() -> None:
    objects = _objects()

    assert "replicas" not in objects["deployment"]["spec"]
    assert objects["autoscaler"]["spec"]["maxReplicas"] == 4
    # The batch is 8: another replica when 4 requests per replica wait.
    assert objects["autoscaler"]["spec"]["metrics"][0]["pods"]["target"]["averageValue"] == "4"


def test_nothing_goes_out_of_a_pod_whose_weights_are_there() -> None:
    assert _objects()["networkpolicy"]["spec"]["egress"] == []
    fetching = objects_of(replica(weights="download"), wishes())["networkpolicy"]["spec"]["egress"]
    assert [port["port"] for rule in fetching for port in rule["ports"]] == [53, 53, 443]


# Applying them


class FakeApi:
    """The server's side: merges, counts generations, and has a controller that brings Pods, or not."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.applied: list[str] = []
        self.refuses = ""  # the kind that it takes no object of
        self.is_stuck = False

    def _key(self, one: Objects) -> str:
        return f"{one['kind']} {one['metadata']['name']}"

    def apply(self, wanted: Objects) -> Objects:
        if wanted["kind"] == self.refuses:
            raise ScaleError(f"{self._key(wanted)} is refused with 403", hint="-")
        self.applied.append(self._key(wanted))
        there = self.objects.get(self._key(wanted))
        if there is not None and there["spec"] == wanted["spec"]:
            return there
        generation = there["metadata"]["generation"] + 1 if there else 1
        made = copy.deepcopy(wanted)
        made["metadata"]["generation"] = generation
        self.objects[self._key(wanted)] = made
        return made

    def get(self, named: Objects) -> Objects | None:
        found = copy.deepcopy(self.objects.get(self._key(named)))
        if found is not None and found["kind"] == "Deployment":
            number = found["spec"].get("replicas", 1)
            bad = "exec format error" in str(found["spec"]) or self.is_stuck
            there = {"updatedReplicas": number, "availableReplicas": 0 if bad else number, "replicas": number}
            message = "has timed out progressing."
            conditions = [{"type": "Progressing", "status": "False", "message": message}] if bad else []
            found["status"] = {"observedGeneration": found["metadata"]["generation"], **there, "conditions": conditions}
        return found

    def delete(self, named: Objects) -> None:
        self.objects.pop(self._key(named), None)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploytk.scale.kubernetes.apply.ASK_EVERY_S", 0.0)


def test_all_objects_are_applied_and_the_deployment_is_waited_for() -> None:
    api, objects = FakeApi(), list(_objects().values())

    done = apply_objects(api, objects, Notes())

    assert (done.available, done.trouble) == (1, "")
    assert len(api.applied) == len(objects)


def test_applied_twice_nothing_changes() -> None:
    api, objects = FakeApi(), list(_objects().values())
    apply_objects(api, objects, Notes())
    first = copy.deepcopy(api.objects)

    apply_objects(api, objects, Notes())

    assert api.objects == first


def test_what_does_not_come_up_is_taken_back_to_what_was_there() -> None:
    api = FakeApi()
    apply_objects(api, list(_objects().values()), Notes())
    before = {name: one["spec"] for name, one in copy.deepcopy(api.objects).items()}
    wrong = _objects()
    _container(wrong)["image"] = f"ghcr.io/me/exec format error{IMAGE[len('ghcr.io/me/chat') :]}"

    with pytest.raises(ScaleError, match="does not come up: has timed out progressing") as failed:
        apply_objects(api, list(wrong.values()), Notes())

    assert {name: one["spec"] for name, one in api.objects.items()} == before
    assert "the one before is applied again" in failed.value.hint


def test_a_first_deployment_that_does_not_come_up_leaves_nothing() -> None:
    api = FakeApi()
    api.is_stuck = True

    with pytest.raises(ScaleError):
        apply_objects(api, list(_objects().values()), Notes())

    assert api.objects == {}


def test_an_object_that_is_refused_takes_the_others_back() -> None:
    api = FakeApi()
    api.refuses = "Deployment"

    with pytest.raises(ScaleError, match="refused with 403"):
        apply_objects(api, list(_objects().values()), Notes())

    assert api.objects == {}


def test_faulty_objects_are_never_applied() -> None:
    api, objects = FakeApi(), _objects()
    _container(objects)["image"] = "ghcr.io/me/chat:latest"

    with pytest.raises(ScaleError, match="images are named by digest"):
        apply_objects(api, list(objects.values()), Notes())

    assert api.applied == []


@pytest.mark.parametrize(
    ("status", "done"),
    [
        ({"observedGeneration": 1, "updatedReplicas": 2, "availableReplicas": 2, "replicas": 2}, False),  # not yet seen
        ({"observedGeneration": 2, "updatedReplicas": 1, "availableReplicas": 2, "replicas": 2}, False),
        # Three are there, of which one is old: two of the new ones are needed.
        ({"observedGeneration": 2, "updatedReplicas": 2, "availableReplicas": 2, "replicas": 3}, False),
        ({"observedGeneration": 2, "updatedReplicas": 2, "availableReplicas": 2, "replicas": 2}, True),
    ],
)
def test_a_rollout_is_done_when_all_that_is_there_is_new_and_available(status: Objects, done: bool) -> None:
    assert rollout_of({"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status}).is_done is done


@pytest.mark.services
def test_the_real_client_applies_twice_to_a_mock_of_the_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("kubernetes")
    from kubernetes_mock import mocked_api

    from deploytk.scale.kubernetes.client import KubernetesApi

    with mocked_api() as mock:
        mock.write_config(tmp_path / "config", token="canary-c0ffee")
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        api = KubernetesApi("team-a")
        objects = list(objects_of(replica(), wishes(replicas=Replicas(1, 4), has_monitoring=True)).values())
        assert [api.get(one) for one in objects] == [None] * len(objects)
        for _ in range(2):
            for one in objects:
                api.apply(one)
        stored = [api.get(one) for one in objects]
        for one in objects:
            api.delete(one)
        gone = [api.get(one) for one in objects]

    for one, found in zip(objects, stored, strict=True):
        assert found is not None
        assert found["spec"] == one["spec"]
    assert gone == [None] * len(objects)
    assert mock.tokens == {"Bearer canary-c0ffee"}


@pytest.mark.services
@pytest.mark.skipif(not shutil.which("kubectl"), reason="kustomize is part of kubectl")
@pytest.mark.parametrize("autoscaler", ["hpa", "keda"])
def test_kustomize_makes_of_the_overlays_what_apply_applies(autoscaler: str, tmp_path: Path) -> None:
    given = wishes(replicas=Replicas(1, 4), autoscaler=autoscaler, has_monitoring=True, namespace="team-a")
    for path, text in kubernetes_files(replica(), given).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    for overlay, objects in (
        ("production", objects_of(replica(), given)),
        ("canary", canary_objects(replica(), given)),
    ):
        command = ["kubectl", "kustomize", str(tmp_path / "overlays" / overlay)]
        made = list(yaml.safe_load_all(subprocess.run(command, check=True, capture_output=True).stdout))

        assert {one["metadata"]["namespace"] for one in made} == {"team-a"}
        for one in made:
            del one["metadata"]["namespace"]
        by_name = {(one["kind"], one["metadata"]["name"]): one for one in objects.values()}
        assert {(one["kind"], one["metadata"]["name"]): one for one in made} == by_name


def test_the_overlay_of_a_canary_leaves_the_revision_that_runs_as_it_is() -> None:
    files = kubernetes_files(replica(), wishes(replicas=Replicas(1, 4)))

    names = yaml.safe_load(files["overlays/canary/kustomization.yaml"])["resources"]

    applied = [yaml.safe_load(files[f"overlays/canary/{name}"])["metadata"]["name"] for name in names]
    assert applied == ["internlm-chat-7b-awq-canary"] * 2


VERSIONS = ["1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"]
OF_CUSTOM_RESOURCES = ("ScaledObject", "ServiceMonitor")  # no schema of Kubernetes' own knows them


@pytest.mark.services
@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_for_every_version_and_a_misspelled_key_is_not(version: str) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    given = wishes(replicas=Replicas(1, 4), volume=IMAGE, runtime_class="nvidia", pull_secret="registry")
    objects = [*objects_of(replica(weights="mount"), given).values(), *canary_objects(replica(), wishes()).values()]

    for one in objects:
        assert one["kind"] not in OF_CUSTOM_RESOURCES
        validate.validate(one, version, strict=True)

    wrong = copy.deepcopy(objects[-1])
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(validate.ValidationError):
        validate.validate(wrong, version, strict=True)
