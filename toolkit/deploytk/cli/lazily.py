"""The commands by their names: the module of one is loaded when somebody asks for it, not with those of all others."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, MutableMapping
from typing import Any

import typer
from typer.core import TyperGroup

from deploytk.cli.command import Command, show_literally

NAMES = (  # in the order in which somebody meets them; each is the file of its command
    "inspect",
    "plan",
    "modernize",
    "quantize",
    "package",
    "serve",
    "chat",
    "build",
    "preflight",
    "publish",
    "scale",
    "verify",
    "smoke",
    "bench",
    "report",
    "summary",
    "calibrate",
    "doctor",
    "demo",
    "template",
    "config",
)


def load(name: str) -> Command | typer.Typer:
    """The command of that name, or the group of commands below it."""
    module = importlib.import_module(f"deploytk.cli.{name}")
    found: Command | typer.Typer = module.commands if hasattr(module, "commands") else getattr(module, name)
    return found


def commands() -> tuple[Command, ...]:
    """All of them, but the groups."""
    return tuple(found for found in map(load, NAMES) if isinstance(found, Command))


class Lazily(TyperGroup):
    """The group of all commands. Help, which tells about each, loads them all."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Loading()


class _Loading(MutableMapping[str, Any]):
    """Name -> command, made when it is first asked for."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in NAMES:
            raise KeyError(name)
        if name not in self._made:
            self._made[name] = _made(name)
        return self._made[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        raise NotImplementedError

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)


def _made(name: str) -> Any:
    """The command as typer runs it."""
    found = load(name)
    if isinstance(found, Command):
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        found.add_to(app)
        made: Any = typer.main.get_command(app)
    else:
        made = typer.main.get_group(found)
        made.name = name
    show_literally(made)
    return made
