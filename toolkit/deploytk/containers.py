"""Owner of the Docker SDK: the daemon, its builder, its images and containers."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import DeviceRequest

from deploytk.build_trace import steps_in_trace
from deploytk.errors import ImageError

_ANSWER_WITHIN_S = 5
_API_VERSION = "1.41"  # of Docker 20.10, the oldest that is supported
_USER = "10001:10001"
_LONGEST_STEP = 120
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


@contextmanager
def connected() -> Iterator[Daemon]:
    """The daemon that DOCKER_HOST names, or the local one; raises ImageError when none answers or it refuses us."""
    try:
        _knock()
        # Without a limit of time: loading and building gigabytes takes as long as it takes.
        client = docker.APIClient(**_where(), version=_API_VERSION, timeout=None)  # type: ignore[arg-type]
    except (DockerException, OSError) as error:
        raise _unreachable(error) from error
    try:
        yield Daemon(client)
    finally:
        client.close()


def daemon_version() -> str:
    """Version and API version of the Docker daemon; raises ImageError when none answers."""
    try:
        _knock()
        client = docker.from_env(version=_API_VERSION, timeout=_ANSWER_WITHIN_S)
        try:
            version = client.version()
        finally:
            client.close()
    except (DockerException, OSError) as error:
        raise _unreachable(error) from error
    return f"Docker {version.get('Version')}, API {version.get('ApiVersion')}"


class Daemon:
    """A Docker daemon. Everything raises ImageError, with what the daemon said."""

    def __init__(self, client: docker.APIClient) -> None:
        self._client = client

    def has_buildkit(self) -> bool:
        """Whether the daemon's own choice of a builder is BuildKit."""
        with _said("the daemon does not answer"):
            answer = self._client._get(self._client.base_url + "/_ping")  # type: ignore[attr-defined]
            return str(answer.headers.get("Builder-Version", "")) == "2"

    def stacks_layers(self) -> bool:
        """Whether a layer is known by all those below it: in the classic image store, not in containerd's."""
        with _said("the daemon does not answer"):
            status = dict(self._client.info().get("DriverStatus") or ())
        return "containerd" not in str(status.get("driver-type", ""))

    def image(self, reference: str) -> StoredImage | None:
        """The image of that name or ID, None when the daemon has none."""
        try:
            with _said(f"{reference} cannot be inspected"):
                found = self._client.inspect_image(reference)
        except ImageError as error:
            if isinstance(error.__cause__, (ImageNotFound, NotFound)):
                return None
            raise
        return _stored(found)

    def images(self, label: str) -> tuple[StoredImage, ...]:
        """All images with a label of that name, or with that NAME=VALUE."""
        with _said("the daemon does not list its images"):
            listed = self._client.images(filters={"label": label})
            return tuple(_stored(self._client.inspect_image(one["Id"])) for one in listed)

    def config(self, image_id: str) -> dict[str, Any]:
        """What `docker inspect` says about an image."""
        with _said(f"{image_id} cannot be inspected"):
            found: dict[str, Any] = self._client.inspect_image(image_id)
            return found

    def build(self, build: Build, on_step: Callable[[str], None]) -> str:
        """Build an image and return its ID; `on_step` gets every step as it begins."""
        is_buildkit = self.has_buildkit()
        events = self._buildkit(build) if is_buildkit else self._classic(build)
        log: list[str] = []
        with _said("the image cannot be built"):
            for event in events:
                for step in _steps(event):
                    on_step(step)
                log += str(event.get("stream", "")).splitlines()
                if "error" in event:
                    raise _failed_build(str(event["error"]), log)
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
        with _said(f"{reference} cannot be saved"):
            yield from self._client.get_image(reference, chunk_size=_LARGEST_TAR_READ)

    def load(self, archive: Iterator[bytes]) -> None:
        """Load an archive, as it is made; raises ImageError with what the daemon said."""
        with _said("the image cannot be loaded"):
            for event in self._client.load_image(archive, quiet=True):
                if "error" in event:
                    raise _refused(str(event["error"]))

    def remove_image(self, image_id: str) -> None:
        with _said(f"{image_id} cannot be removed"):
            self._client.remove_image(image_id, force=True)

    def run(self, image: str, options: RunOptions) -> str:
        """Start a container that can write nothing but /tmp and has no capabilities; returns its ID."""
        with _said(f"{image} cannot be run"):
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
                device_requests=[DeviceRequest(count=-1, capabilities=[["gpu"]])] if options.has_gpu else None,
                network_mode="host" if self.shares_network() else None,
            )
            created = self._client.create_container(
                image,
                environment=dict(options.environment),
                ports=[options.container_port],
                host_config=host,
                user=_USER,
                labels={"ai.deploytk.preview": "1"},
            )
            container = str(created["Id"])
            try:
                self._client.start(container)
            except BaseException:
                self.remove(container)
                raise
        return container

    def published_port(self, container: str, container_port: int, wanted: int) -> int:
        """The port of the host at which a container is reached; its own where it shares the host's network."""
        with _said("the container is gone"):
            found = self._client.inspect_container(container)
        if found["HostConfig"]["NetworkMode"] == "host":
            return wanted or container_port
        return int(found["NetworkSettings"]["Ports"][f"{container_port}/tcp"][0]["HostPort"])

    def shares_network(self) -> bool:
        """Whether containers are on the host's network, as with a daemon that has no bridge."""
        return not _has_bridge(self._client)

    def has_gpus(self) -> bool:
        """Whether containers can be given GPUs."""
        with _said("the daemon does not answer"):
            return "nvidia" in (self._client.info().get("Runtimes") or {})

    def state(self, container: str) -> tuple[bool, int | None, str]:
        """(whether it runs, its exit code when it does not, its health)."""
        with _said("the container is gone"):
            state = self._client.inspect_container(container)["State"]
        health = str((state.get("Health") or {}).get("Status", ""))
        return bool(state["Running"]), None if state["Running"] else int(state["ExitCode"]), health

    def file(self, container: str, path: str) -> bytes:
        """The content of a file in a container; nothing where there is none."""
        try:
            with _said("the container is gone"):
                chunks, _ = self._client.get_archive(container, path)
                with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
                    found = archive.extractfile(archive.getmembers()[0])
                    return found.read() if found else b""
        except ImageError as error:
            if isinstance(error.__cause__, NotFound):
                return b""
            raise

    def logs(self, container: str, *, follow: bool = False) -> Iterator[bytes]:
        with _said("the container's output cannot be read"):
            yield from self._client.logs(container, stream=True, follow=follow)

    def remove(self, container: str) -> None:
        """Stop and remove a container; one that is gone is fine."""
        with suppress(DockerException, requests.RequestException):
            self._client.stop(container, timeout=40)
        with suppress(DockerException, requests.RequestException):
            self._client.remove_container(container, force=True, v=True)


def _where() -> dict[str, Any]:
    from docker.utils import kwargs_from_env

    return dict(kwargs_from_env())


def _knock() -> None:
    """Raises OSError when nobody is at the daemon's socket; the SDK would leave a socket of its own open."""
    host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as knocking:
            knocking.settimeout(_ANSWER_WITHIN_S)
            knocking.connect(host.removeprefix("unix://"))


def _unreachable(error: Exception) -> ImageError:
    if isinstance(error, PermissionError):
        hint = "add the user to the group docker, or use a rootless daemon and name its socket in DOCKER_HOST"
        return ImageError("the Docker daemon's socket may not be used by this user", hint=hint)
    hint = "start dockerd, or name its socket in DOCKER_HOST; the user needs the right to use it"
    return ImageError(f"no Docker daemon answers: {_reason(error)}", hint=hint)


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Turn the SDK's exceptions into one sentence and a way out."""
    try:
        yield
    except APIError as error:
        raise _refused(str(error.explanation or error), what) from error
    except (DockerException, requests.RequestException, OSError) as error:
        raise ImageError(f"{what}: {_reason(error)}", hint="look at the daemon's own log, then run again") from error


def _refused(reason: str, what: str = "the daemon refuses") -> ImageError:
    text = " ".join(reason.split())[:300]
    if "no space left on device" in text:
        return ImageError("the disk of the Docker daemon is full", hint="docker system prune, then run again")
    if "invalid reference format" in text or "invalid tag" in text:
        return ImageError(f"{what}: {text}", hint="a name is lower case: NAME:TAG or HOST/NAME:TAG")
    return ImageError(f"{what}: {text}", hint="look at the daemon's own log, then run again")


def _failed_build(reason: str, log: list[str]) -> ImageError:
    if "no space left on device" in reason:
        return _refused(reason)
    end = "\n".join(f"  {line[:300]}" for line in [line for line in log if line.strip()][-15:])
    text = " ".join(reason.split())[:300]
    hint = "the lines above are the end of the build; behind a proxy give --ca-cert, without a network --wheels"
    return ImageError(f"the image cannot be built: {text}\n{end}".rstrip(), hint=hint)


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


def _reason(error: Exception) -> str:
    """The innermost cause, which the SDK wraps several times."""
    cause: BaseException = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__ or cause
    return str(cause).strip("()'\"")[:200]
