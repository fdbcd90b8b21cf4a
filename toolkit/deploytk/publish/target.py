"""What a target is and says of itself, and which are installed: whoever registers an entry point is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, Protocol, cast, runtime_checkable

from deploytk.base.credentials import Credential
from deploytk.base.errors import UsageError
from deploytk.base.progress import Progress
from deploytk.bundle import Bundle, HubCard
from deploytk.publish.options import NoOptions, PublishOptions
from deploytk.publish.plan import ReleasePlan
from deploytk.publish.platform import Platform
from deploytk.publish.record import Release

GROUP = "deploytk.targets"


@dataclass(frozen=True, slots=True)
class About:
    """What a target says of itself before it is asked to do anything."""

    name: str  # of its entry point
    title: str  # as people write it
    options: type = NoOptions  # a dataclass: its own options, each field Annotated with an Option
    takes: tuple[
        Literal["public", "mirror", "edited_card"], ...
    ] = ()  # options of every target that mean something here
    programs: tuple[str, ...] = ()  # that must be on PATH
    extra: tuple[str, ...] = ()  # of deploytk: its name, and the packages that it brings
    needs: tuple[str, ...] = ()  # what else `doctor` must find well
    credential: Callable[[], Credential] | None = None  # where it would take one from
    platform: Platform | None = None  # of its apps, where that is known
    card: Callable[[str], HubCard] | None = None  # what the card in a repository of that name says of it


@dataclass(frozen=True, slots=True)
class AppRequest:
    """What else is to be done about an app that a target is asked for."""

    is_preflighted: bool  # the hub starts it as `preflight` does: what would queue there is found here
    url: str | None = None  # where it will answer, when somebody else has created it
    wait_s: float = 0.0  # for that


class Target(Protocol):
    """A place that turns a bundle into a release, made with options of its own."""

    @property
    def about(self) -> About: ...

    @property
    def app(self) -> AppRequest | None:
        """None when no app is asked for."""
        ...

    def preview(self, bundle: Bundle, options: PublishOptions) -> ReleasePlan:
        """What `publish` would do; changes nothing."""
        ...

    def publish(self, bundle: Bundle, options: PublishOptions, progress: Progress) -> Release:
        """Upload, make visible in one step, verify; raises ReleaseError when refused, TryAgainError when busy.

        Run again after any interruption it ends in the same remote state as without.
        """
        ...


@runtime_checkable
class ImageTarget(Protocol):
    """A target that takes container images as they are, too."""

    def has_sbom(self) -> bool:
        """Whether what it makes of a bundle holds more than the bundle, which an SBOM beside that lists."""
        ...

    def preview_image(self, image: str, options: PublishOptions) -> ReleasePlan: ...

    def publish_image(self, image: str, options: PublishOptions, progress: Progress) -> Release: ...


class TargetClass(Protocol):
    """What an entry point names."""

    @property
    def about(self) -> About: ...

    def __call__(self, options: Any) -> Target: ...


def installed_targets() -> tuple[str, ...]:
    """The names that `--target` takes; nothing is loaded."""
    return tuple(sorted(_points()))


def target_class(name: str) -> TargetClass:
    """What is registered under `name`; raises UsageError when there is none, or none that can be loaded."""
    points = _points()
    if name not in points:
        raise UsageError(f"there is no target {name!r}", hint=f"installed targets: {', '.join(sorted(points))}")
    try:
        found = points[name].load()
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"the target {name!r} cannot be loaded: {error}", hint=f"reinstall {_package(points[name])}"
        ) from error
    if not isinstance(getattr(found, "about", None), About):
        hint = f"update {_package(points[name])}: a target has `about`, see deploytk.publish.target"
        raise UsageError(f"what is registered as the target {name!r} is none", hint=hint)
    return cast(TargetClass, found)


def loadable_targets() -> Iterator[TargetClass]:
    """The classes of all targets that can be loaded here, by name."""
    for name in installed_targets():
        with suppress(UsageError):
            yield target_class(name)


def find_target(name: str, **options: Any) -> Target:
    """The target that is registered under `name`, made with these options of its own."""
    found = target_class(name)
    return found(found.about.options(**options))


def strictest_platform() -> Platform:
    """The one with the oldest Python, of all that installed targets tell of: an app that runs there runs on others."""
    known = [found.about.platform for found in loadable_targets() if found.about.platform]
    if not known:
        raise UsageError("no installed target tells what its apps run on", hint="name one with --target")
    return min(known, key=lambda platform: (platform.python, platform.memory_bytes))


@cache
def _points() -> dict[str, EntryPoint]:
    """Looked for once: what is installed does not change while we run, and hundreds of packages are asked."""
    return {point.name: point for point in entry_points(group=GROUP)}


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value.partition(".")[0]
