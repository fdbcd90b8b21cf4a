"""What belongs to a tokenizer, and whether it is whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploytk.artifact.text_formats import read_json
from deploytk.artifact.value import Problem
from deploytk.base.errors import ArtifactError

_COMPLETE = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """The tokenizer in a directory."""

    has_chat_template: bool
    problems: tuple[Problem, ...]


def read_tokenizer(directory: Path, shown_as: str = "") -> Tokenizer:
    """The tokenizer in `directory`, which problems call by the prefix `shown_as`."""
    problems = list(_missing(directory, shown_as))
    settings: dict[str, object] = {}
    path = directory / "tokenizer_config.json"
    if path.is_file():
        try:
            settings = read_json(path)
        except ArtifactError as error:
            problems.append(Problem("error", str(error).replace(str(path), f"{shown_as}{path.name}"), error.hint))
    if "auto_map" in settings:
        message = f"{shown_as}{path.name} names code of its own (auto_map)"
        problems.append(Problem("warning", message, "LMDeploy from 0.13.0 on runs it with --trust-remote-code alone"))
    templates = ("chat_template.jinja", "chat_template.json")
    has_template = any((directory / name).is_file() for name in templates) or bool(settings.get("chat_template"))
    return Tokenizer(has_template, tuple(problems))


def _missing(directory: Path, shown_as: str) -> Iterator[Problem]:
    is_there = any(all((directory / name).is_file() for name in names) for names in _COMPLETE)
    if not is_there and not any(directory.glob("*.tiktoken")):
        message = f"{shown_as}tokenizer.json is missing, and so is any other tokenizer"
        yield Problem("error", message, "copy the tokenizer's files from the original model")
