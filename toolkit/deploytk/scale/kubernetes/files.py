"""The objects as files: a kustomize base that any cluster takes, and an overlay with what this one has."""

from __future__ import annotations

from deploytk.base.yaml import dump_yaml
from deploytk.scale.contract import Replica
from deploytk.scale.kubernetes.objects import CANARY, deployment, objects_of, service
from deploytk.scale.kubernetes.pods import Object
from deploytk.scale.wishes import Wishes

_BASE = ("networkpolicy", "service", "pdb", "deployment")
_KIND = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}


def kubernetes_files(replica: Replica, wishes: Wishes) -> dict[str, str]:
    """base/ with what every cluster has; overlays/production; overlays/canary, to be beside another revision."""
    objects = objects_of(replica, wishes)
    own = [name for name in objects if name not in _BASE]
    found = {f"base/{name}.yaml": dump_yaml(objects[name]) for name in _BASE}
    found["base/kustomization.yaml"] = _kustomization([f"{name}.yaml" for name in _BASE])
    found |= {f"overlays/production/{name}.yaml": dump_yaml(objects[name]) for name in own}
    resources = ["../../base", *(f"{name}.yaml" for name in own)]
    found["overlays/production/kustomization.yaml"] = _kustomization(resources, wishes.namespace)
    canary = canary_objects(replica, wishes)
    found |= {f"overlays/canary/{name}.yaml": dump_yaml(one) for name, one in canary.items()}
    # Alone: with production beside it, the first revision would be this one too.
    found["overlays/canary/kustomization.yaml"] = _kustomization([f"{name}.yaml" for name in canary], wishes.namespace)
    return found


def canary_objects(replica: Replica, wishes: Wishes, count: int = 1) -> dict[str, Object]:
    """The second revision: its Pods are behind the common Service too, and behind one of their own, for `smoke`."""
    return {
        "service": service(replica, CANARY),
        "deployment": deployment(replica, wishes, CANARY, count),
    }


def _kustomization(resources: list[str], namespace: str | None = None) -> str:
    return dump_yaml({**_KIND, **({"namespace": namespace} if namespace else {}), "resources": resources})


def kubernetes_notes(replica: Replica, wishes: Wishes) -> tuple[str, ...]:
    """What a person must do or know before it runs."""
    name, space = replica.name, wishes.namespace
    found = ["never applied to a live cluster by us: schemas, our lint and a mock of the API are all that judged it"]
    if wishes.keys:
        found.append(f"API keys: kubectl -n {space} create secret generic {name}-keys --from-file=api-keys=FILE")
    if wishes.keys and wishes.has_monitoring:
        found.append(f"the key metrics-key of {name}-keys is one of the API keys, for Prometheus")
    if not wishes.is_many:
        found.append("with one replica every update and every drained node is a pause: --replicas 2 at least")
    if replica.gpus:
        found.append("GPUs are not overbooked: an update takes a replica away before the new one comes (maxSurge 0)")
    if wishes.volume:
        found.append("image volumes are on by default from Kubernetes 1.35 (1.33 and 1.34: a feature gate)")
    if not wishes.replicas.are_fixed:
        needs = "KEDA" if wishes.autoscaler == "keda" else "the Prometheus adapter with deploytk_requests_waiting"
        found.append(f"autoscaling needs {needs}")
    found.append("clients of other namespaces: kubectl label namespace NAME deploytk.ai/clients=true")
    return tuple(found)
