"""Finds the numbers of tokens in a tokenizer's files, without loading a tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from deploytk.artifact.text_formats import LARGEST_INDEX_BYTES, read_json
from deploytk.base.digits import whole_number

_LARGEST_MODEL_BYTES = 64 * 2**20


def token_ids(files: Iterable[Path], tokens: Iterable[str]) -> dict[str, int]:
    """The number of each of `tokens` that the tokenizer made of `files` has as a token of its own."""
    by_name = {path.name: path for path in files}
    known: dict[str, Any] = {}
    if "tokenizer.model" in by_name:
        pieces = _pieces(by_name["tokenizer.model"])
        known |= {piece: number for number, piece in enumerate(pieces)}
    if "added_tokens.json" in by_name:
        known |= read_json(by_name["added_tokens.json"])
    if "tokenizer.json" in by_name:
        known |= _fast_tokens(read_json(by_name["tokenizer.json"], LARGEST_INDEX_BYTES))
    if "tokenizer_config.json" in by_name:
        decoder = read_json(by_name["tokenizer_config.json"]).get("added_tokens_decoder")
        numbered = decoder.items() if isinstance(decoder, dict) else ()
        known |= _contents((found, entry) for number, entry in numbered if (found := whole_number(number)) is not None)
    return {token: known[token] for token in tokens if type(known.get(token)) is int}


def adds_first_token(files: Iterable[Path]) -> bool:
    """Whether the tokenizer puts its first token before a text by itself.

    A template has to say it then: chats are tokenized without it by transformers, and LMDeploy removes a second one.
    """
    by_name = {path.name: path for path in files}
    settings = read_json(by_name["tokenizer_config.json"]) if "tokenizer_config.json" in by_name else {}
    if isinstance(settings.get("add_bos_token"), bool):
        return bool(settings["add_bos_token"])
    if "tokenizer.json" not in by_name:
        return "tokenizer.model" in by_name  # LMDeploy's own SentencePiece tokenizer always did
    processor = read_json(by_name["tokenizer.json"], LARGEST_INDEX_BYTES).get("post_processor")
    steps = (_list(processor.get("processors")) or [processor]) if isinstance(processor, dict) else []
    starts = [step.get("single") for step in _mappings(steps) if step.get("type") == "TemplateProcessing"]
    return any("SpecialToken" in start[0] for start in starts if isinstance(start, list) and _mappings(start[:1]))


def _fast_tokens(tokenizer: dict[str, Any]) -> dict[str, Any]:
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    known: dict[str, Any] = dict(vocabulary) if isinstance(vocabulary, dict) else {}
    if isinstance(vocabulary, list):  # Unigram: [piece, score]
        pieces = ((number, entry) for number, entry in enumerate(vocabulary) if isinstance(entry, list) and entry)
        known = {entry[0]: number for number, entry in pieces if isinstance(entry[0], str)}
    added = _mappings(_list(tokenizer.get("added_tokens")))
    return known | _contents((entry.get("id"), entry) for entry in added)


def _contents(numbered: Iterable[tuple[object, object]]) -> dict[str, object]:
    """The number by the text of each token; what is no token of a tokenizer's file is passed over."""
    tokens = ((number, entry.get("content")) for number, entry in numbered if isinstance(entry, dict))
    return {text: number for number, text in tokens if isinstance(text, str)}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _mappings(values: list[Any]) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)]


def _pieces(path: Path) -> Iterator[str]:
    """The pieces of a SentencePiece model: field 1 of its protobuf message, and field 1 of each of those."""
    with path.open("rb") as file:
        data = file.read(_LARGEST_MODEL_BYTES)
    for number, message in _fields(data):
        if number == 1:
            piece = next((value for field, value in _fields(message) if field == 1), b"")
            yield piece.decode(errors="replace")


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a protobuf message; numbers come as no bytes. Ends where it is no such message."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        kind, size = key & 7, 0
        if kind == 0:
            _, place = _varint(data, place)
        elif kind == 2:
            size, place = _varint(data, place)
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        else:
            return
        yield key >> 3, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(data) and shift < 64:
        byte = data[place]
        value, place, shift = value | (byte & 127) << shift, place + 1, shift + 7
        if byte < 128:
            break
    return value, place
