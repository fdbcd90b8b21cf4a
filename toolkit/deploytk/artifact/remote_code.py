"""Which files of a model name code (`auto_map`) that whoever loads it with trust_remote_code runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deploytk.artifact.text_formats import read_json
from deploytk.artifact.value import Problem
from deploytk.base.errors import ArtifactError

_SETTINGS = "*config*.json"  # of model, tokenizer, processors, and those for one version of transformers alone
_TOKENIZER = "triton_models/tokenizer"
_MOST_FILES = 100  # a model has at most six
_HINT = "LMDeploy runs it unasked, from 0.13.0 on with --trust-remote-code alone: read it before you serve the model"


def names_code(root: Path) -> tuple[str, ...]:
    """Paths of the files that name code, in the model or on a hub; one that cannot be read may name any."""
    places = [root, root / _TOKENIZER] if (root / _TOKENIZER).is_dir() else [root]
    found = [path for place in places for path in _settings_in(place)]
    named = found if len(found) > _MOST_FILES else [path for path in found if _names_code(path)]
    return tuple(path.relative_to(root).as_posix() for path in named)


def remote_code_problems(root: Path, named: tuple[str, ...]) -> Iterator[Problem]:
    for path in named:
        yield Problem("warning", f"{path} names code of its own (auto_map)", _HINT)
    for name in [path.name for path in _settings_in(root)[:_MOST_FILES] if _names_kernel(path)]:
        message = f"{name} names an attention kernel of a hub, which is code that transformers fetches and runs"
        yield Problem("warning", message, "remove _attn_implementation from it, or read that code")


def _settings_in(place: Path) -> list[Path]:
    return sorted(path for path in place.glob(_SETTINGS) if path.is_file())


def _names_code(path: Path) -> bool:
    try:
        settings = read_json(path)
    except ArtifactError:
        return True
    return any(key == "auto_map" and value for key, value in _pairs(settings))


def _names_kernel(path: Path) -> bool:
    """Whether the attention is one of a hub, OWNER/NAME: CVE-2026-4372."""
    try:
        settings = read_json(path)
    except ArtifactError:
        return False
    return any(
        key.strip("_").startswith("attn_implementation") and "/" in str(value) for key, value in _pairs(settings)
    )


def _pairs(value: object) -> Iterator[tuple[str, object]]:
    """Every key with its value, at whatever depth: parts of a model have settings of their own."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _pairs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _pairs(inner)
