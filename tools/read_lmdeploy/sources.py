"""LMDeploy's source text, version by version: git tags, and wheels for what was released without one."""

from __future__ import annotations

import ast
import re
import subprocess
import zipfile
from pathlib import Path
from typing import Protocol

_RELEASE = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?:\.post(\d+))?")
_OLDEST = (0, 0, 10, 0)  # the first one that the package index has


class UnreadableError(Exception):
    """A source that this program does not understand; its text says what to teach it."""


class Source(Protocol):
    """One release's files."""

    version: str
    has_kernels: bool  # whether the C++ sources are there: wheels have none

    def text(self, path: str) -> str | None: ...

    def names(self, folder: str) -> list[str]: ...


class Tag:
    """A release in a checkout of LMDeploy, work tree or bare."""

    has_kernels = True

    def __init__(self, checkout: Path, name: str) -> None:
        self.version = name.removeprefix("v")
        self._checkout, self._name = checkout, name
        self._names: list[str] | None = None

    def text(self, path: str) -> str | None:
        if path not in self.names(""):
            return None
        return _git(self._checkout, "show", f"refs/tags/{self._name}:{path}")

    def names(self, folder: str) -> list[str]:
        """Paths of the files below `folder`."""
        if self._names is None:
            listed = _git(self._checkout, "ls-tree", "-r", "--name-only", f"refs/tags/{self._name}")
            self._names = listed.splitlines()
        return [name for name in self._names if name.startswith(folder)]


class Wheel:
    """A release as the package index has it."""

    has_kernels = False

    def __init__(self, path: Path) -> None:
        self.version = path.name.split("-")[1]
        self._archive = zipfile.ZipFile(path)

    def text(self, path: str) -> str | None:
        return self._archive.read(path).decode() if path in self._archive.namelist() else None

    def names(self, folder: str) -> list[str]:
        return [name for name in self._archive.namelist() if name.startswith(folder)]


def find_sources(checkout: Path, wheels: list[Path]) -> list[Source]:
    """Every final release, oldest first; a tag wins over a wheel of the same version."""
    tags = [Tag(checkout, name) for name in _git(checkout, "tag").split() if _RELEASE.fullmatch(name)]
    found: dict[str, Source] = {wheel.version: wheel for wheel in map(Wheel, wheels)}
    found |= {tag.version: tag for tag in tags}
    return sorted((s for s in found.values() if age_key(s.version) >= _OLDEST), key=lambda s: age_key(s.version))


def age_key(version: str) -> tuple[int, int, int, int]:
    """Sorts releases: 0.7.0 before 0.7.0.post1 before 0.7.1."""
    match = _RELEASE.fullmatch(version)
    if match is None:
        raise UnreadableError(f"{version} is no version of a final release")
    major, minor, patch, post = (int(part or 0) for part in match.groups())
    return major, minor, patch, post


def parsed(source: Source, *paths: str) -> ast.Module | None:
    """The syntax tree of the first of `paths` that is there; nothing is run."""
    text = next((text for path in paths if (text := source.text(path)) is not None), None)
    return None if text is None else ast.parse(text)


def _git(checkout: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=True).stdout
