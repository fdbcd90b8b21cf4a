"""How a function becomes a command: groups of options are spread over its signature, beside those of every command."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import os
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

from deploytk.cli.defaults import read_defaults
from deploytk.cli.session import Session
from deploytk.publish.options import Option

_OPTION = type(typer.Option())

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Every step on stderr, also the short ones.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the value, or the error, as JSON on stdout.")]


@dataclass(frozen=True, slots=True)
class Everywhere:
    """What every command takes."""

    as_json: AsJson = False
    quiet: Quiet = False
    verbose: Verbose = False


@dataclass(frozen=True, slots=True)
class Command:
    """A function that is called with its options as they are in groups, and how it is called by a person."""

    name: str
    function: Callable[..., None]
    example: str
    known_later: Callable[[], Mapping[str, Any]] = dict  # types of parameters that depend on what is installed

    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """All its options and arguments, one by one, but those that every command takes."""
        spread_out = inspect.signature(spread(self.function, **self.known_later())).parameters
        return {name: one for name, one in spread_out.items() if name not in ("context", *Everywhere.__slots__)}

    def add_to(self, app: typer.Typer) -> None:
        # \b: a line that is to be pasted is not broken.
        epilog, summary = f"\b\nExample:  {self.example}", str(inspect.getdoc(self.function)).partition("\n\n")[0]
        app.command(self.name, epilog=epilog, short_help=summary)(spread(self.function))


def command(
    example: str, *, name: str | None = None, known_later: Callable[[], Mapping[str, Any]] = dict
) -> Callable[[Callable[..., None]], Command]:
    """The decorator of a command's function. Parameters whose type is a dataclass are groups: see `spread`."""
    return lambda function: Command(name or function.__name__, function, example, known_later)


def show_literally(command: Any) -> None:
    """Arguments of a command, or of all below a group, by their names alone: the type that typer adds is Python's."""
    for below in getattr(command, "commands", {}).values():
        show_literally(below)
    for one in command.params:
        if one.param_type_name == "argument":
            one.display_type_rich = lambda ctx: None  # noqa: ARG005 (typer's word)


def describe_on_one_line() -> None:
    """For a shell that completes: typer breaks descriptions at the width of a terminal, and fish takes each line of one
    for a word to choose from."""
    if "_DEPLOYTK_COMPLETE" in os.environ:
        os.environ["COLUMNS"] = "10000"


def metavar(kind: Any, told: Any) -> str | None:
    """What stands behind an option, of a type and as typer is told about it; None for a flag."""
    if get_origin(kind) in (Union, types.UnionType):
        [kind] = [one for one in get_args(kind) if one is not type(None)]
    kind = get_args(kind)[0] if get_origin(kind) is list else kind
    if kind is bool:
        return None
    if told.metavar:
        return str(told.metavar)
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if kind is Path:
        return "DIR" if not told.file_okay else "FILE" if not told.dir_okay else "PATH"
    return {int: "N", float: "NUMBER"}.get(kind, "TEXT")


def spread(function: Callable[..., None], **types: Any) -> Callable[..., None]:
    """`function` as typer takes it: each field of a group is an option of its own, put together again for the call.

    `types` are for parameters whose type is known only now.
    """
    signature = inspect.signature(function, eval_str=True)
    parameters = {
        name: one.replace(annotation=types.get(name, one.annotation)) for name, one in signature.parameters.items()
    }
    groups = {name: one.annotation for name, one in parameters.items() if dataclasses.is_dataclass(one.annotation)}
    options: list[inspect.Parameter] = [_parameter("context", typer.Context)]
    for name, one in parameters.items():
        options += _fields(groups[name]) if name in groups else [_parameter(name, one.annotation, one.default)]

    def run(context: typer.Context, **values: Any) -> None:
        _begin(context, _taken(Everywhere, values))
        function(**{name: _taken(group, values) for name, group in groups.items()}, **values)

    return _with_signature(run, function, [*options, *_fields(Everywhere)])


def _begin(context: typer.Context, everywhere: Everywhere) -> None:
    Session.has_begun, Session.as_json, Session.given = True, everywhere.as_json, _given(context)
    Session.show_progress(quiet=everywhere.quiet, verbose=everywhere.verbose)
    if not Session.command:
        read_defaults(context, value=None)


def _fields(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        _parameter(field.name, _typed(field.name, hints[field.name]), _default(field))
        for field in dataclasses.fields(group)
    ]


def _typed(name: str, hint: Any) -> Any:
    """The type of a field as typer reads it, when a target has declared it by an Option of its own."""
    declared = [one for one in getattr(hint, "__metadata__", ()) if isinstance(one, Option)]
    if not declared:
        return hint
    [one] = declared
    flag = f"--{name.replace('_', '-')}"
    return Annotated[
        hint.__origin__,
        typer.Option(
            flag,
            help=one.help,
            metavar=one.metavar,
            parser=one.parse,
            hidden=one.is_hidden,
        ),
    ]


def _default(field: dataclasses.Field[Any]) -> object:
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default


def _parameter(name: str, annotation: Any, default: object = inspect.Parameter.empty) -> inspect.Parameter:
    shown = _shown(annotation) if get_origin(annotation) is Annotated else annotation
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=shown)


def _shown(annotation: Any) -> Any:
    """With the metavar that an option has by its type."""
    kind, *notes = get_args(annotation)
    options = [copy.copy(one) if isinstance(one, _OPTION) else one for one in notes]
    for one in options:
        if isinstance(one, _OPTION):
            one.metavar = metavar(kind, one)
    parts = (kind, *options)
    return Annotated[parts]


def _taken(group: Any, values: dict[str, Any]) -> Any:
    return group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})


def _given(context: typer.Context) -> Mapping[str, str]:
    """The parameters that the command line itself sets, by name, each as a person writes it."""
    sources = {one: context.get_parameter_source(str(one.name)) for one in context.command.params}
    set_here = [one for one, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    return {str(one.name): _written(one) for one in set_here}


def _written(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name)
    return str(max(parameter.opts, key=len))


def _with_signature(
    run: Callable[..., None], function: Callable[..., None], parameters: list[inspect.Parameter]
) -> Callable[..., None]:
    run.__name__, run.__doc__, run.__module__ = function.__name__, function.__doc__, function.__module__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run
