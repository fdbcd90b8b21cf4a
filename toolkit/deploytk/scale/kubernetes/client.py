"""The API of Kubernetes through its own client: objects applied on the server's side, read and deleted."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploytk.base.errors import ScaleError, UsageError
from deploytk.base.terminal import one_line, quoted
from deploytk.scale.kubernetes.pods import Object

_MANAGER = "deploytk"
_WITHIN_S = 30
_PLURALS = {
    "Deployment": "deployments",
    "Service": "services",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "NetworkPolicy": "networkpolicies",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
    "ScaledObject": "scaledobjects",
    "ServiceMonitor": "servicemonitors",
}


class KubernetesApi:
    """The cluster of the current context; the token and its place are the client's own business."""

    def __init__(self, namespace: str) -> None:
        try:
            from kubernetes import client, config
        except ImportError as error:
            raise UsageError(
                "--apply needs the client of Kubernetes", hint="pip install 'deploytk[kubernetes]'"
            ) from error
        try:
            _load(config)
        except (config.ConfigException, OSError) as error:
            hint = "set KUBECONFIG, or apply the files: kubectl apply -k DIR/overlays/production"
            raise UsageError("no cluster of Kubernetes is configured here", hint=hint) from error
        self._namespace = namespace
        self._client = client.ApiClient()

    def apply(self, wanted: Object) -> Object:
        """Have the server merge the object into what is there, with us as the owner of its fields."""
        query = [("fieldManager", _MANAGER), ("force", "true")]
        found = self._ask("PATCH", wanted, query, {"Content-Type": "application/apply-patch+yaml"}, wanted)
        assert found is not None  # noqa: S101 (only GET and DELETE find nothing)
        return found

    def get(self, named: Object) -> Object | None:
        return self._ask("GET", named)

    def delete(self, named: Object) -> None:
        self._ask("DELETE", named)

    def _ask(
        self,
        method: str,
        named: Object,
        query: list[tuple[str, str]] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Object | None = None,
    ) -> Object | None:
        parts = self._client.param_serialize(
            method=method,
            resource_path=self._path(named),
            query_params=query or [],
            header_params={"Accept": "application/json", **(headers or {})},
            auth_settings=["BearerToken"],
        )
        url, sent, what = parts[1], parts[2], f"{named['kind']} {named['metadata']['name']}"
        text = json.dumps(body) if body is not None else None
        try:
            answer = self._client.call_api(method, url, sent, text, _request_timeout=_WITHIN_S)
            content = answer.read()
        except Exception as error:
            raise self._refused(what, f"cannot be asked for: {type(error).__name__}") from error
        if answer.status == 404 and method in ("GET", "DELETE"):
            return None
        if not 200 <= answer.status < 300:
            raise self._refused(what, f"is refused with {answer.status}: {_message(content)}")
        found: Object = json.loads(content)
        return found

    def _path(self, named: Object) -> str:
        version, kind = named["apiVersion"], named["kind"]
        root = "api" if version == "v1" else "apis"
        return f"/{root}/{version}/namespaces/{self._namespace}/{_PLURALS[kind]}/{named['metadata']['name']}"

    def _refused(self, what: str, why: str) -> ScaleError:
        hint = f"kubectl -n {quoted(self._namespace)} auth can-i patch deployments; kubectl config current-context"
        return ScaleError(f"{what} {why}", hint=hint)


def _load(config: Any) -> None:
    """The cluster of KUBECONFIG, of the user's own file, or the one that we run in."""
    place = os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())
    if "KUBECONFIG" in os.environ or Path(place).exists():
        config.load_kube_config(config_file=place)
    else:
        config.load_incluster_config()


def _message(content: bytes) -> str:
    try:
        return one_line(str(json.loads(content)["message"]))[:300]
    except (ValueError, KeyError, TypeError):
        return one_line(content.decode("utf-8", "replace"))[:300]
