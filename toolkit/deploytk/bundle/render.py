"""Writes a bundle around a model."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from deploytk.artifact import Artifact, left_out
from deploytk.base.digests import hash_files
from deploytk.base.errors import BundleError, UsageError
from deploytk.base.files import disk_errors, put_back, staged_directory, sync_directory
from deploytk.base.names import LONGEST, SLUG, is_title
from deploytk.base.progress import Progress
from deploytk.base.shipped import shipped
from deploytk.bundle.app_files import SHIPPED_APP, app_texts
from deploytk.bundle.edited import keep_words, say_what_is_gone, with_earlier_words
from deploytk.bundle.links import link_or_copy
from deploytk.bundle.manifest import manifest_of, to_text
from deploytk.bundle.own_card import LANGUAGE, LICENSE, REPOSITORY, with_own_facts
from deploytk.bundle.read import described_bundle, is_bundle, read_bundle, strangers_in, verify_bundle
from deploytk.bundle.value import (
    CARDS,
    CHART,
    MANIFEST,
    ROOM,
    SIGNATURE,
    START,
    Bundle,
    BundleFile,
    BundleOptions,
    FileKind,
)
from deploytk.plan import ServingPlan

_CONFIG_INI = "triton_models/weights/config.ini"
# What deploytk and hubs put into a bundle or an app, or have put there in earlier versions: whatever a model brings by
# these names would be started, installed or believed.
_OURS = (
    MANIFEST,
    SIGNATURE,
    ROOM,
    START,
    "Dockerfile",
    "requirements.txt",
    "packages.txt",
    "model_source.json",
    "fetch_model.py",
)
_WHY_NOT = "a bundle has its own by these names"
_FLUSHED_AT_ONCE = 8
_MOST_NAMED = 12


def render_bundle(
    artifact: Artifact, plan: ServingPlan, options: BundleOptions, out: Path, progress: Progress
) -> Bundle:
    """Write the bundle `out` around the model and return it; the same input gives the same digest.

    `out` appears whole or not at all. Weights are hard links where the file system allows, else copies, which
    is said. The same bundle there already is verified and kept, another one is replaced; anything else there is
    refused with BundleError. Raises ArtifactError for a broken model, UsageError for a name that cannot be used.
    """
    artifact.require_usable()
    _check_options(options)
    with disk_errors(out, BundleError):
        put_back(out.resolve())  # with the words of its owner
    options = with_earlier_words(artifact, with_own_facts(artifact, options, progress), out, progress)
    generated: dict[str, bytes] = {}
    cards: dict[str, str] = {}

    def generate() -> None:
        texts = _app_texts(artifact, plan, options)
        if not options.is_passing:
            cards.update(_cards(artifact, plan, options))
            texts |= _with_words(artifact, out, cards, progress)
        generated.update((path, text.encode()) for path, text in texts.items())
        if options.measured and options.measured.chart:
            generated[CHART] = options.measured.chart.png

    with disk_errors(out, BundleError):
        place = out.resolve()
        _check_place(place, artifact)
        model = [artifact.root / file.path for file in artifact.files]
        before = {source: _mark(source) for source in model}
        digests = hash_files(model, "hashing", progress, meanwhile=generate)
        sources = _sources(artifact, generated, progress)
        _say_what_is_left_out(artifact, progress)
        weights = {file.path for file in artifact.files if file.is_weight}
        files = [
            *(BundleFile(path, before[source][0], digests[source], "weights" if path in weights else "model")
              for path, source in sources.items()),
            *(BundleFile(path, len(content), hashlib.sha256(content).hexdigest(), _generated_kind(path))
              for path, content in generated.items()),
        ]  # fmt: skip
        files.sort(key=lambda file: file.path)
        manifest = to_text(manifest_of(artifact, plan, options, files, cards)).encode()
        if _is_there(place, manifest, progress):
            return read_bundle(out)
        with staged_directory(place, resumable=False) as staging:
            copied = 0 if options.is_passing else _link_model(sources, staging, progress)
            for path, source in sources.items() if options.is_passing else ():
                _point_to(source, staging / path)
            _write_all(staging, generated | {MANIFEST: manifest})
            _check_unchanged(before)
            _settle(staging)
    if options.license is None and not options.is_passing:
        progress.note("no licence is given: hubs will show 'unknown'; name it with --license")
    return replace(described_bundle(out) if options.is_passing else read_bundle(out), copied_bytes=copied)


def _cards(artifact: Artifact, plan: ServingPlan, options: BundleOptions) -> dict[str, str]:
    from deploytk.bundle.card import render_card  # half of what a bundle costs that nobody will read

    return render_card(artifact, plan, options)


def _with_words(artifact: Artifact, out: Path, cards: Mapping[str, str], progress: Progress) -> dict[str, str]:
    """The cards with all that people have written into those that are there."""
    texts, earlier = keep_words(artifact, out, cards, progress)
    if earlier:
        say_what_is_gone(earlier, texts, progress)
    return texts


def _point_to(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    destination.symlink_to(source.resolve())


def _sources(artifact: Artifact, generated: Collection[str], progress: Progress) -> dict[str, Path]:
    """Path -> file of everything that comes from the model as it is; what a generated file displaces is said."""
    taken = {*generated, *_OURS} - {_CONFIG_INI}
    displaced = [file.path for file in artifact.files if file.path.partition("/")[0] in taken]
    told = [path for path in displaced if path not in CARDS]  # whose words are in the new ones
    if told:
        progress.note(f"of the model's own files these are left out: {', '.join(told)}; {_WHY_NOT}")
    left_out = {*displaced, *generated}
    return {file.path: artifact.root / file.path for file in artifact.files if file.path not in left_out}


def _say_what_is_left_out(artifact: Artifact, progress: Progress) -> None:
    found = left_out(artifact)
    if found:
        named = ", ".join(f"{one.path} ({_size(one.bytes)})" for one in found[:_MOST_NAMED])
        more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
        progress.note(f"left out of the bundle: {named}{more}; deploytk inspect says why")


def _size(count: int) -> str:
    return f"{_mib(count)} MiB" if count >= 2**20 // 10 else f"{count:,} bytes"


def _check_place(place: Path, artifact: Artifact) -> None:
    """Raises BundleError where writing `place` would lose anything that deploytk did not write."""
    if place.is_relative_to(artifact.root.resolve()):
        raise BundleError(f"{place} is inside the model directory", hint="choose an --output outside of it")
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return
    if not is_bundle(place):
        raise BundleError(f"{place} is there already and is not a bundle", hint="choose another --output, or remove it")
    strangers = strangers_in(place)
    if strangers:
        raise BundleError(
            f"{place} is a bundle that also holds {strangers[0]}, which deploytk did not write",
            hint="move it away, or choose another --output: the bundle is replaced as a whole",
        )


def _is_there(place: Path, manifest: bytes, progress: Progress) -> bool:
    """Whether this very bundle is at `place` already, whole, with nothing left of an interrupted attempt."""
    leftovers = [place.with_name(f".{place.name}.{ending}") for ending in ("partial", "replaced", "lock")]
    if any(leftover.exists() for leftover in leftovers) or not is_bundle(place):
        return False
    if (place / MANIFEST).read_bytes() != manifest:
        return False
    try:
        verify_bundle(read_bundle(place), progress)
    except BundleError:
        return False
    return True


def _check_options(options: BundleOptions) -> None:
    checks: tuple[tuple[str, str | None, re.Pattern[str], str], ...] = (
        ("--name", options.name, SLUG, "letters, digits, dots, dashes and underscores, at most 96, as hubs take them"),
        ("--license", options.license, LICENSE, "a name that hubs know: apache-2.0, mit, llama3.1, other"),
        ("--base-model", options.base_model, REPOSITORY, "OWNER/NAME"),
    )
    if options.typed is not None and not is_title(options.typed):
        hint = f"give --name as at most {LONGEST} characters that can be printed, in any script"
        raise UsageError(f"{options.typed!r} cannot be used for --name", hint=hint)
    for language in options.languages:
        checks += (("--language", language, LANGUAGE, "codes with commas between, as hubs write them: zh,en"),)
    for option, value, pattern, expected in checks:
        if value is not None and not pattern.fullmatch(value):
            raise UsageError(f"{value!r} cannot be used for {option}", hint=f"give {option} as {expected}")


def _app_texts(artifact: Artifact, plan: ServingPlan, options: BundleOptions) -> dict[str, str]:
    """Path -> text of everything else that does not come from the model as it is."""
    texts = app_texts(options.app, options.template)
    texts["Dockerfile"] = (shipped("images") / _dockerfile(plan)).read_text(encoding="utf-8")
    if plan.config_ini:
        original = (artifact.root / _CONFIG_INI).read_text(encoding="utf-8-sig")
        texts[_CONFIG_INI] = _edited_ini(original, dict(plan.config_ini))
    return texts


def _dockerfile(plan: ServingPlan) -> str:
    if plan.engine == "cpu":
        return "cpu.Dockerfile"
    from deploytk import lmdeploy

    return "lmdeploy-pip.Dockerfile" if lmdeploy.legacy_base(str(plan.lmdeploy)) else "lmdeploy.Dockerfile"


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
    copied, private = 0, 0
    total = sum(source.stat().st_size for source in sources.values())
    with progress.task("linking", total) as advance:
        for path, source in sources.items():
            size = link_or_copy(source, staging / path, advance)
            copied += size
            private += size if not source.stat().st_mode & stat.S_IROTH else 0
    if private:
        progress.note(f"copied {_mib(private)} MiB that only their owner may read: chmod a+r them for hard links")
    if copied > private:
        progress.note(f"copied {_mib(copied - private)} MiB: no hard links from the model's file system to here")
    return copied


def _mib(count: int) -> str:
    return f"{count / 2**20:,.1f}"


def _mark(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read: {error.strerror}", hint="check the model directory, then run again"
        ) from error
    return status.st_size, status.st_mtime_ns, status.st_ino


def _check_unchanged(before: dict[Path, tuple[int, int, int]]) -> None:
    for path, mark in before.items():
        if _mark(path) != mark:
            hint = "wait until it is written, then run again"
            raise BundleError(f"{path} changed while it was packaged", hint=hint)


def _write_all(staging: Path, contents: Mapping[str, bytes]) -> None:
    """Several at once: a disk flushes them together, in the time of one."""
    with ThreadPoolExecutor(_FLUSHED_AT_ONCE) as threads:
        for written in [threads.submit(_write, staging / path, content) for path, content in contents.items()]:
            written.result()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o644)


def _settle(staging: Path) -> None:
    """Let everybody enter the directories, whatever the umask, and flush them."""
    for directory in (staging, *(path for path in staging.rglob("*") if path.is_dir())):
        directory.chmod(0o755)
        sync_directory(directory)


def _generated_kind(path: str) -> FileKind:
    if path == _CONFIG_INI:
        return "model"
    return "card" if path.endswith(".md") or path == CHART else "app"


@dataclass(frozen=True, slots=True)
class Exported:
    """Templates that were written to be changed."""

    path: Path
    files: tuple[str, ...]  # below path


def export_templates(out: Path) -> Exported:
    """Write the shipped card and app templates to `out`, to be changed and given to --template."""
    with disk_errors(out, BundleError):
        if out.exists() and any(out.iterdir()):
            raise BundleError(f"{out} is not empty", hint="choose a new directory")
        for source, target in ((shipped("templates") / "card", out), (SHIPPED_APP, out / "app")):
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return Exported(out, tuple(sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())))
