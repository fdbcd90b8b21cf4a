"""Reads TOML into a typed value; what is wrong is said in words, with its line."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploytk.base.errors import SettingsError
from deploytk.base.validation import in_words

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

_HEADER = re.compile(r"\s*\[\[?\s*([^\]]+?)\s*\]")
_KEY = re.compile(r"\s*((?:\"[^\"]*\"|'[^']*'|[\w.-])+)\s*=")


def read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """Text and tables of a file; raises SettingsError naming it and, for what is no TOML, the line."""
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}", hint="it must be a TOML file in UTF-8") from error


def parse(path: Path, text: str, tables: dict[str, Any], model: type[BaseModel]) -> BaseModel:
    """The tables as a value of `model`; raises SettingsError naming file, line and key."""
    from pydantic import ValidationError

    try:
        return model.model_validate_json(json.dumps(tables, default=str), strict=True)
    except ValidationError as error:
        raise _wrong(path, text, model, error.errors(include_url=False)[0]) from error


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """What a file may hold, for editors."""
    from pydantic.json_schema import GenerateJsonSchema

    class WithoutDefaults(GenerateJsonSchema):
        """Nothing stands for a key that is left out: TOML has no null."""

        def default_schema(self, schema: Any) -> dict[str, Any]:
            return self.generate_inner(schema["schema"])

    found = model.model_json_schema(schema_generator=WithoutDefaults)
    return {"$schema": GenerateJsonSchema.schema_dialect, **found}


def line_of(text: str, keys: Sequence[str]) -> int | None:
    """The number of the line that sets `keys`, else of the one that opens their table; - and _ are the same in keys."""
    wanted = tuple(map(_alike, keys))
    found = {place: number for number, place in _places(text)}
    lengths = range(len(wanted), 0, -1)
    return next((found[wanted[:length]] for length in lengths if wanted[:length] in found), None)


def _places(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        header, key = _HEADER.match(line), _KEY.match(line)
        if header:
            table = _parts(header[1])
        if header or key:
            yield number, table if header or not key else (*table, *_parts(key[1]))


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(_alike(part.strip().strip("\"'")) for part in dotted.split("."))


def _alike(key: str) -> str:
    return key.replace("_", "-")


def _wrong(path: Path, text: str, model: type[BaseModel], found: ErrorDetails) -> SettingsError:
    keys = [part for part in found["loc"] if isinstance(part, str)]
    number = line_of(text, keys)
    where = f"{path}, line {number}" if number else str(path)
    if found["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = sorted(_names(model, keys[:-1]))
        near = difflib.get_close_matches(keys[-1], known, 1)
        hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}"
        what = f"[{keys[0]}] has no option {keys[1]!r}" if keys[1:] else f"there is no table or command {keys[0]!r}"
        return SettingsError(f"{where}: {what}", hint=hint)
    hint = "deploytk config schema shows what deploytk.toml takes"
    return SettingsError(f"{where}: {'.'.join(keys)}: {in_words(found)}", hint=hint)


def _names(model: Any, keys: Sequence[str]) -> list[str]:
    """The keys that a table takes."""
    for key in keys:
        model = model.model_fields[key].annotation
    if dataclasses.is_dataclass(model):
        return [field.name for field in dataclasses.fields(model)]
    return [field.alias or name for name, field in model.model_fields.items()]
