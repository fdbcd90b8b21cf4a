"""What a Docker daemon is asked to do."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import DeviceRequest

from deploytk.base.errors import ImageError
from deploytk.image.docker.buildkit import steps_in_trace
from deploytk.image.docker.refusals import failed_build, refused, said

_USER = "10001:10001"
_LONGEST_STEP = 120
_TRIED_WITHIN_S = 60
_LARGEST_TAR_READ = 2**20


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image that a daemon has."""

    image_id: str  # sha256:... of its config
    tags: tuple[str, ...]
    diff_ids: tuple[str, ...]  # of its layers, the lowest first
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Build:
    """What a builder is given."""

    context: IO[bytes]  # a tar
    target: str
    tag: str
    arguments: Mapping[str, str]
    uses_host_network: bool  # for a mirror or proxy on this machine


@dataclass(frozen=True, slots=True)
class RunOptions:
    host: str
    port: int  # of the host
    container_port: int
    environment: Mapping[str, str]
    has_gpu: bool
    gpus: tuple[str, ...] = ()  # those alone, by their UUIDs; () for all

    @property
    def device_requests(self) -> list[DeviceRequest] | None:
        if not self.has_gpu:
            return None
        which = {"device_ids": list(self.gpus)} if self.gpus else {"count": -1}
        return [DeviceRequest(**which, capabilities=[["gpu"]])]


class Daemon:
    """A Docker daemon. Everything raises ImageError, with what the daemon said."""

    def __init__(self, client: docker.APIClient) -> None:
        self._client = client

    def has_buildkit(self) -> bool:
        """Whether the daemon's own choice of a builder is BuildKit."""
        with said("the daemon does not answer"):
            answer = self._client._get(self._client.base_url + "/_ping")  # type: ignore[attr-defined]
            return str(answer.headers.get("Builder-Version", "")) == "2"

    def stacks_layers(self) -> bool:
        """Whether a layer is known by all those below it: in the classic image store, not in containerd's."""
        with said("the daemon does not answer"):
            status = dict(self._client.info().get("DriverStatus") or ())
        return "containerd" not in str(status.get("driver-type", ""))

    def image(self, reference: str) -> StoredImage | None:
        """The image of that name or ID, None when the daemon has none."""
        try:
            with said(f"{reference} cannot be inspected"):
                found = self._client.inspect_image(reference)
        except ImageError as error:
            if isinstance(error.__cause__, (ImageNotFound, NotFound)):
                return None
            raise
        return _stored(found)

    def images(self, label: str) -> tuple[StoredImage, ...]:
        """All images with a label of that name, or with that NAME=VALUE."""
        with said("the daemon does not list its images"):
            listed = self._client.images(filters={"label": label})
            return tuple(_stored(self._client.inspect_image(one["Id"])) for one in listed)

    def config(self, image_id: str) -> dict[str, Any]:
        """What `docker inspect` says about an image."""
        with said(f"{image_id} cannot be inspected"):
            found: dict[str, Any] = self._client.inspect_image(image_id)
            return found

    def build(self, build: Build, on_step: Callable[[str], None]) -> str:
        """Build an image and return its ID; `on_step` gets every step as it begins."""
        is_buildkit = self.has_buildkit()
        events = self._buildkit(build) if is_buildkit else self._classic(build)
        log: list[str] = []
        with said("the image cannot be built"):
            for event in events:
                for step in _steps(event):
                    on_step(step)
                log += str(event.get("stream", "")).splitlines()
                if "error" in event:
                    raise failed_build(str(event["error"]), log)
            found = self._client.inspect_image(build.tag)
        return str(found["Id"])

    def _classic(self, build: Build) -> Iterator[dict[str, Any]]:
        return self._client.build(
            fileobj=build.context,
            custom_context=True,
            target=build.target,
            tag=build.tag,
            buildargs=dict(build.arguments),
            network_mode=self._network(build),
            rm=True,
            forcerm=True,
            decode=True,
        )

    def _network(self, build: Build) -> str | None:
        return "host" if build.uses_host_network or not _has_bridge(self._client) else None

    def _buildkit(self, build: Build) -> Iterator[dict[str, Any]]:
        """The SDK has no BuildKit; the daemon takes it with the same context and `version=2`."""
        parameters = {
            "version": "2",
            "t": build.tag,
            "target": build.target,
            "buildargs": json.dumps(dict(build.arguments)),
            "networkmode": self._network(build) or "default",
            "rm": "true",
        }
        client: Any = self._client
        headers = {"Content-Type": "application/x-tar"}
        answer = client._post(
            client._url("/build"),
            data=build.context,
            params=parameters,
            headers=headers,
            stream=True,
        )
        client._raise_for_status(answer)
        events: Iterator[dict[str, Any]] = client._stream_helper(answer, decode=True)
        return events

    def save(self, reference: str) -> Iterator[bytes]:
        """The image as `docker save` writes it."""
        with said(f"{reference} cannot be saved"):
            yield from self._client.get_image(reference, chunk_size=_LARGEST_TAR_READ)

    def load(self, archive: Iterator[bytes]) -> None:
        """Load an archive, as it is made; raises ImageError with what the daemon said."""
        with said("the image cannot be loaded"):
            for event in self._client.load_image(archive, quiet=True):
                if "error" in event:
                    raise refused(str(event["error"]))

    def remove_image(self, image_id: str) -> None:
        with said(f"{image_id} cannot be removed"):
            self._client.remove_image(image_id, force=True)

    def run(self, image: str, options: RunOptions) -> str:
        """Start a container that can write nothing but /tmp and has no capabilities; returns its ID."""
        with said(f"{image} cannot be run"):
            host = self._client.create_host_config(
                port_bindings={options.container_port: (options.host, options.port)}
                if not self.shares_network()
                else None,
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                tmpfs={"/tmp": "rw,size=2g,mode=1777"},  # noqa: S108 (the container's)
                shm_size="2g",
                init=True,
                device_requests=options.device_requests,
                network_mode="host" if self.shares_network() else None,
            )
            created = self._client.create_container(
                image,
                environment=dict(options.environment),
                ports=[options.container_port],
                host_config=host,
                user=_USER,
                labels={"ai.deploytk.serve.local": "1"},
            )
            container = str(created["Id"])
            try:
                self._client.start(container)
            except BaseException:
                self.remove(container)
                raise
        return container

    def tried(self, image: str, command: tuple[str, ...]) -> tuple[int | None, str]:
        """(exit code, its last words) of a command that runs as a bundle's container does, without a network.

        (None, the daemon's reason) where the container did not start.
        """
        with said(f"{image} cannot be tried"):
            host = self._client.create_host_config(network_mode="none", read_only=True, cap_drop=["ALL"])
            created = self._client.create_container(
                image, list(command[1:]), entrypoint=list(command[:1]), host_config=host, user=_USER
            )
            container = str(created["Id"])
            try:
                self._client.start(container)
                exit_code = int(self._client.wait(container, timeout=_TRIED_WITHIN_S)["StatusCode"])
                return exit_code, self._client.logs(container, tail=1).decode(errors="replace")
            except APIError as error:
                return None, str(error.explanation or error)
            finally:
                self.remove(container)

    def published_port(self, container: str, container_port: int, wanted: int) -> int:
        """The port of the host at which a container is reached; its own where it shares the host's network."""
        with said("the container is gone"):
            found = self._client.inspect_container(container)
        if found["HostConfig"]["NetworkMode"] == "host":
            return wanted or container_port
        return int(found["NetworkSettings"]["Ports"][f"{container_port}/tcp"][0]["HostPort"])

    def shares_network(self) -> bool:
        """Whether containers are on the host's network, as with a daemon that has no bridge."""
        return not _has_bridge(self._client)

    def has_gpus(self) -> bool:
        """Whether containers can be given GPUs."""
        with said("the daemon does not answer"):
            return "nvidia" in (self._client.info().get("Runtimes") or {})

    def state(self, container: str) -> tuple[bool, int | None, str]:
        """(whether it runs, its exit code when it does not, its health)."""
        with said("the container is gone"):
            state = self._client.inspect_container(container)["State"]
        health = str((state.get("Health") or {}).get("Status", ""))
        return bool(state["Running"]), None if state["Running"] else int(state["ExitCode"]), health

    def file(self, container: str, path: str) -> bytes:
        """The content of a file in a container; nothing where there is none."""
        try:
            with said("the container is gone"):
                chunks, _ = self._client.get_archive(container, path)
                with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
                    found = archive.extractfile(archive.getmembers()[0])
                    return found.read() if found else b""
        except ImageError as error:
            if isinstance(error.__cause__, NotFound):
                return b""
            raise

    def logs(self, container: str, *, follow: bool = False) -> Iterator[bytes]:
        with said("the container's output cannot be read"):
            yield from self._client.logs(container, stream=True, follow=follow)

    def remove(self, container: str) -> None:
        """Stop and remove a container; one that is gone is fine."""
        with suppress(DockerException, requests.RequestException):
            self._client.stop(container, timeout=40)
        with suppress(DockerException, requests.RequestException):
            self._client.remove_container(container, force=True, v=True)


def _steps(event: dict[str, Any]) -> Iterator[str]:
    found = re.match(r"Step \d+/\d+ : (.*)", str(event.get("stream", "")))
    if found:
        yield " ".join(found[1].split())[:_LONGEST_STEP]
    if event.get("id") == "moby.buildkit.trace":
        yield from steps_in_trace(str(event.get("aux", "")))


def _stored(found: Mapping[str, Any]) -> StoredImage:
    layers = tuple((found.get("RootFS") or {}).get("Layers") or ())
    labels = (found.get("Config") or {}).get("Labels") or {}
    return StoredImage(str(found["Id"]), tuple(found.get("RepoTags") or ()), layers, labels)


def _has_bridge(client: docker.APIClient) -> bool:
    """A daemon without a bridge has no ports of its own to bind."""
    return any(network["Driver"] == "bridge" for network in client.networks())
