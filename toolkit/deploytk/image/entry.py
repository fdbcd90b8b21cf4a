"""Whether an image would start: what it runs is looked for in its configuration and its files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploytk.base.cache import cache_directory
from deploytk.base.errors import ImageError
from deploytk.base.files import write_text
from deploytk.base.progress import Progress
from deploytk.bundle import START
from deploytk.image.program import read_program
from deploytk.image.tree import Found, Tree, read_tree
from deploytk.image.value import Base

ENTRY = ("python", "-I", "-u", "-B", START)
"""What a container runs; isolated, because /bundle is the working directory and holds the model's files."""

LEAST_PYTHON = (3, 8)
"""The oldest Python that the generated app runs on."""

_RULES = 1  # raised when more is looked at: what passed is remembered by it
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # Docker's, where an image has none
_MOST_INTERPRETERS = 4
_OTHER = "name another image with --base"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a container of an image runs."""

    command: tuple[str, ...]
    path: str  # where programs are looked for
    uid: int | None = None  # who runs it; None where that is not known

    @property
    def is_python(self) -> bool:
        return bool(re.fullmatch(r"(.*/)?python[\d.]*", self.command[0]))


def entry_of(base: Base, command: tuple[str, ...] | None = None, uid: int | None = None) -> Entry:
    """`command` in a container of this image, or what the image runs itself; ImageError where that is nothing."""
    run = json.loads(base.config).get("config") or {}
    found = command or tuple(run.get("Entrypoint") or ()) + tuple(run.get("Cmd") or ())
    if not found:
        hint = "give it an ENTRYPOINT, or publish a bundle or a model directory"
        raise ImageError(f"{base.reference} starts nothing: it has neither ENTRYPOINT nor CMD", hint=hint)
    environment: Mapping[str, str] = dict(one.partition("=")[::2] for one in run.get("Env") or ())
    program = found[0] if found[0].startswith("/") or "/" not in found[0] else _in_place(run, found[0])
    return Entry((program, *found[1:]), environment.get("PATH") or _DEFAULT_PATH, uid)


def check_platform(base: Base, architecture: str | None = None) -> None:
    """Raise ImageError for an image that is not for Linux, or not for `architecture` where one is needed."""
    config = json.loads(base.config)
    system, machine = config.get("os") or "linux", config.get("architecture") or "amd64"
    if system != "linux":
        raise ImageError(f"{base.reference} is an image for {system}", hint="name a Linux image with --base")
    if architecture and machine != architecture:
        hint = f"name one for linux/{architecture}, the platform of LMDeploy's wheels and of the hubs' GPUs"
        raise ImageError(f"{base.reference} is an image for linux/{machine}", hint=hint)


def check_entry(base: Base, entry: Entry, progress: Progress) -> None:
    """Raise ImageError, with what is missing, when a container of this image would end before its first line.

    All layers are read for it, once per image.
    """
    mark = _mark(base, entry)
    if mark.is_file():
        return
    progress.note(f"looking into {base.reference}: would it start {entry.command[0]}?")
    tree = read_tree(base.layers)
    found = _program(tree, base, entry)
    _check_file(tree, base, entry, found)
    with contextlib.suppress(OSError):
        mark.parent.mkdir(parents=True, exist_ok=True)
        write_text(mark, "")


def _mark(base: Base, entry: Entry) -> Any:
    name = hashlib.sha256(repr((_RULES, base.image_id, entry)).encode()).hexdigest()
    return cache_directory() / "entries" / name


def _in_place(run: Mapping[str, Any], program: str) -> str:
    return f"{str(run.get('WorkingDir') or '').rstrip('/')}/{program}"


def _program(tree: Tree, base: Base, entry: Entry) -> Found:
    """The file that the command's first word means, to the user who runs it."""
    name, refused = entry.command[0], ""
    for place in [name] if "/" in name else [f"{directory}/{name}" for directory in entry.path.split(":")]:
        found = tree.find(place, entry.uid)
        if found is None or found.node.children is not None:
            continue
        if found.closed is None and found.node.is_executable_by(entry.uid):
            return found
        what = f"{found.closed} is closed to it" if found.closed else "it is not executable"
        refused = refused or f"{base.reference}: {place} cannot be run by user {entry.uid}: {what}"
    if refused:
        raise ImageError(refused, hint="install it where every user may run it, or " + _OTHER)
    where = "" if "/" in name else f" on its PATH ({entry.path})"
    raise ImageError(f"{base.reference} has no {name}{where}", hint=_way_to(tree, entry))


def _way_to(tree: Tree, entry: Entry) -> str:
    """What to do where there is no `python`: mostly there is a `python3`."""
    if entry.is_python:
        for directory in [*entry.path.split(":"), "/opt/py3/bin", "/opt/conda/bin", "/opt/venv/bin", "/usr/local/bin"]:
            for name in ("python", "python3"):
                if tree.find(f"{directory}/{name}"):
                    return f"it has {directory}/{name}: add a link called python on PATH, or {_OTHER}"
    return f"install it in the image, or {_OTHER}"


def _check_file(tree: Tree, base: Base, entry: Entry, found: Found) -> None:
    """That Linux starts the file: a script's interpreter, the machine, the loader of libc, all libraries."""
    version = re.search(r"/python(\d+)\.(\d+)$", found.path)
    if entry.is_python and version and (int(version[1]), int(version[2])) < LEAST_PYTHON:
        least = ".".join(map(str, LEAST_PYTHON))
        what = f"Python {version[1]}.{version[2]}, and the app needs {least}"
        raise ImageError(f"{base.reference} has {what}", hint=_OTHER)
    machine = json.loads(base.config).get("architecture") or "amd64"
    for _ in range(_MOST_INTERPRETERS):
        program = read_program(tree.content(found.node))
        if program is None:
            raise ImageError(f"{base.reference}: {found.path} is no program that Linux starts", hint=_OTHER)
        if program.machine not in (None, machine):
            what = f"{found.path} is for {program.machine}, and the image says {machine}"
            raise ImageError(f"{base.reference}: {what}", hint=_OTHER)
        missing = [name for name in program.libraries if not tree.has_file_called(name)]
        missing += [place for place in program.interpreter[:1] if tree.find(place) is None]
        if missing:
            hint = f"install the packages that have them in the image, or {_OTHER}"
            raise ImageError(f"{base.reference}: {found.path} needs {', '.join(missing)}, not in the image", hint=hint)
        if program.machine is not None:
            return
        found = _interpreter(tree, base, entry, program.interpreter)
    raise ImageError(f"{base.reference}: {entry.command[0]} is a script of a script without end", hint=_OTHER)


def _interpreter(tree: Tree, base: Base, entry: Entry, line: tuple[str, ...]) -> Found:
    """What a script's first line names; `env` looks on PATH."""
    words = line[1].split() if len(line) > 1 else []
    named = [word for word in words if not word.startswith("-")]
    name = named[0] if line[0].endswith("/env") and named else line[0]
    return _program(tree, base, Entry((name,), entry.path, entry.uid))
