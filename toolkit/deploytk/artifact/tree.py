"""Walks a model directory: which files are there, and which of them belong to the model."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from deploytk.base.errors import ArtifactError

# Written by calibration (`lmdeploy lite`) and by trainers; no server reads them.
_LEFTOVERS = (
    "*_stats.pth",
    "optimizer*.pt",
    "scheduler.pt",
    "rng_state*.pth",
    "training_args.bin",
    "adapter_config.json",
    "adapter_model.*",
    "trainer_state.json",
    "events.out.tfevents.*",
    "*.log",
    "*.tmp",
    "*.lock",
    "*.pyc",
)

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")

# Weights for other frameworks, and archives: LMDeploy reads none of them.
_FOREIGN = (".gguf", ".ggml", ".onnx", ".h5", ".msgpack", ".tflite", ".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")

_DEEPEST = 32  # directories; a model has at most four


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file, or a link that should have been one."""

    path: str  # relative to the root, with /
    bytes: int
    mode: int  # permission bits; of the target when it is a link
    link: str | None  # where a link points to; None for a plain file
    is_reachable: bool  # False for a link that leaves the directory or leads nowhere

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def is_leftover(self) -> bool:
        return any(fnmatch(self.name, pattern) for pattern in _LEFTOVERS)

    @property
    def is_pickle(self) -> bool:
        return self.name.endswith(_PICKLES)

    @property
    def is_foreign(self) -> bool:
        return self.name.lower().endswith(_FOREIGN)

    @property
    def has_plain_name(self) -> bool:
        """Whether the name is printable text: it goes into manifests, Dockerfiles and terminals."""
        return self.path.isprintable()

    @property
    def may_belong(self) -> bool:
        """Whether a server could need this file; pickles are for the layout to judge."""
        return self.is_reachable and self.has_plain_name and not self.is_leftover and not self.is_foreign


def walk(root: Path) -> tuple[FileEntry, ...]:
    """Every file below `root`, sorted by path; hidden files and links to directories are left out.

    A workspace's links to directories serve tritonserver alone and would count its weights twice.
    """
    try:
        return tuple(sorted(_below(root, "", link_homes(root), _DEEPEST), key=lambda entry: entry.path))
    except OSError as error:
        raise ArtifactError(
            f"{error.filename or root} cannot be read: {error.strerror}", hint="check the directory and its rights"
        ) from error


def link_homes(root: Path) -> tuple[str, ...]:
    """Directories that links may point into, each with a / at the end.

    The root, the blobs of the same model in Hugging Face's cache, and where whoever starts us keeps the files: a
    container what it fetched, `serve` the model. Never the cache as a whole: it has what other models keep private.
    """
    resolved = root.resolve()
    homes = [resolved]
    if resolved.parent.name == "snapshots" and resolved.parents[1].name.startswith("models--"):
        homes.append(resolved.parents[1] / "blobs")
    given = os.environ.get("DEPLOYTK_WEIGHTS", "").split(os.pathsep)
    homes += [Path(place).resolve() for place in given if place]
    return tuple(f"{home}{os.sep}" for home in homes)


def _below(directory: Path, prefix: str, homes: tuple[str, ...], levels: int) -> Iterator[FileEntry]:
    if not levels:
        raise ArtifactError(
            f"{directory} is nested deeper than {_DEEPEST} directories", hint="name the directory of the model itself"
        )
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__pycache__":
                continue
            path = prefix + entry.name
            if entry.is_symlink():
                found = _link(entry, path, homes)
                if found:
                    yield found
            elif entry.is_dir(follow_symlinks=False):
                yield from _below(Path(entry.path), f"{path}/", homes, levels - 1)
            else:
                status = entry.stat(follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode):
                    raise ArtifactError(
                        f"{entry.path} is neither a file nor a directory", hint="remove it: a model is made of files"
                    )
                yield FileEntry(path, status.st_size, stat.S_IMODE(status.st_mode), None, True)


def _link(entry: os.DirEntry[str], path: str, homes: tuple[str, ...]) -> FileEntry | None:
    target = str(Path(entry.path).readlink())
    resolved = os.path.realpath(entry.path)
    if not Path(resolved).exists() or not resolved.startswith(homes):
        return FileEntry(path, 0, 0, target, False)
    status = Path(resolved).stat()
    if not stat.S_ISREG(status.st_mode):
        return None
    return FileEntry(path, status.st_size, stat.S_IMODE(status.st_mode), target, True)
