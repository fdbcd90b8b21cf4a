"""The Serve config, key by key: Ray takes one with misspelled keys in silence and serves with its defaults.

Ray Serve 2.60, ray/serve/schema.py: ServeDeploySchema and what is in it.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from deploytk.scale.contract import ENGINE_ENDS_WITHIN_S, Replica
from deploytk.scale.wishes import Replicas, Wishes

PORT = 8000
"""Where the proxy of every node listens; clients come through a load balancer."""

BUILD = "deploytk.scale.ray.replica:build"
"""What makes the application on the nodes."""

DEPLOYMENT = "Replica"


class _Strict(BaseModel):
    """A key that is none of these is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class HttpOptions(_Strict):
    host: str
    port: int
    request_timeout_s: float


class ActorOptions(_Strict):
    num_cpus: float
    num_gpus: float


class Autoscaling(_Strict):
    min_replicas: int
    max_replicas: int
    target_ongoing_requests: float
    upscale_delay_s: float
    downscale_delay_s: float


class Deployment(_Strict):
    name: str
    num_replicas: int | None = None  # None: autoscaling_config says it
    autoscaling_config: Autoscaling | None = None
    max_ongoing_requests: int
    max_queued_requests: int
    graceful_shutdown_wait_loop_s: float
    graceful_shutdown_timeout_s: float
    health_check_period_s: float
    health_check_timeout_s: float
    ray_actor_options: ActorOptions
    placement_group_bundles: list[dict[str, float]] | None = None
    placement_group_strategy: str | None = None
    user_config: dict[str, Any] | None = None


class Application(_Strict):
    name: str
    route_prefix: str
    import_path: str
    args: dict[str, Any]
    deployments: list[Deployment]

    def written(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


class ServeConfig(_Strict):
    proxy_location: str
    http_options: HttpOptions
    applications: list[Application]

    def written(self) -> dict[str, Any]:
        """As Ray takes it: what is not said is left out."""
        return self.model_dump(exclude_none=True)


def serve_config(replica: Replica, wishes: Wishes) -> ServeConfig:
    """The config of one application that gets every path."""
    timeout_s = float(replica.request_s + 10)
    http = HttpOptions(host="0.0.0.0", port=PORT, request_timeout_s=timeout_s)  # noqa: S104 (nodes are many)
    return ServeConfig(proxy_location="EveryNode", http_options=http, applications=[application(replica, wishes)])


def application(replica: Replica, wishes: Wishes, prefix: str = "/") -> Application:
    environment = {"DEPLOYTK_DRAIN_S": str(replica.drain_s), "DEPLOYTK_READY_S": str(replica.start_s)}
    args = {"bundle": wishes.bundle_place, "digest": replica.bundle, "environment": environment}
    return Application(
        name=replica.name, route_prefix=prefix, import_path=BUILD, args=args, deployments=[_deployment(replica, wishes)]
    )


def _deployment(replica: Replica, wishes: Wishes) -> Deployment:
    many = replica.tensor_parallel > 1 and replica.gpus > 0
    # All GPUs of a replica are on one node: LMDeploy's processes of one model share memory.
    bundles = [{"CPU": float(replica.cpus), "GPU": float(replica.gpus)}] if many else None
    fixed = wishes.replicas.most if wishes.replicas.are_fixed else None
    return Deployment(
        name=DEPLOYMENT,
        num_replicas=fixed,
        autoscaling_config=_autoscaling(replica, wishes.replicas),
        # More than its batch would wait in a replica while another one is free.
        max_ongoing_requests=replica.max_running + replica.scale_at,
        max_queued_requests=replica.max_waiting * wishes.replicas.most,
        graceful_shutdown_wait_loop_s=2.0,
        graceful_shutdown_timeout_s=float(replica.drain_s + ENGINE_ENDS_WITHIN_S),
        health_check_period_s=1.0,
        health_check_timeout_s=5.0,
        ray_actor_options=ActorOptions(num_cpus=float(replica.cpus), num_gpus=float(replica.gpus)),
        placement_group_bundles=bundles,
        placement_group_strategy="STRICT_PACK" if many else None,
        user_config={},
    )


def _autoscaling(replica: Replica, replicas: Replicas) -> Autoscaling | None:
    """By requests in flight: a replica whose batch is full wants another one beside it."""
    if replicas.are_fixed:
        return None
    return Autoscaling(
        min_replicas=replicas.least,
        max_replicas=replicas.most,
        target_ongoing_requests=float(replica.max_running),
        upscale_delay_s=10.0,
        downscale_delay_s=600.0,
    )
