"""Reads our own values back from JSON that anybody may have written: strictly, or not at all."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Hashable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from deploytk.base.json import plain
from deploytk.base.terminal import one_line
from deploytk.base.validation import in_words

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Value = TypeVar("Value")

LARGEST = 2**63 - 1
"""Of a whole number: no size, count or time of ours is larger, and none is less than 0."""


def typed(kind: type[Value], found: object, what: str) -> Value:
    """The dataclass `kind` that `found`, parsed JSON, is; raises ValueError, which names the place in `what`.

    Strict: nothing is converted, nothing may be missing, and nothing may be there that `kind` would not write.
    """
    from pydantic import ValidationError

    try:
        value: Value = type_adapter(kind).validate_json(json.dumps(found), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, (what, *first["loc"]))).strip(".")
        if first["type"] == "missing":
            raise ValueError(f"{place} is missing") from error
        raise ValueError(f"{place} is malformed: {in_words(first, names_value=False)}") from error
    stranger = _difference(found, plain(value), what)
    if stranger:
        raise ValueError(f"{one_line(stranger).strip('.')} is nothing that deploytk writes")
    _require_counts(value, what)
    return value


def type_adapter(kind: type[Value]) -> TypeAdapter[Value]:
    """Made once per kind: that takes longer than a bundle's manifest, or a report."""
    return _adapter(cast(Hashable, kind))


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(cast(Any, kind))


def _difference(found: Any, written: Any, place: str) -> str:
    """Where two values of JSON differ, "" when they do not; unlike in Python, true is not 1."""
    if isinstance(found, dict) and isinstance(written, dict):
        for key in sorted(found.keys() | written.keys()):
            if key not in found or key not in written:
                return f"{place}.{key}"
        places = ((found[key], written[key], f"{place}.{key}") for key in found)
    elif isinstance(found, list) and isinstance(written, list) and len(found) == len(written):
        places = ((one, other, f"{place}.{at}") for at, (one, other) in enumerate(zip(found, written, strict=True)))
    else:
        is_same = found == written and isinstance(found, bool) == isinstance(written, bool)
        return "" if is_same else place
    return next((difference for one in places if (difference := _difference(*one))), "")


def _require_counts(value: object, place: str) -> None:
    """Raises ValueError when a whole number among the fields of dataclasses is none that we could have counted."""
    if isinstance(value, int) and not 0 <= value <= LARGEST:
        raise ValueError(f"{one_line(place).strip('.')} is no possible number")
    if isinstance(value, (tuple, dict)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if dataclasses.is_dataclass(item):
                _require_counts(item, f"{place}.{key}")
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _require_counts(getattr(value, field.name), f"{place}.{field.name}")
