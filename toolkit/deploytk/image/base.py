"""What a user names as an image -> Base."""

from __future__ import annotations

import re
from pathlib import Path

from deploytk.base.cache import cache_directory
from deploytk.base.errors import ImageError, UsageError
from deploytk.base.files import disk_errors, write_text
from deploytk.base.progress import Progress
from deploytk.image.docker import connected
from deploytk.image.entry import ENTRY, LEAST_PYTHON, check_entry, check_platform, entry_of
from deploytk.image.exported import daemon_base
from deploytk.image.oci import read_layout
from deploytk.image.reference import parse_reference
from deploytk.image.value import USER, Base

_TOO_OLD = 3
_ASKED = f"import sys; sys.exit({_TOO_OLD} if sys.version_info < {LEAST_PYTHON} else 0)"
_ITS_OWN = re.compile(r"executable file not found|no such file or directory|exec format error|permission denied")
_OTHER = "give it Python as `python` on PATH, for every user, or name another image with --base"
_LARGEST_LOOK_BYTES = 512 * 2**20  # that is fetched only to be looked at


def runnable_base(name: str, output: str, architecture: str | None, progress: Progress) -> Base:
    """The image `name`, in which the app would start; raises ImageError with what it lacks for that."""
    base = find_base(name, progress, keep=output != "daemon")
    check_platform(base, architecture)
    if base.is_in_daemon:
        _try(name, base.image_id, progress)
    elif _can_look(base, progress, is_mounted=output == "registry"):
        check_entry(base, entry_of(base, ENTRY, USER), progress)
    return base


def _try(name: str, image_id: str, progress: Progress) -> None:
    """Start Python in a container of the daemon's image; ImageError where that cannot be done, or it is too old.

    Of an image that has started it, which is known by its digest, that is remembered.
    """
    started = cache_directory() / "runtimes" / f"{image_id.removeprefix('sha256:')}.starts"
    if started.is_file() and started.read_text(encoding="utf-8") == _ASKED:
        return
    progress.note(f"trying whether {name} starts {ENTRY[0]}")
    with connected() as daemon:
        exit_code, reason = daemon.tried(name, (ENTRY[0], "-I", "-c", _ASKED))
    if exit_code == _TOO_OLD:
        needed = ".".join(map(str, LEAST_PYTHON))
        raise ImageError(f"the Python of {name} is too old: the app needs {needed}", hint=_OTHER)
    what = " ".join(reason.split())[-160:] or f"it ended with {exit_code}"
    if exit_code is None and not _ITS_OWN.search(reason):  # the daemon's trouble, not the image's
        progress.note(f"not known: whether {name} starts {ENTRY[0]}: {what}")
    elif exit_code != 0:
        raise ImageError(f"{name} does not start {ENTRY[0]}: {what}", hint=_OTHER)
    else:
        with disk_errors(started, ImageError):
            started.parent.mkdir(parents=True, exist_ok=True)
            write_text(started, _ASKED)


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
    from deploytk.image.registry.pull import read_registry

    return read_registry(name)
