"""A config -> what runs: deployed, watched to the end, and taken back when it does not come up.

Ray says that it has deployed before anything has begun, and takes keys that it does not know: so what it has taken is
compared, and its status asked for until it is one that stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from deploytk.base.errors import ScaleError
from deploytk.base.pause import pause
from deploytk.base.progress import Progress
from deploytk.base.terminal import one_line
from deploytk.scale.ray.config import Application, ServeConfig

ASK_EVERY_S = 1.0
_SETTLED = 2  # so often in a row a status must be the same: right after a deployment the old one is shown
_BAD = ("DEPLOY_FAILED", "UNHEALTHY")
_PATIENCE_S = 60.0  # beside the budget of a start, for Ray itself


class Cluster(Protocol):
    def details(self) -> dict[str, Any]: ...

    def deploy(self, config: Mapping[str, object]) -> None: ...


@dataclass(frozen=True, slots=True)
class Applied:
    status: str  # RUNNING
    replicas: int
    nodes: tuple[str, ...]  # that have a proxy
    seconds: float


def apply(
    cluster: Cluster, config: ServeConfig, start_s: float, progress: Progress, *, without: tuple[str, ...] = ()
) -> Applied:
    """Deploy `config` beside the applications of others and wait until all of it runs.

    Raises ScaleError when it does not: the applications that were there before are deployed again then. `without`
    names applications that go.
    """
    began = time.monotonic()
    before = cluster.details()
    wanted = _merged(before, config, without)
    cluster.deploy(wanted)
    names = [application.name for application in config.applications]
    progress.note(f"deployed {', '.join(names)}: waiting until it runs")
    trouble = _wait(cluster, config, start_s + _PATIENCE_S, progress)
    if trouble:
        _take_back(cluster, before, names, progress)
        was = "the one before serves on" if set(names) & before["applications"].keys() else "nothing of it is left"
        hint = f"{was}; the logs of its replicas are in Ray's dashboard"
        raise ScaleError(f"{names[0]} does not run: {trouble}", hint=hint)
    after = cluster.details()
    replicas = sum(running_replicas(after["applications"][name]) for name in names)
    nodes = tuple(sorted(str(one.get("node_ip")) for one in after.get("proxies", {}).values()))
    return Applied("RUNNING", replicas, nodes, time.monotonic() - began)


def _merged(before: Mapping[str, Any], config: ServeConfig, without: tuple[str, ...]) -> dict[str, Any]:
    """A deployment names all applications of the cluster: those of others as they are, and ours."""
    own = {one.name for one in config.applications} | set(without)
    others = [found["deployed_app_config"] for name, found in before["applications"].items() if name not in own]
    if not all(isinstance(other, dict) for other in others):
        hint = "deploy it by a config, or into a cluster of its own: what is not in ours would be taken away"
        raise ScaleError("an application of others was deployed by a program", hint=hint)
    return {**config.written(), "applications": [*others, *config.written()["applications"]]}


def _wait(cluster: Cluster, config: ServeConfig, within_s: float, progress: Progress) -> str:
    """Why it will not run, in a sentence; "" once all of it does."""
    deadline, seen, said, why = time.monotonic() + within_s, 0, "", ""
    while time.monotonic() < deadline:
        found = cluster.details()["applications"]
        states = [_state(found.get(application.name), application) for application in config.applications]
        bad = next((trouble for status, trouble in states if status in _BAD), "")
        if bad:
            return bad
        seen = seen + 1 if all(status == "RUNNING" for status, _ in states) else 0
        if seen >= _SETTLED:
            return ""
        shown = ", ".join(status for status, _ in states)
        why = next((trouble for _, trouble in states if trouble and trouble not in shown), "")
        if shown != said:
            progress.note(f"  {shown}")
            said = shown
        pause(ASK_EVERY_S)
    return f"after {within_s:.0f} s it is {said}{': ' if why else ''}{why}"


def _state(found: Mapping[str, Any] | None, wanted: Application) -> tuple[str, str]:
    """Status and trouble of an application, as soon as it is the one that was asked for."""
    if found is None or not _has(found.get("deployed_app_config"), wanted.written()):
        return "NOT YET DEPLOYED", ""
    status = str(found.get("status"))
    messages = [found.get("message"), *(one.get("message") for one in found.get("deployments", {}).values())]
    trouble = next((one_line(str(message))[-300:] for message in messages if message), status)
    healthy = all(one.get("status") in ("HEALTHY", None) for one in found.get("deployments", {}).values())
    return (status if status != "RUNNING" or healthy else "UPDATING"), trouble


def _has(taken: Any, wanted: Any) -> bool:
    """Whether Ray has taken all that was asked for: a key that it does not know is left out by it in silence."""
    if isinstance(wanted, Mapping):
        return isinstance(taken, Mapping) and all(key in taken and _has(taken[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return isinstance(taken, list) and len(taken) == len(wanted) and all(map(_has, taken, wanted))
    return bool(taken == wanted)


def _take_back(cluster: Cluster, before: Mapping[str, Any], names: list[str], progress: Progress) -> None:
    """Deploy again what was there: Ray keeps old replicas only until the new ones have come up."""
    config = {name: before[name] for name in ("proxy_location", "http_options") if before.get(name)}
    configs = [one.get("deployed_app_config") for one in before["applications"].values()]
    progress.note(f"taking {', '.join(names)} back")
    cluster.deploy({**config, "applications": [one for one in configs if isinstance(one, dict)]})
    _until(lambda: all(one.get("status") == "RUNNING" for one in cluster.details()["applications"].values()))


def _until(is_done: Callable[[], bool], within_s: float = 120.0) -> None:
    deadline = time.monotonic() + within_s
    while not is_done() and time.monotonic() < deadline:
        pause(ASK_EVERY_S)


def running_replicas(application: Mapping[str, Any]) -> int:
    """Of an application, as the cluster shows it."""
    deployments = application.get("deployments", {}).values()
    states = [one.get("state") for deployment in deployments for one in deployment.get("replicas") or ()]
    return states.count("RUNNING")
