"""What no schema finds: objects that Kubernetes takes and that then do not work together, or are not safe.

Every rule gets all objects and says a sentence per fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from deploytk.scale.kubernetes.containers import CONTAINER_RULES, Workload, workloads_in

Objects = Sequence[Mapping[str, Any]]
Rule = Callable[[Objects], Iterator[str]]

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")


def lint(objects: Objects) -> tuple[str, ...]:
    """All faults, each with the object that has it; () for none."""
    return tuple(f"{rule.__name__.strip('_').replace('_', ' ')}: {fault}" for rule in RULES for fault in rule(objects))


def called(one: Mapping[str, Any]) -> str:
    return f"{one.get('kind')} {one.get('metadata', {}).get('name')}"


def names_are_dns_labels(objects: Objects) -> Iterator[str]:
    for one in objects:
        if not _LABEL.fullmatch(str(one.get("metadata", {}).get("name", ""))):
            yield f"{called(one)}: lower case, digits and dashes, 63 characters at most"
    seen = [called(one) for one in objects]
    yield from (f"{name} is there twice" for name in sorted({name for name in seen if seen.count(name) > 1}))


def label_values_are_valid(objects: Objects) -> Iterator[str]:
    for one in objects:
        for key, value in (one.get("metadata", {}).get("labels") or {}).items():
            if not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value):
                yield f"{called(one)}: {key} is {value!r}"


def selectors_select_their_own_pods(objects: Objects) -> Iterator[str]:
    for workload in workloads_in(objects):
        if not workload.selector or not workload.selector.items() <= workload.labels.items():
            yield f"{workload.name}: its selector is not part of its Pods' labels"


def selectors_select_something(objects: Objects) -> Iterator[str]:
    pods = [workload.labels for workload in workloads_in(objects)]
    services = [one["metadata"].get("labels") or {} for one in objects if one.get("kind") == "Service"]
    for one in objects:
        selector, among = _selector(one), services if one.get("kind") == "ServiceMonitor" else pods
        if selector is not None and (not selector or not any(selector.items() <= labels.items() for labels in among)):
            yield f"{called(one)} selects nothing"


def _selector(one: Mapping[str, Any]) -> Mapping[str, str] | None:
    spec, kind = one.get("spec", {}), one.get("kind")
    if kind == "Service":
        return spec.get("selector") or {}
    if kind in ("PodDisruptionBudget", "ServiceMonitor"):
        return spec.get("selector", {}).get("matchLabels") or {}
    return (spec.get("podSelector", {}).get("matchLabels") or {}) if kind == "NetworkPolicy" else None


def services_lead_to_ports(objects: Objects) -> Iterator[str]:
    for one in objects:
        if one.get("kind") != "Service":
            continue
        behind = [w for w in workloads_in(objects) if (_selector(one) or {}).items() <= w.labels.items()]
        ports = {port for workload in behind for port in workload.ports}
        for port in one["spec"].get("ports") or ():
            if behind and port.get("targetPort", port.get("port")) not in ports:
                yield f"{called(one)}: no container has the port {port.get('targetPort', port.get('port'))}"


def policies_let_the_port_in(objects: Objects) -> Iterator[str]:
    for one in objects:
        if one.get("kind") != "NetworkPolicy":
            continue
        let_in = {port.get("port") for rule in one["spec"].get("ingress") or () for port in rule.get("ports") or ()}
        for workload in workloads_in(objects):
            if (_selector(one) or {}).items() <= workload.labels.items() and not let_in & workload.ports:
                yield f"{called(one)} lets nothing in to {workload.name}"


def budgets_let_nodes_be_drained(objects: Objects) -> Iterator[str]:
    for one in objects:
        if one.get("kind") != "PodDisruptionBudget":
            continue
        spec = one["spec"]
        behind = [w for w in workloads_in(objects) if (_selector(one) or {}).items() <= w.labels.items()]
        there = sum(workload.replicas or 1 for workload in behind)
        least = spec.get("minAvailable")
        if spec.get("maxUnavailable") in (0, "0%") or (isinstance(least, int) and least >= there) or least == "100%":
            yield f"{called(one)}: no Pod may ever be moved"


def autoscalers_own_the_number(objects: Objects) -> Iterator[str]:
    for one in objects:
        if one.get("kind") not in ("HorizontalPodAutoscaler", "ScaledObject"):
            continue
        spec, target = one["spec"], one["spec"].get("scaleTargetRef", {}).get("name")
        scaled = [w for w in workloads_in(objects) if w.name == f"Deployment {target}"]
        if not scaled:
            yield f"{called(one)}: there is no Deployment {target}"
        if any(workload.replicas is not None for workload in scaled):
            yield f"{called(one)}: the Deployment has replicas as well, which every apply would set back"
        least = spec.get("minReplicas", spec.get("minReplicaCount", 1))
        most = spec.get("maxReplicas", spec.get("maxReplicaCount", 1))
        if not 1 <= least <= most:
            yield f"{called(one)}: from {least} to {most} replicas"


def updates_find_gpus(objects: Objects) -> Iterator[str]:
    for workload in workloads_in(objects):
        steps = workload.spec.get("strategy", {}).get("rollingUpdate", {})
        surge, missing = steps.get("maxSurge", "25%"), steps.get("maxUnavailable", "25%")
        if workload.has_gpus and surge != 0:
            yield f"{workload.name}: maxSurge {surge} wants GPUs that nobody has kept free"
        if surge in (0, "0%") and missing in (0, "0%"):
            yield f"{workload.name}: with neither surge nor missing Pods no update ever begins"


def starts_have_time(objects: Objects) -> Iterator[str]:
    for workload in workloads_in(objects):
        deadline = workload.spec.get("progressDeadlineSeconds", 600)
        for container in workload.containers:
            probe = container.get("startupProbe")
            if not probe:
                yield f"{workload.name}: {container.get('name')} has no startupProbe"
            elif probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3) > deadline:
                yield f"{workload.name}: it may take longer to start than progressDeadlineSeconds {deadline}"


def endings_have_time(objects: Objects) -> Iterator[str]:
    for workload in workloads_in(objects):
        grace = workload.pod.get("terminationGracePeriodSeconds", 30)
        for container in workload.containers:
            pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            drain = next((int(e["value"]) for e in container.get("env", ()) if e["name"] == "DEPLOYTK_DRAIN_S"), 0)
            if not pause:
                yield f"{workload.name}: without a pause in preStop, requests still come to a Pod that has ended"
            if grace < pause + drain:
                yield f"{workload.name}: it is killed after {grace} s, and needs {pause} + {drain}"


def _over_containers(rule: Callable[[Workload, Mapping[str, Any]], Iterator[str]]) -> Rule:
    def over(objects: Objects) -> Iterator[str]:
        for workload in workloads_in(objects):
            for container in workload.containers:
                yield from (f"{workload.name}: {fault}" for fault in rule(workload, container))

    over.__name__ = rule.__name__
    return over


RULES: tuple[Rule, ...] = (
    names_are_dns_labels,
    label_values_are_valid,
    selectors_select_their_own_pods,
    selectors_select_something,
    services_lead_to_ports,
    policies_let_the_port_in,
    budgets_let_nodes_be_drained,
    autoscalers_own_the_number,
    updates_find_gpus,
    starts_have_time,
    endings_have_time,
    *map(_over_containers, CONTAINER_RULES),
)
