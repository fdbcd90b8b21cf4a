"""Writes a bundle around a model."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from deploytk.artifact import Artifact
from deploytk.atomic import disk_errors, staged_directory, sync_directory
from deploytk.bundle.card import render_card
from deploytk.bundle.links import link_or_copy
from deploytk.bundle.manifest import is_bundle, manifest_of, read_bundle, to_text
from deploytk.bundle.value import MANIFEST, AppKind, Bundle, BundleFile, BundleOptions, FileKind
from deploytk.digests import hash_file, hash_files
from deploytk.errors import BundleError, UsageError
from deploytk.plan import ServingPlan
from deploytk.progress import Progress
from deploytk.shipped import shipped

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")

_CONFIG_INI = "triton_models/weights/config.ini"


def render_bundle(
    artifact: Artifact, plan: ServingPlan, options: BundleOptions, out: Path, progress: Progress
) -> Bundle:
    """Write the bundle `out` around the model and return it; the same input gives the same digest.

    `out` appears whole or not at all. Weights are hard links where the file system allows, else copies, which
    is said. A bundle that is already there is replaced; anything else there is refused with BundleError. Raises
    ArtifactError for a broken model, UsageError for a name that cannot be used.
    """
    artifact.require_usable()
    _check_options(options)
    if out.exists() and not (out.is_dir() and (is_bundle(out) or not any(out.iterdir()))):
        raise BundleError(f"{out} is there already and is not a bundle", hint="choose another --output, or remove it")
    if out.resolve().is_relative_to(artifact.root.resolve()):
        raise BundleError(f"{out} is inside the model directory", hint="choose an --output outside of it")
    generated = _generated_texts(artifact, plan, options)
    sources = {
        file.path: artifact.root / file.path
        for file in artifact.files
        if file.path not in generated and file.path != MANIFEST
    }
    before = {source: _mark(source) for source in sources.values()}
    digests = hash_files(list(sources.values()), "hashing", progress)
    weights = {file.path for file in artifact.files if file.is_weight}
    with disk_errors(out, BundleError), staged_directory(out, resumable=False) as staging:
        copied = _link_model(sources, staging, progress)
        for path, text in generated.items():
            _write(staging / path, text)
        files = [
            *(BundleFile(path, source.stat().st_size, digests[source], _model_kind(path, weights))
              for path, source in sources.items()),
            *(BundleFile(path, (staging / path).stat().st_size, hash_file(staging / path), _generated_kind(path))
              for path in generated),
        ]  # fmt: skip
        files.sort(key=lambda file: file.path)
        _write(staging / MANIFEST, to_text(manifest_of(artifact, plan, options, files)))
        _check_unchanged(before)
        for directory in {path.parent for path in staging.rglob("*")}:
            sync_directory(directory)
    return replace(read_bundle(out), copied_bytes=copied)


def _check_options(options: BundleOptions) -> None:
    checks = (
        ("--name", options.name, _NAME, "letters, digits, dots, dashes and underscores, at most 96, as hubs take them"),
        ("--license", options.license, _LICENSE, "as hubs write it: apache-2.0, mit, llama3.1, other"),
        ("--base-model", options.base_model, _REPOSITORY, "OWNER/NAME"),
    )
    for option, value, pattern, expected in checks:
        if value is not None and not pattern.fullmatch(value):
            raise UsageError(f"{value!r} cannot be used for {option}", hint=f"it must be {expected}")


def _generated_texts(artifact: Artifact, plan: ServingPlan, options: BundleOptions) -> dict[str, str]:
    """Path -> text of everything that does not come from the model as it is."""
    texts = render_card(artifact, plan, options)
    texts |= {path: source.read_text(encoding="utf-8") for path, source in _app_files(options)}
    texts["Dockerfile"] = (shipped("images") / _dockerfile(plan)).read_text(encoding="utf-8")
    if plan.config_ini:
        original = (artifact.root / _CONFIG_INI).read_text(encoding="utf-8-sig")
        texts[_CONFIG_INI] = _edited_ini(original, dict(plan.config_ini))
    return texts


def _app_files(options: BundleOptions) -> Iterator[tuple[str, Path]]:
    """The app's files, user templates before shipped ones; of the requirements those of its kind."""
    shipped_app = shipped("templates") / "app"
    own = options.template / "app" if options.template and (options.template / "app").is_dir() else None
    for source in sorted(shipped_app.iterdir()):
        if not source.is_file() or source.name.startswith("."):
            continue
        chosen = own / source.name if own and (own / source.name).is_file() else source
        if source.name.startswith("requirements-"):
            if source.name == f"requirements-{options.app}.txt":
                yield "requirements.txt", chosen
        elif _is_wanted(source.name, options.app):
            yield source.name, chosen


def _is_wanted(name: str, kind: AppKind) -> bool:
    return kind == "gradio" or not name.startswith("chat_")


def _dockerfile(plan: ServingPlan) -> str:
    if plan.engine == "cpu":
        return "cpu.Dockerfile"
    from deploytk import lmdeploy

    is_legacy = lmdeploy.age(str(plan.lmdeploy)) < lmdeploy.age("0.10.0")
    return "lmdeploy-legacy.Dockerfile" if is_legacy else "lmdeploy.Dockerfile"


def _edited_ini(text: str, settings: dict[str, str]) -> str:
    """A config.ini with those keys set, everything else as it was."""
    left = dict(settings)
    lines = []
    for line in text.splitlines():
        key = line.partition("=")[0].strip().lower()
        lines.append(f"{key} = {left.pop(key)}" if key in left else line)
    while lines and not lines[-1].strip():
        lines.pop()
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in left.items())]) + "\n"


def _link_model(sources: dict[str, Path], staging: Path, progress: Progress) -> int:
    copied = 0
    total = sum(source.stat().st_size for source in sources.values())
    with progress.task("linking", total) as advance:
        for path, source in sources.items():
            copied += link_or_copy(source, staging / path)
            advance(source.stat().st_size)
    if copied:
        progress.note(f"copied {copied / 2**20:,.0f} MiB: hard links do not work from the model's file system to here")
    return copied


def _mark(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _check_unchanged(before: dict[Path, tuple[int, int]]) -> None:
    for path, mark in before.items():
        if _mark(path) != mark:
            hint = "wait until it is written, then run again"
            raise BundleError(f"{path} changed while it was packaged", hint=hint)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    path.chmod(0o644)


def _model_kind(path: str, weights: set[str]) -> FileKind:
    return "weights" if path in weights else "model"


def _generated_kind(path: str) -> FileKind:
    if path == _CONFIG_INI:
        return "model"
    return "card" if path.endswith(".md") else "app"


def export_templates(out: Path) -> list[str]:
    """Write the shipped card and app templates to `out`, to be changed and given to --template."""
    if out.exists() and any(out.iterdir()):
        raise BundleError(f"{out} is not empty", hint="choose a new directory")
    for name in ("card", "app"):
        target = out if name == "card" else out / name
        shutil.copytree(shipped("templates") / name, target, dirs_exist_ok=True)
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
