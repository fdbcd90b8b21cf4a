"""What a user names as an image -> Base."""

from __future__ import annotations

from pathlib import Path

from deploytk.base.errors import ImageError, UsageError
from deploytk.base.progress import Progress
from deploytk.image.docker import connected
from deploytk.image.entry import check_entry, check_platform, entry_of
from deploytk.image.exported import daemon_base
from deploytk.image.oci import read_layout
from deploytk.image.reference import parse_reference
from deploytk.image.value import ENTRY, USER, Base

_LARGEST_LOOK_BYTES = 512 * 2**20  # that is fetched only to be looked at


def runnable_base(name: str, output: str, architecture: str | None, progress: Progress) -> Base:
    """The image `name`, in which the app would start; raises ImageError with what it lacks for that."""
    base = find_base(name, progress, keep=output != "daemon")
    check_platform(base, architecture)
    if output == "daemon" and base.is_in_daemon:  # its files stay there
        return base
    if _can_look(base, progress, is_mounted=output == "registry"):
        check_entry(base, entry_of(base, ENTRY, USER), progress)
    return base


def runnable_image(name: str, progress: Progress) -> Base:
    """The image `name` as it is to be pushed, when what it runs is in it; raises ImageError otherwise."""
    base = find_base(name, progress, keep=True)
    check_platform(base)
    entry = entry_of(base)
    if _can_look(base, progress, is_mounted=True):
        check_entry(base, entry, progress)
    return base


def _can_look(base: Base, progress: Progress, *, is_mounted: bool) -> bool:
    """Whether the files of an image are worth reading: not where gigabytes would have to be fetched for that alone."""
    size = sum(layer.size for layer in base.layers if layer.repository)
    if is_mounted and size > _LARGEST_LOOK_BYTES:
        progress.note(
            f"not looked at: whether {base.reference} starts, {size / 2**30:.1f} GiB would have to be fetched"
        )
        return False
    return True


def find_base(name: str, progress: Progress, *, keep: bool) -> Base:
    """The image `name`: oci:DIR[:NAME], one of the Docker daemon, or HOST/NAME:TAG in a registry, in this order.

    `keep` the layers of a daemon's image for outputs elsewhere. Raises ImageError when it is nowhere.
    """
    if name.startswith("oci:"):
        directory, _, chosen = name.removeprefix("oci:").partition(":")
        return read_layout(Path(directory), chosen or None)
    try:
        with connected() as daemon:
            return daemon_base(daemon, name, progress, keep=keep or not daemon.stacks_layers())
    except ImageError as error:
        try:
            parse_reference(name)
        except UsageError:
            raise error from None
        progress.note(f"{name} is asked of its registry: {error}")
    from deploytk.image.registry import read_registry

    return read_registry(name)
