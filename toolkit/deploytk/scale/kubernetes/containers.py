"""The rules of the lint about one container, and what of an object a rule looks at."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deploytk.scale.kubernetes.pods import GPU

_QUANTITY = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:m|k|[MGTPE]|[KMGTPE]i)?")
_BY_DIGEST = re.compile(r".+@sha256:[0-9a-f]{64}")
_SECRET = re.compile(r"(?:^|_)(?:KEYS?|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(?:_|$)", re.IGNORECASE)
_OF_THE_HOST = ("hostNetwork", "hostPID", "hostIPC", "hostUsers")


@dataclass(frozen=True, slots=True)
class Workload:
    """What makes Pods."""

    name: str  # with its kind
    spec: Mapping[str, Any]
    pod: Mapping[str, Any]  # the spec of its Pods
    labels: Mapping[str, str]  # of its Pods
    selector: Mapping[str, str]
    replicas: int | None

    @property
    def containers(self) -> Sequence[Mapping[str, Any]]:
        return [*(self.pod.get("initContainers") or ()), *(self.pod.get("containers") or ())]

    @property
    def ports(self) -> set[object]:
        """By number and by name."""
        ports = [port for container in self.containers for port in container.get("ports") or ()]
        return {port.get("containerPort") for port in ports} | {port.get("name") for port in ports} - {None}

    @property
    def has_gpus(self) -> bool:
        return any(GPU in (one.get("resources", {}).get("limits") or {}) for one in self.containers)


def workloads_in(objects: Sequence[Mapping[str, Any]]) -> list[Workload]:
    return [
        Workload(
            name=f"{one['kind']} {one['metadata'].get('name')}",
            spec=one["spec"],
            pod=one["spec"]["template"].get("spec") or {},
            labels=one["spec"]["template"].get("metadata", {}).get("labels") or {},
            selector=one["spec"].get("selector", {}).get("matchLabels") or {},
            replicas=one["spec"].get("replicas"),
        )
        for one in objects
        if isinstance(one.get("spec"), dict) and isinstance(one["spec"].get("template"), dict)
    ]


Container = Mapping[str, Any]


def mounts_and_volumes_belong_together(workload: Workload, container: Container) -> Iterator[str]:
    volumes = {volume.get("name") for volume in workload.pod.get("volumes") or ()}
    mounted = {mount.get("name") for one in workload.containers for mount in one.get("volumeMounts") or ()}
    own = {mount.get("name") for mount in container.get("volumeMounts") or ()}
    yield from (f"it mounts {name}, which is no volume" for name in sorted(own - volumes))
    yield from (f"nobody mounts the volume {name}" for name in sorted(volumes - mounted))
    places = [mount.get("mountPath") for mount in container.get("volumeMounts") or ()]
    yield from (f"two volumes at {place}" for place in sorted({place for place in places if places.count(place) > 1}))


def probes_ask_at_ports(workload: Workload, container: Container) -> Iterator[str]:
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container.get(probe, {}).get("httpGet", {})
        if asked and asked.get("port") not in workload.ports:
            yield f"{probe} asks at {asked.get('port')}, where nothing listens"


def quantities_are_readable(workload: Workload, container: Container) -> Iterator[str]:
    for side in ("requests", "limits"):
        for name, value in (container.get("resources", {}).get(side) or {}).items():
            if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
                yield f"{side} of {name} are {value!r}: write a text such as '4' or '32Gi'"
    for volume in workload.pod.get("volumes") or ():
        size = (volume.get("emptyDir") or {}).get("sizeLimit")
        if size is not None and not _QUANTITY.fullmatch(str(size)):
            yield f"sizeLimit of {volume.get('name')} is {size!r}"


def gpus_are_asked_for_in_full(workload: Workload, container: Container) -> Iterator[str]:  # noqa: ARG001
    resources = container.get("resources", {})
    limit, request = (resources.get("limits") or {}).get(GPU), (resources.get("requests") or {}).get(GPU)
    if limit is None and request is not None:
        yield "GPUs are requested and not limited"
    if limit is not None and request not in (None, limit):
        yield f"{request} GPUs are requested of {limit}: they cannot be overbooked"


def resources_are_set(workload: Workload, container: Container) -> Iterator[str]:  # noqa: ARG001
    resources = container.get("resources", {})
    missing = [name for name in ("cpu", "memory") if name not in (resources.get("requests") or {})]
    yield from (f"no request for {name}" for name in missing)
    if "memory" not in (resources.get("limits") or {}):
        yield "no limit of memory: it can take the node's"


def images_are_named_by_digest(workload: Workload, container: Container) -> Iterator[str]:
    images = [container.get("image")]
    images += [volume["image"].get("reference") for volume in workload.pod.get("volumes") or () if "image" in volume]
    for image in images:
        if not _BY_DIGEST.fullmatch(str(image)):
            yield f"{image} is not named by its digest: what it is can change"


def no_secret_is_written_down(workload: Workload, container: Container) -> Iterator[str]:  # noqa: ARG001
    for entry in container.get("env") or ():
        if entry.get("value") and _SECRET.search(str(entry.get("name"))):
            yield f"{entry['name']} has its value in the file: take secretKeyRef"


def nobody_is_root(workload: Workload, container: Container) -> Iterator[str]:
    context = {**(workload.pod.get("securityContext") or {}), **(container.get("securityContext") or {})}
    if context.get("runAsNonRoot") is not True:
        yield "runAsNonRoot is missing"
    user = context.get("runAsUser")
    if not isinstance(user, int) or user == 0:
        yield f"runAsUser is {user!r}: a number other than 0"


def pods_are_restricted(workload: Workload, container: Container) -> Iterator[str]:
    """The profile `restricted`: https://kubernetes.io/docs/concepts/security/pod-security-standards/."""
    own = container.get("securityContext") or {}
    context = {**(workload.pod.get("securityContext") or {}), **own}
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if own.get("privileged"):
        yield "it is privileged"
    if "ALL" not in (own.get("capabilities", {}).get("drop") or ()):
        yield "not all capabilities are dropped"
    if own.get("capabilities", {}).get("add"):
        yield "capabilities are added"
    if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccompProfile is missing"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "its root file system can be written to"
    yield from (f"{name} is set" for name in _OF_THE_HOST if workload.pod.get(name))
    hosts = [volume.get("name") for volume in workload.pod.get("volumes") or () if "hostPath" in volume]
    yield from (f"the volume {name} is a directory of the node" for name in hosts)
    if workload.pod.get("automountServiceAccountToken") is not False:
        yield "the token of its service account is mounted"


CONTAINER_RULES: tuple[Callable[[Workload, Container], Iterator[str]], ...] = (
    mounts_and_volumes_belong_together,
    probes_ask_at_ports,
    quantities_are_readable,
    gpus_are_asked_for_in_full,
    resources_are_set,
    images_are_named_by_digest,
    no_secret_is_written_down,
    nobody_is_root,
    pods_are_restricted,
)
