"""Reads a model directory of any layout, without executing or unpickling anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from deploytk.artifact.adapter import adapter_problems, refuse_adapter
from deploytk.artifact.code import code_problems
from deploytk.artifact.contents import content_problems
from deploytk.artifact.huggingface import read_huggingface
from deploytk.artifact.hygiene import find_problems
from deploytk.artifact.problems import printable
from deploytk.artifact.quantized_by import read_quantized_by
from deploytk.artifact.remote_code import remote_code_problems
from deploytk.artifact.security import security_problems
from deploytk.artifact.text_formats import LARGEST_INDEX_BYTES, read_json
from deploytk.artifact.tree import FileEntry, walk
from deploytk.artifact.value import Artifact
from deploytk.artifact.workspace import config_path, read_workspace
from deploytk.base.errors import ArtifactError

_LEVELS = ("error", "warning", "info")


def read_artifact(root: Path, *, allows_pickles: bool = False) -> Artifact:
    """What the model directory `root` is; what is wrong with it is in `problems`.

    A file that is refused by its content is an error among them, with `allows_pickles` a warning.
    Raises ArtifactError where nothing can be told: no directory, no model in it, an unreadable configuration.
    """
    try:
        return _read(root, allows_pickles=allows_pickles)
    except ArtifactError as error:
        raise ArtifactError(printable(str(error)), hint=printable(error.hint)) from error


def _read(root: Path, *, allows_pickles: bool) -> Artifact:
    _require_directory(root)
    there = walk(root)
    entries = _without_generated(root, there)
    # A workspace of 0.7.0.post2 or later has a copy of the source's config.json at its root.
    workspace = config_path(root)
    if workspace:
        artifact = read_workspace(root, workspace, entries)
    elif (root / "config.json").is_file():
        artifact = read_huggingface(root, entries)
    else:
        refuse_adapter(root)
        raise _no_model(root, entries)
    quantized_by, record_problems = read_quantized_by(root)
    found = (
        *artifact.problems,
        *find_problems(root, entries, artifact.files),
        *content_problems(root, artifact.files, allows_pickles=allows_pickles),
        *code_problems(root, there),
        *remote_code_problems(root, artifact.remote_code),
        *adapter_problems(root, entries),
        *security_problems(artifact, artifact.lmdeploy.pin),
        *record_problems,
    )
    problems = [replace(one, message=printable(one.message), hint=printable(one.hint)) for one in found]
    problems.sort(key=lambda problem: _LEVELS.index(problem.level))
    return replace(artifact, quantized_by=quantized_by, problems=tuple(problems))


def left_out(artifact: Artifact) -> tuple[FileEntry, ...]:
    """The files of its directory that do not belong to the model, the largest first; hidden ones aside."""
    taken = {file.path for file in artifact.files}
    entries = _without_generated(artifact.root, walk(artifact.root))
    return tuple(sorted((one for one in entries if one.path not in taken), key=lambda one: (-one.bytes, one.path)))


# What a model of another kind has instead of config.json.
_OTHER_KINDS = {
    ".gguf": "a GGUF file, which LMDeploy does not read",
    "params.json": "a model in the form of its maker (params.json), not of Hugging Face",
    "model_index.json": "a model that makes pictures (model_index.json)",
    ".onnx": "an ONNX file, which LMDeploy does not read",
}


def _no_model(root: Path, entries: Sequence[FileEntry]) -> ArtifactError:
    found = (what for end, what in _OTHER_KINDS.items() if any(entry.path.endswith(end) for entry in entries))
    what = next((f", but {kind}" for kind in found), "")
    hint = "expected triton_models/weights/config.ini or .yaml (workspace), or config.json"
    return ArtifactError(f"{root} holds no model{what}", hint=hint)


def _require_directory(root: Path) -> None:
    hint = "name the directory of a model: a workspace, or one with config.json and weights"
    try:
        str(root).encode()
        is_directory, exists = root.is_dir(), root.exists()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise ArtifactError(f"{root} cannot be read: {why}", hint=hint) from error
    if not is_directory:
        raise ArtifactError(f"{root} is not a directory" if exists else f"{root} does not exist", hint=hint)


def _without_generated(root: Path, entries: Sequence[FileEntry]) -> tuple[FileEntry, ...]:
    """The model's own files: a bundle is a model directory with a card and an app beside the model."""
    try:
        files = read_json(root / "deploytk.json", LARGEST_INDEX_BYTES)["files"]
        generated = {path for path, file in files.items() if file["kind"] in ("app", "card")}
    except (ArtifactError, KeyError, TypeError, AttributeError):  # no bundle, or a broken one
        generated = set()
    if generated:
        generated.add("model.sig")  # it signs the bundle
    return tuple(entry for entry in entries if entry.path not in generated | {"deploytk.json"})
