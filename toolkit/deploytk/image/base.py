"""What a user names as an image -> Base."""

from __future__ import annotations

from pathlib import Path

from deploytk.base.errors import ImageError, UsageError
from deploytk.base.progress import Progress
from deploytk.image.docker import connected
from deploytk.image.exported import daemon_base
from deploytk.image.oci import read_layout
from deploytk.image.reference import parse_reference
from deploytk.image.value import Base


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
