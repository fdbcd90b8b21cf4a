"""A prepared deployment -> what runs, on the platforms that we can speak to."""

from __future__ import annotations

from deploytk.base.progress import Progress
from deploytk.scale.prepare import Prepared


def applied_to(on: str, made: Prepared, address: str, progress: Progress) -> str:
    """Deploy it and wait until it runs; returns what is there then, in words. Raises ScaleError when it does not."""
    return _on_ray(made, address, progress) if on == "ray" else _on_kubernetes(made, progress)


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
