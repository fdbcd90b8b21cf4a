"""Says in words of ours what pydantic found wrong with a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_KINDS = {
    "bool": "true or false",
    "dict": "a table",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "model": "a table",
    "dataclass": "a table",
    "path": "text",
    "string": "text",
    "tuple": "a list",
}
_BOUNDS = (("ge", "less than"), ("gt", "not more than"), ("le", "more than"), ("lt", "not less than"))
_LONGEST = 80


def in_words(found: ErrorDetails, *, names_value: bool = True) -> str:
    """What is wrong, as the end of a sentence that begins with the name; `names_value` with the value itself."""
    value, bounds = _shown(found.get("input")) if names_value else "it", found.get("ctx", {})
    if found["type"] == "missing":
        return "is missing"
    if found["type"] in ("literal_error", "enum"):
        return f"{value} is not one of {_listed(str(bounds['expected']))}"
    for bound, words in _BOUNDS:
        if bound in bounds:
            return f"{value} is {words} {bounds[bound]:g}"
    kind = _KINDS.get(found["type"].partition("_")[0])
    if kind:
        return f"{value} is not {kind}"
    return f"{value} is nothing that it takes"


def _listed(expected: str) -> str:
    return expected.replace(" or ", ", ").replace("'", "")


def _shown(value: object) -> str:
    """As a file has it: nothing of Python's."""
    if isinstance(value, str):
        return repr(value[:_LONGEST])
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nothing"}[value]
    if isinstance(value, dict):
        return "a table"
    return "a list" if isinstance(value, (list, tuple)) else str(value)
