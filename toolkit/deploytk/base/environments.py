"""Python environments of deploytk's own, for packages that cannot share ours: made once, in the cache."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from deploytk.base.cache import cache_directory
from deploytk.base.errors import DeployError, TryAgainError
from deploytk.base.files import disk_errors, locked
from deploytk.base.processes import die_with_parent
from deploytk.base.progress import Progress

_INSTALL_WITHIN_S = 900.0
_DONE = ".complete"


@dataclass(frozen=True, slots=True)
class OwnEnvironment:
    """What is installed, and how its absence is said."""

    package: str  # "openxlab"
    version: str
    raises: type[DeployError]
    hint: str  # what to do where it cannot be installed
    imports: str  # what must work in it: "openxlab.model"
    beside: tuple[str, ...] = ()  # more to install, as pip takes it
    with_dependencies: bool = True
    sees_ours: bool = False  # the packages of this Python as well: torch is not installed twice

    @property
    def place(self) -> Path:
        version = ".".join(map(str, sys.version_info[:2]))
        return cache_directory() / f"{self.package}-{self.version}-python{version}"


def python_of(environment: OwnEnvironment) -> Path | None:
    """The Python of that environment, where it was made before."""
    is_made = (environment.place / _DONE).is_file()
    return environment.place / "bin" / "python" if is_made else None


def own_python(environment: OwnEnvironment, progress: Progress) -> Path:
    """The Python of that environment; made on the first call, which needs a package index."""
    made = python_of(environment)
    if made:
        return made
    place = environment.place
    python = place / "bin" / "python"
    lock = place.with_name(f".{place.name}.lock")
    with disk_errors(place, environment.raises), locked(lock, f"the environment of {environment.package}"):
        shutil.rmtree(place, ignore_errors=True)
        progress.note(f"installing {environment.package} {environment.version} into {place}, once")
        _run(environment, [sys.executable, "-I", "-m", "venv", str(place)])
        if environment.sees_ours:
            _show_ours(place)
        _run(environment, [*_pip(python, environment), *_requirements(environment)])
        _run(environment, [str(python), "-I", "-c", f"import {environment.imports}"])
        (place / _DONE).touch()
    return python


def _requirements(environment: OwnEnvironment) -> list[str]:
    return [f"{environment.package}=={environment.version}", *environment.beside]


def _pip(python: Path, environment: OwnEnvironment) -> list[str]:
    command = [str(python), "-I", "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    return command if environment.with_dependencies else [*command, "--no-deps"]


def _show_ours(place: Path) -> None:
    """Every directory that this Python has packages in; editable packages are in none of them."""
    ours = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    home = next(place.glob("lib/python*/site-packages"))
    (home / "ours.pth").write_text("".join(f"{path}\n" for path in ours), encoding="utf-8")


def _run(environment: OwnEnvironment, command: list[str]) -> None:
    what = f"{environment.package} {environment.version}"
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_INSTALL_WITHIN_S, check=False,
            stdin=subprocess.DEVNULL, preexec_fn=die_with_parent,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise TryAgainError(
            f"{what} was not installed in {_INSTALL_WITHIN_S:.0f} s", hint="run again; a mirror helps: PIP_INDEX_URL"
        ) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise environment.raises(f"{what} cannot be installed: {last[:300]}", hint=environment.hint)
