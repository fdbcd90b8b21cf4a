"""A new revision beside the old one on Kubernetes: Pods of its own behind the common Service, in the share asked for.

The Service sends each connection to one of all Pods: so the share is one of Pods, as near as whole Pods come to it.
"""

from __future__ import annotations

from collections.abc import Callable

from deploytk.base.errors import ScaleError
from deploytk.base.progress import Progress
from deploytk.scale.contract import Replica
from deploytk.scale.judging import Judged
from deploytk.scale.kubernetes.apply import Cluster, apply_objects
from deploytk.scale.kubernetes.files import canary_objects
from deploytk.scale.kubernetes.objects import objects_of, service
from deploytk.scale.wishes import Wishes

_COMMON = ("Service", "NetworkPolicy", "PodDisruptionBudget")
"""What both revisions share."""


def roll_out(
    cluster: Cluster,
    replica: Replica,
    wishes: Wishes,
    percent: float,
    judge: Callable[[], Judged],
    progress: Progress,
) -> Judged:
    """Give the new revision its share, have it judged, and promote it or take it back; returns the judgement.

    Raises ScaleError where there is no old revision, or the new one does not come up; whatever is raised, the canary's
    objects are gone then.
    """
    whole = list(objects_of(replica, wishes).values())
    old = cluster.get(next(one for one in whole if one["kind"] == "Deployment"))
    if old is None:
        hint = "apply it without --canary first"
        raise ScaleError(f"there is no {replica.name}, beside which a canary could be tried", hint=hint)
    count = pods_for(percent, int(old["spec"].get("replicas", 1)))
    own = [service(replica, "stable"), *canary_objects(replica, wishes, count).values()]
    progress.note(f"{count} Pods for {percent:g} % of the requests")
    try:
        common = [one for one in whole if one["kind"] in _COMMON]
        apply_objects(cluster, [*common, *own], progress, among=[one for one in whole if one not in common])
        found = judge()
        if found.is_good:
            apply_objects(cluster, whole, progress)
    finally:
        for one in own:
            cluster.delete(one)
    return found


def pods_for(percent: float, old: int) -> int:
    """Pods of a canary that has that share of all Pods, beside `old` ones: one at least."""
    return max(1, round(old * percent / (100 - percent)))
