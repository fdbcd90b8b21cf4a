"""Objects for Kubernetes: what the lint finds, what every version's schema says, and applying them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from replicas import IMAGE, replica, wishes

from deploytk.scale import Replicas
from deploytk.scale.kubernetes import lint, objects_of
from deploytk.scale.kubernetes.files import canary_objects
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
