"""What belongs to a tokenizer, and whether it is whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploytk.artifact.text_formats import read_json
from deploytk.artifact.value import Problem
from deploytk.base.errors import ArtifactError

_COMPLETE = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))


_START_BYTES = 256
_TIKTOKEN_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")
_DIGITS = 12
_LARGEST_ADDED_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """The tokenizer in a directory."""

    has_chat_template: bool
    problems: tuple[Problem, ...]


def read_tokenizer(directory: Path, vocab_size: int, shown_as: str = "") -> Tokenizer:
    """The tokenizer in `directory` of a model with so many tokens; problems call it by the prefix `shown_as`."""
    problems = [*_missing(directory, shown_as), *_tiktoken(directory, shown_as)]
    settings: dict[str, object] = {}
    path = directory / "tokenizer_config.json"
    if path.is_file():
        try:
            settings = read_json(path)
        except ArtifactError as error:
            problems.append(Problem("error", str(error).replace(str(path), f"{shown_as}{path.name}"), error.hint))
    problems += _beyond(directory, settings, vocab_size, shown_as)
    templates = ("chat_template.jinja", "chat_template.json")
    has_template = any((directory / name).is_file() for name in templates) or bool(settings.get("chat_template"))
    return Tokenizer(has_template, tuple(problems))


def _missing(directory: Path, shown_as: str) -> Iterator[Problem]:
    is_there = any(all((directory / name).is_file() for name in names) for names in _COMPLETE)
    if not is_there and not any(directory.glob("*.tiktoken")):
        message = f"{shown_as}tokenizer.json is missing, and so is any other tokenizer"
        yield Problem("error", message, "copy the tokenizer's files from the original model")


def _tiktoken(directory: Path, shown_as: str) -> Iterator[Problem]:
    """Meta's own releases of Llama 3 have a vocabulary of tiktoken under the name of SentencePiece's."""
    path = directory / "tokenizer.model"
    if not path.is_file() or (directory / "tokenizer.json").is_file():
        return
    try:
        with path.open("rb") as file:
            start = file.read(_START_BYTES)
    except OSError:
        return
    if _TIKTOKEN_LINE.match(start):
        message = f"{shown_as}tokenizer.model is a vocabulary of tiktoken, not SentencePiece's: LMDeploy cannot read it"
        yield Problem("warning", message, "copy tokenizer.json from the model's Hugging Face repository")


def _beyond(directory: Path, settings: dict[str, object], vocab_size: int, shown_as: str) -> Iterator[Problem]:
    """Added tokens that the model has no row for."""
    found = dict(_added_tokens(directory, settings))
    beyond = sorted(number for number in found if number >= vocab_size)
    if beyond:
        message = (
            f"{shown_as}tokens that the tokenizer adds are beyond the model's vocabulary of {vocab_size}: "
            f"{len(beyond)}, the first is {found[beyond[0]][:60]!r} with number {beyond[0]}"
        )
        yield Problem("warning", message, "a prompt with it fails or is answered with garbage: resize the embeddings")


def _added_tokens(directory: Path, settings: dict[str, object]) -> Iterator[tuple[int, str]]:
    """Number -> text of what tokenizer.json, tokenizer_config.json and added_tokens.json add."""
    for token in _of_tokenizer_json(directory / "tokenizer.json"):
        if isinstance(token, dict) and type(token.get("id")) is int:
            yield token["id"], str(token.get("content"))
    decoder = settings.get("added_tokens_decoder")
    for number, token in decoder.items() if isinstance(decoder, dict) else ():
        if str(number).isdecimal() and len(str(number)) < _DIGITS:
            content = token.get("content") if isinstance(token, dict) else token
            yield int(number), str(content)
    try:
        added = read_json(directory / "added_tokens.json") if (directory / "added_tokens.json").is_file() else {}
    except ArtifactError:  # the file says so itself where it is needed
        return
    for text, number in added.items():
        if type(number) is int:
            yield number, text


def _of_tokenizer_json(path: Path) -> list[object]:
    """`added_tokens`, which tokenizers writes near the start; the vocabulary after it is not parsed."""
    try:
        with path.open("rb") as file:
            start = file.read(_LARGEST_ADDED_BYTES).decode("utf-8", "ignore")
        place = start.index('"added_tokens"') + len('"added_tokens"')
        found, _ = json.JSONDecoder().raw_decode(start, start.index("[", place))
    except (OSError, ValueError, RecursionError):
        return []
    return found if isinstance(found, list) else []
