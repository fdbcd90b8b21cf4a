"""What goes into `deploytk.json`, the truth about a bundle, and how it is read back: typed, or refused in words."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import cast

from deploytk import __version__, lmdeploy
from deploytk.artifact import Artifact
from deploytk.base.json import plain
from deploytk.base.names import SLUG, is_title, slug
from deploytk.base.typed import LARGEST, typed
from deploytk.bundle.own_card import LANGUAGE, LICENSE, REPOSITORY
from deploytk.bundle.value import (
    EDITABLE,
    FORMAT,
    MANIFEST,
    App,
    AppKind,
    BundleFile,
    BundleOptions,
    Card,
    FileKind,
    Golden,
    Manifest,
)
from deploytk.plan import ServingPlan

PORT = 7860
"""Where hubs expect an app."""

"""What a bundle may be called, as hubs take names: nothing that means something to a shell, a path or YAML."""

_VERSION = re.compile(r"[0-9A-Za-z.+-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MOST_EXAMPLES = 6
_LONGEST_NAME_BYTES = 255  # of a file; Linux
_LONGEST_PATH_BYTES = 1024

# Of an Artifact, what is only true of the directory that it was read from.
_ELSEWHERE: dict[str, object] = {
    "root": ".",
    "config": {},
    "facts": None,
    "remote_code": [],
    "files": [],
    "problems": [],
}


def bundle_digest(files: Sequence[BundleFile]) -> str:
    """One digest for all files, whatever their packing: SHA-256 over the sorted lines `sha256  path`."""
    lines = sorted(f"{file.sha256}  {file.path}\n" for file in files)
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def manifest_of(
    artifact: Artifact,
    plan: ServingPlan,
    options: BundleOptions,
    files: Sequence[BundleFile],
    generated: Mapping[str, str],
) -> Manifest:
    """What a bundle says about itself: no time, no machine, so that the same input gives the same bytes.

    `generated` are the cards before anybody has edited them.
    """
    return Manifest(
        deploytk=__version__,
        name=options.name,
        model=dataclasses.replace(artifact, root=Path(), config={}, facts=None, remote_code=(), files=(), problems=()),
        plan=plan.at("."),
        app=_app(options.app, options.title, options.golden),
        card=Card(options.license, options.base_model, options.languages, dict(options.notes or {}), dict(generated)),
        golden=options.golden,
        files=tuple(files),
    )


def _app(kind: AppKind, name: str, golden: Sequence[Golden]) -> App:
    examples = [one.prompt for one in golden if not one.is_raw][:_MOST_EXAMPLES]
    return App(kind, name, "0.0.0.0", PORT, tuple(examples))  # noqa: S104 (containers and hubs come from outside)


def to_text(manifest: Manifest) -> str:
    """The content of `deploytk.json`."""
    facts = cast(dict[str, object], plain(manifest.model))
    written = {
        "format": FORMAT,
        "deploytk": manifest.deploytk,
        "name": manifest.name,
        "model": {key: value for key, value in facts.items() if key not in _ELSEWHERE},
        "plan": plain(manifest.plan),
        "app": plain(manifest.app),
        "card": plain(manifest.card),
        "golden": [{"prompt": one.prompt, "answer": one.answer, "raw": one.is_raw} for one in manifest.golden],
        "files": {file.path: {"size": file.size, "sha256": file.sha256, "kind": file.kind} for file in manifest.files},
    }
    return json.dumps(written, ensure_ascii=False, indent=1) + "\n"


def to_text_of_app(manifest: Manifest, contents: Mapping[str, bytes], generated: Mapping[str, str]) -> str:
    """The `deploytk.json` of a repository that has these files of the app, and of the model none: it tells of both."""
    model = (file for file in manifest.files if file.kind in ("weights", "model"))
    own = (
        BundleFile(path, len(content), hashlib.sha256(content).hexdigest(), "card" if path in EDITABLE else "app")
        for path, content in contents.items()
    )
    files = tuple(sorted((*model, *own), key=lambda file: file.path))
    card = dataclasses.replace(manifest.card, generated=dict(generated))
    return to_text(dataclasses.replace(manifest, files=files, card=card))


@dataclass(frozen=True, slots=True)
class _Golden:
    prompt: str
    answer: str
    raw: bool


@dataclass(frozen=True, slots=True)
class _File:
    size: int
    sha256: str
    kind: FileKind


@dataclass(frozen=True, slots=True)
class _Written:
    """`deploytk.json`, key by key."""

    format: int
    deploytk: str
    name: str
    model: dict[str, object]
    plan: dict[str, object]
    app: App
    card: Card
    golden: tuple[_Golden, ...]
    files: dict[str, _File]


def manifest_in(found: object) -> Manifest:
    """The manifest that parsed JSON is; raises ValueError, in words, for one that deploytk would not have written."""
    written = typed(_Written, found, "")
    for key in sorted(written.model.keys() & _ELSEWHERE):
        raise ValueError(f"model.{key} is nothing that deploytk writes")
    model = typed(Artifact, {**written.model, **_ELSEWHERE}, "model")
    golden = tuple(Golden(one.prompt, one.answer, one.raw) for one in written.golden)
    files = tuple(_file(path, entry) for path, entry in sorted(written.files.items()))
    manifest = Manifest(
        deploytk=written.deploytk,
        name=written.name,
        model=model,
        plan=ServingPlan.from_manifest(written.plan, model),
        app=written.app,
        card=written.card,
        golden=golden,
        files=files,
    )
    _require_sense(manifest)
    return manifest


def _require_sense(manifest: Manifest) -> None:
    """Raises ValueError for values that no manifest has."""
    card, versions = manifest.card, manifest.model.lmdeploy
    known = (None, *lmdeploy.VERSIONS)
    checks = {
        "deploytk": _VERSION.fullmatch(manifest.deploytk),
        "name": SLUG.fullmatch(manifest.name),
        "model.lmdeploy": versions.min in known and versions.max in known and versions.pin in known,
        "card.license": card.license is None or LICENSE.fullmatch(card.license),
        "card.base_model": card.base_model is None or REPOSITORY.fullmatch(card.base_model),
        "card.languages": all(LANGUAGE.fullmatch(one) for one in card.languages),
        "card.notes": card.notes.keys() <= set(EDITABLE),
        "card.generated": card.generated.keys() <= set(EDITABLE),
        "app.title": is_title(manifest.app.title) and slug(manifest.app.title) == manifest.name,
        "golden": all(one.prompt for one in manifest.golden),
        "files": sum(file.size for file in manifest.files) <= LARGEST,
    }
    for place, is_right in checks.items():
        if not is_right:
            raise ValueError(f"{place} is malformed")
    usual = _app(manifest.app.kind, manifest.app.title, manifest.golden)
    for field in dataclasses.fields(App):
        if getattr(manifest.app, field.name) != getattr(usual, field.name):
            raise ValueError(f"app.{field.name} is not what deploytk writes")
    paths = {file.path for file in manifest.files}
    inside = next((path for path in sorted(paths) for above in PurePosixPath(path).parents if str(above) in paths), "")
    if inside:
        raise ValueError(f"{inside[:100]!r} is a file inside of a file")


def _file(path: str, entry: _File) -> BundleFile:
    if not _is_inside(path) or not _DIGEST.fullmatch(entry.sha256):
        raise ValueError(f"the entry for {path[:100]!r} is malformed")
    return BundleFile(path, entry.size, entry.sha256, entry.kind)


def _is_inside(path: str) -> bool:
    """Whether `path` names a file in the bundle, in the one way that deploytk writes it; never a hidden one."""
    parts = path.split("/")
    is_plain = path.isprintable() and "\\" not in path and path != MANIFEST
    is_short = len(path.encode()) <= _LONGEST_PATH_BYTES
    is_walked = all(part and part[0] != "." and len(part.encode()) <= _LONGEST_NAME_BYTES for part in parts)
    return is_plain and is_short and is_walked
