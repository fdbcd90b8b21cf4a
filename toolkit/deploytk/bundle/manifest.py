"""Reads and writes `deploytk.json`, the truth about a bundle."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, cast

from deploytk import __version__
from deploytk.artifact import Artifact
from deploytk.base.digests import hash_files
from deploytk.base.errors import BundleError
from deploytk.base.json import plain
from deploytk.base.progress import Progress
from deploytk.bundle.value import FORMAT, MANIFEST, Bundle, BundleFile, BundleOptions
from deploytk.plan import MODEL_AT, ServingPlan

PORT = 7860
"""Where hubs expect an app."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
"""What a bundle may be called, as hubs take names: nothing that means something to a shell, a path or YAML."""

_KEYS = {"name": str, "model": dict, "plan": dict, "app": dict, "card": dict, "golden": list, "files": dict}
_SERVERS = (["lmdeploy", "serve", "api_server"], ["python", "-m", "deploytk.cpu_engine"])
_LARGEST_MANIFEST_BYTES = 64 * 2**20
_AGAIN = "package the model again"


def bundle_digest(files: Sequence[BundleFile]) -> str:
    """One digest for all files, whatever their packing: SHA-256 over the sorted lines `sha256  path`."""
    lines = sorted(f"{file.sha256}  {file.path}\n" for file in files)
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def manifest_of(
    artifact: Artifact, plan: ServingPlan, options: BundleOptions, files: Sequence[BundleFile]
) -> dict[str, object]:
    """What goes into `deploytk.json`: no time, no machine, so that the same input gives the same bytes."""
    facts = cast(dict[str, object], plain(artifact))
    model = {key: value for key, value in facts.items() if key not in ("root", "config", "facts", "files", "problems")}
    golden = [{"prompt": g.prompt, "answer": g.answer, "raw": g.is_raw} for g in options.golden]
    return {
        "format": FORMAT,
        "deploytk": __version__,
        "name": options.name,
        "model": model,
        "plan": plain(plan.at(".")),
        "app": {
            "kind": options.app,
            "title": options.name,
            "host": "0.0.0.0",  # noqa: S104 (a container and a hub reach the app from outside)
            "port": PORT,
            "examples": [g.prompt for g in options.golden if not g.is_raw][:6],
        },
        "card": {"license": options.license, "base_model": options.base_model},
        "golden": golden,
        "files": {f.path: {"size": f.size, "sha256": f.sha256, "kind": f.kind} for f in files},
    }


def to_text(manifest: dict[str, object]) -> str:
    return json.dumps(manifest, ensure_ascii=False, indent=1) + "\n"


def is_bundle(path: Path) -> bool:
    return (path / MANIFEST).is_file()


def read_bundle(path: Path) -> Bundle:
    """The bundle at `path`.

    Raises BundleError for a manifest that deploytk would not have written, and when a file is missing or has
    another size than the manifest says.
    """
    bundle = _parsed(path, _read_manifest(path))
    for file in bundle.files:
        _check_size(path, file)
    return bundle


def _read_manifest(path: Path) -> dict[str, Any]:
    place = path / MANIFEST
    try:
        if place.stat().st_size > _LARGEST_MANIFEST_BYTES:
            raise BundleError(f"{place} is larger than 64 MiB", hint=_AGAIN)
        manifest = json.loads(place.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(
            f"{path} is no bundle: it has no {MANIFEST}", hint="make one with `deploytk package`"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{place} cannot be read: {type(error).__name__}", hint=_AGAIN) from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise BundleError(f"{place} cannot be read: it is not a bundle's manifest", hint=_AGAIN)
    if manifest["format"] != FORMAT:
        hint = "use the deploytk that wrote it, or package the model again"
        raise BundleError(f"{path} has format {manifest['format']}, {FORMAT} expected", hint=hint)
    return manifest


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


def _parsed(path: Path, manifest: dict[str, Any]) -> Bundle:
    """The bundle that a manifest describes; what is on disk is not looked at."""
    for key, kind in _KEYS.items():
        if not isinstance(manifest.get(key), kind):
            raise BundleError(f"{path / MANIFEST} cannot be read: {key!r} is missing or malformed", hint=_AGAIN)
    name, argv = manifest["name"], manifest["plan"].get("argv")
    try:
        if not NAME.fullmatch(name):
            raise ValueError("the name")
        # Whoever serves the bundle starts this command.
        if not _is_server(argv):
            raise ValueError("the command in the plan")
        files = tuple(_file(file, entry) for file, entry in sorted(manifest["files"].items()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path / MANIFEST} cannot be read: {error} is malformed", hint=_AGAIN) from error
    return Bundle(path, name, bundle_digest(files), files, manifest, sum(file.size for file in files), 0)


def _is_server(argv: object) -> bool:
    if not isinstance(argv, list) or len(argv) <= MODEL_AT or not all(isinstance(word, str) for word in argv):
        return False
    return argv[:MODEL_AT] in _SERVERS and argv[MODEL_AT] == "."


def strangers_in(path: Path) -> list[str]:
    """Files in the bundle at `path` that its manifest does not name; hidden ones and Python's caches aside.

    All of them when deploytk did not write that manifest.
    """
    here = {str(file.relative_to(path)) for file in path.rglob("*") if not file.is_dir() or file.is_symlink()}
    try:
        known = {file.path for file in _parsed(path, _read_manifest(path)).files} | {MANIFEST}
    except BundleError:
        known = set()
    return sorted(
        file
        for file in here - known
        if not any(part.startswith(".") or part == "__pycache__" for part in PurePosixPath(file).parts)
    )


def verify_bundle(bundle: Bundle, progress: Progress) -> None:
    """Raises BundleError unless every file has the digest that the manifest says."""
    paths = [bundle.path / file.path for file in bundle.files]
    digests = hash_files(paths, "verifying", progress)
    for file, path in zip(bundle.files, paths, strict=True):
        if digests[path] != file.sha256:
            raise BundleError(f"{path} is not the file that {MANIFEST} describes: its digest differs", hint=_AGAIN)


def _file(name: str, entry: dict[str, Any]) -> BundleFile:
    path = PurePosixPath(name)
    is_inside = not path.is_absolute() and ".." not in path.parts and str(path) == name and name != MANIFEST
    is_plain = name.isprintable() and "\\" not in name
    is_digest = re.fullmatch(r"[0-9a-f]{64}", entry["sha256"])
    is_size = type(entry["size"]) is int and entry["size"] >= 0
    is_kind = entry["kind"] in ("weights", "model", "app", "card")
    if not (is_inside and is_plain and is_digest and is_size and is_kind):
        raise ValueError(f"the entry for {name!r}")
    return BundleFile(name, entry["size"], entry["sha256"], entry["kind"])


def _check_size(root: Path, file: BundleFile) -> None:
    path = root / file.path
    if not path.is_file():
        raise BundleError(f"{path} is missing, {file.size} bytes expected", hint=_AGAIN)
    if path.stat().st_size != file.size:
        raise BundleError(f"{path} has {path.stat().st_size} bytes, {file.size} expected", hint=_AGAIN)
