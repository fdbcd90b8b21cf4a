"""Objects -> a cluster: applied, watched until their Pods are there, and taken back when they do not come."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from deploytk.base.errors import ScaleError
from deploytk.base.pause import pause
from deploytk.base.progress import Progress
from deploytk.base.terminal import one_line
from deploytk.scale.kubernetes.lint import lint
from deploytk.scale.kubernetes.pods import Object

ASK_EVERY_S = 2.0
_PATIENCE_S = 60.0  # beside what the objects themselves allow
_KEPT = ("labels", "annotations")


class Cluster(Protocol):
    def apply(self, wanted: Object) -> Object: ...

    def get(self, named: Object) -> Object | None: ...

    def delete(self, named: Object) -> None: ...


@dataclass(frozen=True, slots=True)
class Rollout:
    """How far a Deployment is."""

    wanted: int
    updated: int
    available: int
    trouble: str = ""  # why it will not come any further

    @property
    def is_done(self) -> bool:
        return not self.trouble and self.updated >= self.wanted and self.available >= self.wanted


def apply_objects(
    cluster: Cluster, objects: Sequence[Object], progress: Progress, among: Sequence[Object] = ()
) -> Rollout:
    """Apply the objects, in their order, and wait for the Deployments among them.

    `among` are others that are there, without which these make no sense.

    Raises ScaleError when a Deployment does not come up: what was there before is applied again then, and what was not
    there is deleted.
    """
    faults = lint([*objects, *among])
    if faults:
        raise ScaleError(f"what would be applied is faulty: {faults[0]}", hint="this is ours to mend: report it")
    before = [cluster.get(one) for one in objects]
    try:
        for one in objects:
            cluster.apply(one)
            progress.note(f"applied {one['kind']} {one['metadata']['name']}")
        rollouts = [_wait(cluster, one, progress) for one in objects if one["kind"] == "Deployment"]
    except ScaleError:
        _take_back(cluster, objects, before, progress)
        raise
    bad = next((one for one in rollouts if one.trouble), None)
    if bad is not None:
        _take_back(cluster, objects, before, progress)
        was = "the one before is applied again" if any(before) else "it was deleted again"
        raise ScaleError(
            f"the deployment does not come up: {bad.trouble}", hint=f"{was}; kubectl describe pods tells more"
        )
    return rollouts[0]


def _wait(cluster: Cluster, deployment: Object, progress: Progress) -> Rollout:
    within_s = deployment["spec"]["progressDeadlineSeconds"] + _PATIENCE_S
    deadline, said = time.monotonic() + within_s, ""
    found = Rollout(1, 0, 0)
    while time.monotonic() < deadline:
        found = rollout_of(cluster.get(deployment))
        if found.is_done or found.trouble:
            return found
        shown = f"{found.updated} of {found.wanted} new, {found.available} available"
        if shown != said:
            progress.note(f"  {shown}")
            said = shown
        pause(ASK_EVERY_S)
    return Rollout(found.wanted, found.updated, found.available, f"after {within_s:.0f} s {said}")


def rollout_of(found: Mapping[str, Any] | None) -> Rollout:
    """What a Deployment says of itself, once its controller has seen what it now is."""
    if found is None:
        return Rollout(1, 0, 0, "it is gone")
    status, wanted = found.get("status") or {}, int(found["spec"].get("replicas", 1))
    if status.get("observedGeneration", 0) < found["metadata"].get("generation", 0):
        return Rollout(wanted, 0, 0)
    trouble = ""
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Progressing" and condition.get("status") == "False":
            trouble = one_line(str(condition.get("message") or condition.get("reason")))[:300]
    old = int(status.get("replicas", 0)) - int(status.get("updatedReplicas", 0))
    available = int(status.get("availableReplicas", 0)) - max(0, old)
    return Rollout(wanted, int(status.get("updatedReplicas", 0)), available, trouble)


def _take_back(
    cluster: Cluster, objects: Sequence[Object], before: Sequence[Object | None], progress: Progress
) -> None:
    for one, was in zip(objects, before, strict=True):
        if was is None:
            cluster.delete(one)
        else:
            cluster.apply(_without_status(was))
    progress.note("taken back: what was there before is what is wanted again")


def _without_status(found: Object) -> Object:
    """What a person would have written: without what the server keeps of it."""
    metadata = {key: found["metadata"][key] for key in ("name", "namespace", *_KEPT) if key in found["metadata"]}
    return {key: metadata if key == "metadata" else found[key] for key in found if key != "status"}
