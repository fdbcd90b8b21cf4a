"""Code that comes with a model: named whatever its kind, because somebody's Python may import it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from deploytk import app
from deploytk.artifact.tree import FileEntry
from deploytk.artifact.value import Problem

_OWN = Path(app.__file__).parent
_START, _ROOM = "app.py", "deploytk_app/"

# Suffixes in lower case -> what that is.
_KINDS = {
    (".py", ".pyw"): "Python code",
    (".pyc", ".pyo"): "compiled Python code",
    (".so", ".pyd", ".dll", ".dylib"): "a compiled library, which Python imports as a module",
    (".pth",): "a path file, of which Python runs lines where it is installed",
    (".whl", ".egg", ".pyz"): "an archive of Python code",
}
_METADATA = (".dist-info/", ".egg-info/")  # what importlib.metadata finds plugins by
_PICKLES = (b"PK\x03\x04", b"\x80")  # what torch writes under the suffix of a path file
_START_BYTES = 2**16

_HINT = (
    "deploytk and its app import none of it; LMDeploy runs what auto_map names, from 0.13.0 on with --trust-remote-code"
    " alone: read it before you publish or serve the model"
)


def code_problems(root: Path, entries: Sequence[FileEntry]) -> Iterator[Problem]:
    """A warning for every kind of file that Python can import, naming the first; what deploytk wrote is none of it."""
    found = [entry for entry in entries if entry.is_reachable and not _is_own(root, entry)]
    for suffixes, what in _KINDS.items():
        code = [entry.path for entry in found if entry.name.lower().endswith(suffixes) and not _is_pickle(root, entry)]
        yield from _about(code, f"is {what} that comes with the model")
    modules = tuple(suffix for suffixes in list(_KINDS)[:3] for suffix in suffixes)
    packages = {entry.path.rpartition("/")[0] for entry in found if entry.path.lower().endswith(modules)} - {""}
    yield from _about(sorted(f"{package}/" for package in packages), "is a package of code that comes with the model")
    metadata = [entry.path for entry in found if any(mark in entry.path for mark in _METADATA)]
    yield from _about(metadata, "tells Python of an installed package that comes with the model")


def _about(paths: Sequence[str], what: str) -> Iterator[Problem]:
    if paths:
        more = f" (and {len(paths) - 1} more like it)" if len(paths) > 1 else ""
        yield Problem("warning", f"{paths[0]} {what}{more}", _HINT)


def _is_own(root: Path, entry: FileEntry) -> bool:
    """Whether that is a file of deploytk's app, byte for byte, in its place in a bundle."""
    if entry.path == _START:
        own = _OWN / "start.py"
    elif entry.path.startswith(_ROOM):
        own = _OWN / entry.path.removeprefix(_ROOM)
    else:
        return False
    try:
        return own.is_file() and own.read_bytes() == (root / entry.path).read_bytes()
    except OSError:
        return False


def _is_pickle(root: Path, entry: FileEntry) -> bool:
    """Whether a .pth is tensors, as most are; they are named as pickles."""
    if not entry.name.lower().endswith(".pth"):
        return False
    try:
        with (root / entry.path).open("rb") as file:
            start = file.read(_START_BYTES)
    except OSError:
        return False
    return start.startswith(_PICKLES) and not re.search(rb"^import\s", start, re.MULTILINE)
