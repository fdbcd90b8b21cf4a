"""Prompts with known answers, and where bundles of models are kept."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from deploytk.base.cache import cache_directory
from deploytk.base.errors import UsageError
from deploytk.base.json import parse_json
from deploytk.bundle.manifest import manifest_in
from deploytk.bundle.value import Golden, Manifest

_EXPECTED = 'a JSON list such as [{"prompt": "2+2=", "answer": "4"}], at most 1 MiB'


def read_golden(path: Path) -> tuple[Golden, ...]:
    """The prompts and answers of a JSON file; raises UsageError when it holds anything else.

    `{"text": ...}` instead of `{"prompt": ...}` is completed as it is, without a chat template.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.stat().st_size < 2**20 else ""
        golden = tuple(_golden(entry) for entry in json.loads(text))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path} holds no prompts with answers", hint=f"it must be {_EXPECTED}") from error
    if not golden:
        raise UsageError(f"{path} is an empty list", hint=f"it must be {_EXPECTED}")
    return golden


def carried_manifest(content: bytes) -> Manifest | None:
    """The manifest that an image carries; None where it is none that deploytk writes."""
    try:
        return manifest_in(parse_json(content, has_unique_keys=True))
    except (ValueError, RecursionError):
        return None


def _golden(entry: dict[str, object]) -> Golden:
    is_raw = "text" in entry
    prompt, answer = entry["text"] if "text" in entry else entry["prompt"], entry["answer"]
    if not isinstance(prompt, str) or not isinstance(answer, str) or not prompt:
        raise TypeError("prompt and answer must be texts")
    (prompt + answer).encode()  # JSON can hold halves of characters, which no file can
    return Golden(prompt, answer, is_raw)


def bundle_place(model: Path, name: str) -> Path:
    """Where the bundle of a model is kept between runs: beside it, where hard links work, or in the user's cache."""
    parent = model.resolve().parent
    if os.access(parent, os.W_OK):
        return parent / ".deploytk" / name
    mark = hashlib.sha256(str(model.resolve()).encode()).hexdigest()[:8]
    return cache_directory() / "bundles" / f"{name}-{mark}"
