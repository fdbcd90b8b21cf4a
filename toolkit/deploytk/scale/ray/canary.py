"""A new revision beside the old one on Ray: an application of its own, to which the old one hands on some requests.

The share is a setting of the replicas that run (`user_config`): none of them starts anew for it. What the canary cannot
answer is answered by the old revision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from deploytk.base.errors import ScaleError
from deploytk.base.progress import Progress
from deploytk.scale.contract import Replica
from deploytk.scale.judging import Judged
from deploytk.scale.ray.apply import Cluster, apply, running_replicas
from deploytk.scale.ray.config import Application, ServeConfig, application, serve_config
from deploytk.scale.wishes import Replicas, Wishes

Judge = Callable[[], Judged]


def canary_name(name: str) -> str:
    return f"{name}-canary"


def roll_out(
    cluster: Cluster, replica: Replica, wishes: Wishes, percent: float, judge: Judge, progress: Progress
) -> Judged:
    """Give the new revision its share, have it judged, and promote it or take it back; returns the judgement.

    It gets as many replicas as its share is of the old ones, and one at least.
    Raises ScaleError where there is no old revision, or the new one does not come up; whatever is raised, the old one
    serves all requests again.
    """
    whole = serve_config(replica, wishes)
    old, there = _old(cluster, replica.name)
    count = max(1, math.ceil(there * percent / 100))
    canary = _canary(replica, wishes, count)
    start_s = float(replica.start_s)
    try:
        apply(cluster, _with(whole, canary), start_s, progress)
        apply(cluster, _with(whole, _sharing(old, canary.name, percent)), start_s, progress)
        progress.note(f"{canary.name} gets {percent:g} % of the requests{_unlike(there, count, percent)}")
        found = judge()
        if found.is_good:
            apply(cluster, whole, start_s, progress)
            progress.note(f"{replica.name} is the new revision")
    except BaseException:
        _end(cluster, _with(whole, _sharing(old, None, 0)), canary.name, start_s, progress)
        raise
    last = whole if found.is_good else _with(whole, _sharing(old, None, 0))
    _end(cluster, last, canary.name, start_s, progress)
    return found


def _end(cluster: Cluster, config: ServeConfig, canary: str, start_s: float, progress: Progress) -> None:
    """First no more requests for the canary, then no canary."""
    apply(cluster, config, start_s, progress)
    apply(cluster, config, start_s, progress, without=(canary,))


def _old(cluster: Cluster, name: str) -> tuple[Application, int]:
    """The old revision, and how many replicas of it run now: with autoscaling its config does not tell."""
    found = cluster.details()["applications"].get(name)
    if found is None or found.get("status") != "RUNNING":
        hint = "deploy it without --canary first"
        raise ScaleError(f"no {name} runs there, beside which a canary could be tried", hint=hint)
    try:
        return Application.model_validate(found.get("deployed_app_config")), max(1, running_replicas(found))
    except ValidationError as error:
        hint = "deploy it by `deploytk scale` first, without --canary"
        raise ScaleError(f"the {name} that runs there was not deployed by deploytk", hint=hint) from error


def _canary(replica: Replica, wishes: Wishes, count: int) -> Application:
    name = canary_name(replica.name)
    own = replace(wishes, replicas=Replicas(count, count))
    return application(replica.named(name), own, f"/{name}")


def _unlike(there: int, count: int, percent: float) -> str:
    """Words where replicas of the canary have another load than old ones: few old ones, or a share that is no whole."""
    load = percent / count / ((100 - percent) / there)
    if 0.8 <= load <= 1.25:
        return ""
    return f", each of its replicas {load:.1f} times what an old one has: times of a server at its limit compare badly"


def _sharing(old: Application, canary: str | None, percent: float) -> Application:
    """The old revision as it is, with a canary or without one."""
    share: dict[str, Any] = {"canary": {"application": canary, "percent": percent}} if canary else {}
    return old.model_copy(
        update={"deployments": [one.model_copy(update={"user_config": share}) for one in old.deployments]}
    )


def _with(config: ServeConfig, one: Application) -> ServeConfig:
    return config.model_copy(update={"applications": [one]})
