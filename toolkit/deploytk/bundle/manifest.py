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
from deploytk.bundle.value import FORMAT, MANIFEST, Bundle, BundleFile, BundleOptions
from deploytk.digests import hash_files
from deploytk.errors import BundleError
from deploytk.plan import ServingPlan
from deploytk.progress import Progress
from deploytk.values import plain

PORT = 7860
"""Where hubs expect an app."""

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
    model = {key: value for key, value in facts.items() if key not in ("root", "config", "files", "problems")}
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
    """The bundle at `path`; raises BundleError when a file is missing or has another size than the manifest says."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        files = tuple(_file(name, entry) for name, entry in sorted(manifest["files"].items()))
        name, bundle_format = manifest["name"], manifest["format"]
    except FileNotFoundError as error:
        raise BundleError(
            f"{path} is no bundle: it has no {MANIFEST}", hint="make one with `deploytk package`"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(f"{path / MANIFEST} cannot be read: {type(error).__name__}", hint=_AGAIN) from error
    if bundle_format != FORMAT:
        hint = "use the deploytk that wrote it, or package the model again"
        raise BundleError(f"{path} has format {bundle_format}, {FORMAT} expected", hint=hint)
    for file in files:
        _check_size(path, file)
    total = sum(file.size for file in files)
    return Bundle(path, name, bundle_digest(files), files, manifest, total, 0)


def verify_bundle(bundle: Bundle, progress: Progress) -> None:
    """Raises BundleError unless every file has the digest that the manifest says."""
    paths = [bundle.path / file.path for file in bundle.files]
    digests = hash_files(paths, "verifying", progress)
    for file, path in zip(bundle.files, paths, strict=True):
        if digests[path] != file.sha256:
            raise BundleError(f"{path} is not the file that {MANIFEST} describes: its digest differs", hint=_AGAIN)


def _file(name: str, entry: dict[str, Any]) -> BundleFile:
    path = PurePosixPath(name)
    is_inside = not path.is_absolute() and ".." not in path.parts and str(path) == name
    is_digest = re.fullmatch(r"[0-9a-f]{64}", entry["sha256"])
    if not is_inside or not is_digest or entry["kind"] not in ("weights", "model", "app", "card"):
        raise ValueError(f"malformed entry for {name!r}")
    return BundleFile(name, int(entry["size"]), entry["sha256"], entry["kind"])


def _check_size(root: Path, file: BundleFile) -> None:
    path = root / file.path
    if not path.is_file():
        raise BundleError(f"{path} is missing, {file.size} bytes expected", hint=_AGAIN)
    if path.stat().st_size != file.size:
        raise BundleError(f"{path} has {path.stat().st_size} bytes, {file.size} expected", hint=_AGAIN)
