"""deploytk.toml, read for the command that runs: its settings, and defaults for the options."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import typer

from deploytk.base.settings import Settings, find_settings, load_settings
from deploytk.base.terminal import printable
from deploytk.cli.session import Session

_RIGHTS = ("trust-remote-code", "trust-bundle", "allow-pickle", "template")


def source_argument(metavar: str, help: str) -> Any:  # noqa: A002 (typer's word)
    """What a command acts on: beside it a deploytk.toml is looked for, before the options are read."""
    return typer.Argument(metavar=metavar, help=help, callback=read_defaults, is_eager=True)


def read_defaults(context: typer.Context, value: Any) -> Any:
    """Set the settings and the command's defaults; `value` is what the command acts on, one or several."""
    if context.resilient_parsing:
        return value
    Session.settings = settings_for(value)
    Session.command = str(context.info_name)
    Session.defaults = Session.settings.commands.get(Session.command, {})
    long = {option.removeprefix("--"): str(one.name) for one in context.command.params for option in one.opts}
    # Those of a target that was not chosen are left aside.
    context.default_map = {long[name]: default for name, default in Session.defaults.items() if name in long}
    _say_rights(long)
    return value


def _say_rights(options: Collection[str]) -> None:
    """A file that lets code of others run is not always one's own: a download may bring a model and one beside it."""
    for name in [name for name in _RIGHTS if name in options and Session.defaults.get(name)]:
        line = Session.settings.line(Session.command, name)
        where = f"{Session.settings.path}, line {line}" if line else f"{Session.settings.path}"
        typer.echo(printable(f"{where}, says --{name}: see that you wrote it"), err=True)


def settings_for(value: Any) -> Settings:
    """Those for what a command acts on, one or several."""
    sources = [Path(str(one).removeprefix("file://")) for one in (value if isinstance(value, list) else [value]) if one]
    return load_settings(find_settings(sources), Session.tables)
