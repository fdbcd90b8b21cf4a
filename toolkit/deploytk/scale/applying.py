"""A prepared deployment -> what runs, on the platforms that we can speak to; at once, or by way of a canary."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from deploytk.base.progress import Progress
from deploytk.bundle import Golden
from deploytk.scale.judging import Judged, Revisions, judge_canary
from deploytk.scale.prepare import Prepared

API_KEY = "DEPLOYTK_API_KEY"


@dataclass(frozen=True, slots=True)
class Trial:
    """How a new revision is tried."""

    percent: float  # of the requests that it gets
    old_url: str | None  # where each revision is measured; None: where they are by themselves
    new_url: str | None
    golden: tuple[Golden, ...]
    within_s: float  # no round of measuring begins after that


def applied_to(on: str, made: Prepared, address: str, progress: Progress) -> str:
    """Deploy it and wait until it runs; returns what is there then, in words. Raises ScaleError when it does not."""
    return _on_ray(made, address, progress) if on == "ray" else _on_kubernetes(made, progress)


def rolled_out(on: str, made: Prepared, address: str, canary: Trial, progress: Progress) -> Judged:
    """The same for a new revision of what runs there: tried on a share of the requests, promoted or taken back."""
    return _by_ray(made, address, canary, progress) if on == "ray" else _by_kubernetes(made, canary, progress)


def _on_ray(made: Prepared, address: str, progress: Progress) -> str:
    from deploytk.scale.ray.apply import apply
    from deploytk.scale.ray.config import serve_config
    from deploytk.scale.ray.dashboard import Dashboard

    config = serve_config(made.replica, made.wishes)
    done = apply(Dashboard.at(address), config, float(made.replica.start_s), progress)
    return f"{done.replicas} replicas run, with proxies on {', '.join(done.nodes)}, after {done.seconds:.0f} s"


def _on_kubernetes(made: Prepared, progress: Progress) -> str:
    from deploytk.scale.kubernetes.apply import apply_objects
    from deploytk.scale.kubernetes.client import KubernetesApi
    from deploytk.scale.kubernetes.objects import objects_of

    objects = list(objects_of(made.replica, made.wishes).values())
    done = apply_objects(KubernetesApi(made.wishes.namespace), objects, progress)
    return f"{done.available} of {done.wanted} replicas are available in {made.wishes.namespace}"


def _by_ray(made: Prepared, address: str, canary: Trial, progress: Progress) -> Judged:
    from deploytk.scale.ray.canary import canary_name, roll_out
    from deploytk.scale.ray.config import PORT
    from deploytk.scale.ray.dashboard import Dashboard
    from deploytk.scale.ray.routes import OLD_ALONE

    node = next(iter(made.wishes.nodes), "127.0.0.1")
    proxy = f"http://{node}:{PORT}"
    old = canary.old_url or f"{proxy}{OLD_ALONE}"
    new = canary.new_url or f"{proxy}/{canary_name(made.replica.name)}"
    judge = _judge(old, new, canary, progress)
    return roll_out(Dashboard.at(address), made.replica, made.wishes, canary.percent, judge, progress)


def _by_kubernetes(made: Prepared, canary: Trial, progress: Progress) -> Judged:
    from deploytk.scale.kubernetes.canary import roll_out
    from deploytk.scale.kubernetes.client import KubernetesApi

    name, space = made.replica.name, made.wishes.namespace
    old = canary.old_url or f"http://{name}-stable.{space}.svc"
    new = canary.new_url or f"http://{name}-canary.{space}.svc"
    judge = _judge(old, new, canary, progress)
    return roll_out(KubernetesApi(space), made.replica, made.wishes, canary.percent, judge, progress)


def _judge(old: str, new: str, canary: Trial, progress: Progress) -> Callable[[], Judged]:
    both = Revisions(old, new, canary.golden, os.environ.get(API_KEY))
    return lambda: judge_canary(both.measured, canary.within_s, progress)
