"""The API of Kubernetes as kmock mocks it, in a thread, with what server-side apply adds to a PATCH."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kmock

RESOURCES = {
    "apps/v1/deployments": "Deployment",
    "v1/services": "Service",
    "policy/v1/poddisruptionbudgets": "PodDisruptionBudget",
    "networking.k8s.io/v1/networkpolicies": "NetworkPolicy",
    "autoscaling/v2/horizontalpodautoscalers": "HorizontalPodAutoscaler",
    "keda.sh/v1alpha1/scaledobjects": "ScaledObject",
    "monitoring.coreos.com/v1/servicemonitors": "ServiceMonitor",
}


@dataclass
class Mock:
    url: str = ""
    tokens: set[str] = field(default_factory=set)

    def write_config(self, place: Path, token: str) -> None:
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        users = [{"name": "u", "user": {"token": token}}]
        clusters = [{"name": "c", "cluster": {"server": self.url.rstrip("/")}}]
        whole = {"apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [context]}
        place.write_text(json.dumps({**whole, "users": users, "clusters": clusters}))


class _Emulator(kmock.KubernetesEmulator):
    """kmock changes what is there; the real server creates what is applied and not there."""

    mock: Mock

    async def _handle(self, request: Any) -> Any:
        self.mock.tokens.add(request.headers.get("Authorization", ""))
        if request.headers.get("Content-Type") == "application/apply-patch+yaml":
            key = (request.resource, request.namespace, request.name)
            if key not in self._objects or self._objects[key].deleted:
                self._objects[key] = {}
        return await super()._handle(request)


@contextlib.contextmanager
def mocked_api() -> Iterator[Mock]:
    mock, ready = Mock(), threading.Event()
    stop: list[Any] = []

    async def serve() -> None:
        async with _Emulator() as emulator, kmock.Server(emulator) as server:
            emulator.mock = mock
            for resource, kind in RESOURCES.items():
                emulator.resources[resource] = {"kind": kind, "namespaced": True, "verbs": ["get", "patch", "delete"]}
            mock.url = str(server.url)
            over = asyncio.Event()
            stop.extend([asyncio.get_running_loop(), over])
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(20)
    try:
        yield mock
    finally:
        stop[0].call_soon_threadsafe(stop[1].set)
        thread.join(20)
