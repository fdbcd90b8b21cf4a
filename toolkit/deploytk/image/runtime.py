"""The runtime image: everything but the bundle, built once by a builder from a context of kilobytes."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from deploytk import lmdeploy
from deploytk.base.errors import ImageError
from deploytk.base.progress import Progress
from deploytk.base.shipped import shipped
from deploytk.bundle import ROOM, Bundle
from deploytk.image.base import find_base, runnable_base
from deploytk.image.docker import Build, Daemon, connected
from deploytk.image.value import RUNTIME, Base, BuildOptions

_WITHOUT_DOCKER = "without Docker name a runtime that is there, --base oci:DIR, and an --output other than daemon"
_OWN_CODE = f"{ROOM}/source"

_OF_EVERY_BUILD = ("ALL_PROXY", "FTP_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""Arguments that builders take without an ARG: https://docs.docker.com/reference/dockerfile/#predefined-args"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What goes into a runtime image."""

    dockerfile: str  # in images/
    files: Mapping[str, bytes]  # path in the context -> content
    arguments: Mapping[str, str]

    def takes(self, name: str, value: str) -> bool:
        """Whether a builder does something with that: the Dockerfile has it, and we do not set it ourselves."""
        text = self.files["Dockerfile"].decode()
        is_declared = re.search(rf"^ARG {re.escape(name)}\b", text, re.MULTILINE) is not None
        return name.upper() in _OF_EVERY_BUILD or (is_declared and self.arguments.get(name) == value)

    @property
    def digest(self) -> str:
        """Of everything that decides what comes out; certificates and wheels only help on the way there."""
        parts = [self.dockerfile, *(f"{name}={value}" for name, value in sorted(self.arguments.items()))]
        parts += [f"{path} {hashlib.sha256(content).hexdigest()}" for path, content in sorted(self.files.items())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def runtime_base(bundle: Bundle, options: BuildOptions, progress: Progress) -> Base:
    """The image that the bundle goes on: the one that was named, or the one for its engine, built when it is missing.

    Raises ImageError, with the end of the build's log.
    """
    keep = options.output != "daemon"
    if options.base:
        architecture = "amd64" if bundle.manifest.plan.lmdeploy else None
        return runnable_base(options.base, options.output, architecture, progress)
    with connected(_WITHOUT_DOCKER) as daemon:
        recipe = recipe_for(bundle, options)
        tag = f"{RUNTIME}:{recipe.digest[:16]}"
        if daemon.image(tag) is None:
            _build(daemon, recipe, tag, options, progress)
        else:
            progress.note(f"runtime {tag} is there already: nothing that goes into it has changed")
    return find_base(tag, progress, keep=keep)


def recipe_for(bundle: Bundle, options: BuildOptions) -> Recipe:
    """Dockerfile, locked requirements and arguments for the engine of a bundle."""
    arguments = {name: value for name, value in options.arguments.items() if value}
    version = bundle.manifest.plan.lmdeploy
    if version is None:
        if options.wheels and any(options.wheels.glob("torch-*")):
            arguments.setdefault("TORCH_INDEX_URL", "")
        files = {"requirements.txt": _locked("cpu"), **_own_code()}
        return _recipe("cpu.Dockerfile", files, arguments)
    files = {"requirements.txt": _locked("app")}
    arguments["LMDEPLOY_VERSION"] = version
    base = lmdeploy.legacy_base(version)
    if base is None and options.variant == "official":
        return _recipe("lmdeploy.Dockerfile", files, arguments)
    if base:
        arguments.setdefault("BASE_IMAGE", base)
    lock = shipped("images") / "requirements" / f"lmdeploy-{version}.txt"
    if lock.is_file():
        files[f"{ROOM}/lmdeploy-lock.txt"] = lock.read_bytes()
    return _recipe("lmdeploy-pip.Dockerfile", files, arguments)


def _recipe(dockerfile: str, files: Mapping[str, bytes], arguments: Mapping[str, str]) -> Recipe:
    content = (shipped("images") / dockerfile).read_bytes()
    return Recipe(dockerfile, {**files, "Dockerfile": content}, arguments)


def _locked(name: str) -> bytes:
    return (shipped("images") / "requirements" / f"{name}.txt").read_bytes()


def _own_code() -> dict[str, bytes]:
    """Our own modules, for the CPU engine: no package index has them before they are released."""
    package = Path(__file__).parents[1]
    kept = (path for path in sorted(package.rglob("*")) if path.suffix in (".py", ".yaml", ".j2", ".json"))
    left_out = ("images", "models", "templates", "__pycache__")
    return {
        f"{_OWN_CODE}/deploytk/{path.relative_to(package)}": path.read_bytes()
        for path in kept
        if path.relative_to(package).parts[0] not in left_out
    }


def _build(daemon: Daemon, recipe: Recipe, tag: str, options: BuildOptions, progress: Progress) -> None:
    progress.note(f"building the runtime {tag} from {recipe.dockerfile}")
    arguments = {**recipe.arguments}
    if options.wheels and options.is_offline:
        arguments["PIP_NO_INDEX"] = "1"
    with _context(recipe, options) as context:
        daemon.build(Build(context, "runtime", tag, arguments, options.uses_host_network), progress.note)


@contextmanager
def _context(recipe: Recipe, options: BuildOptions) -> Iterator[IO[bytes]]:
    """The context as a tar: the recipe's files, and what only helps to install."""
    helpers: dict[str, Path] = {}
    certificate = options.ca_certificate or _ca_of_environment()
    if certificate:
        helpers[f"{ROOM}/ca-certificate.crt"] = certificate
    if options.wheels:
        found = sorted(options.wheels.glob("*.whl"))
        if not found:
            raise ImageError(f"{options.wheels} holds no wheels", hint="pip download -d DIR what is needed")
        helpers |= {f"{ROOM}/wheels/{wheel.name}": wheel for wheel in found}
    with tempfile.TemporaryFile() as buffer:  # wheels can be large
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.addfile(_room())
            for path, content in recipe.files.items():
                archive.addfile(_entry(path, len(content)), io.BytesIO(content))
            for path, source in helpers.items():
                _add(archive, path, source)
        buffer.seek(0)
        yield buffer


def _add(archive: tarfile.TarFile, path: str, source: Path) -> None:
    try:
        with source.open("rb") as file:
            archive.addfile(_entry(path, source.stat().st_size), file)
    except OSError as error:
        raise ImageError(f"{source} cannot be read: {error.strerror}", hint="name another file") from error


def _ca_of_environment() -> Path | None:
    """The certificates that pip is told to trust here; behind a proxy that opens TLS the container needs them too."""
    for name in ("PIP_CERT", "SSL_CERT_FILE"):
        if os.environ.get(name) and Path(os.environ[name]).is_file():
            return Path(os.environ[name])
    return None


def _room() -> tarfile.TarInfo:
    """The directory in which Dockerfiles look for what may be there: BuildKit wants it to exist."""
    entry = _entry(ROOM, 0)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    return entry


def _entry(path: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode, entry.mtime = size, 0o644, 0
    return entry
