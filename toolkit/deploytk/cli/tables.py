"""The options of the commands as tables of deploytk.toml: types for pydantic, which also makes the JSON schema."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

import typer

from deploytk.cli.command import Command
from deploytk.cli.lazily import commands

if TYPE_CHECKING:
    from pydantic import BaseModel

_OPTION, _ARGUMENT = type(typer.Option()), type(typer.Argument())


def tables() -> dict[str, type[BaseModel]]:
    """For every command the type of its table. Arguments, --json, -q and -v are for the command line alone."""
    found = {command.name: _table(command) for command in commands()}
    return {name: table for name, table in found.items() if table.model_fields}


def _table(command: Command) -> type[BaseModel]:
    from pydantic import ConfigDict, create_model

    fields: dict[str, Any] = {
        name: _field(name, *_parts(one.annotation))
        for name, one in command.parameters().items()
        if not isinstance(_parts(one.annotation)[1], _ARGUMENT)
    }
    # A name with a space: no command has it, and the schema tells the definitions of options from the commands.
    return create_model(f"options of {command.name}", __config__=ConfigDict(extra="forbid"), **fields)


def _parts(annotation: Any) -> tuple[Any, Any]:
    """The type without None, and what typer is told about it."""
    told = typer.Option()
    if get_origin(annotation) is Annotated:
        annotation, *notes = get_args(annotation)
        told = next((note for note in notes if isinstance(note, (_OPTION, _ARGUMENT))), told)
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = Union[tuple(one for one in get_args(annotation) if one is not type(None))]  # noqa: UP007
    return str if getattr(told, "parser", None) else annotation, told


def _field(name: str, kind: Any, told: Any) -> tuple[Any, Any]:
    from pydantic import Field

    bounds = {"ge": told.min, "le": told.max}
    given = {bound: limit for bound, limit in bounds.items() if limit is not None}
    return kind, Field(default=None, alias=long_name(name, told), description=told.help, **given)


def long_name(name: str, told: Any) -> str:
    """An option as a person writes it, without its dashes."""
    written = [told.default, *(told.param_decls or ())] if isinstance(told, _OPTION) else []
    long = [one for one in written if isinstance(one, str) and one.startswith("--")]
    return long[0].removeprefix("--") if long else name.replace("_", "-")
