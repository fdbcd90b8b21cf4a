"""What holds for the one run of this process, and how a command prints its value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol, cast

import typer

from deploytk.base.errors import UsageError
from deploytk.base.json import plain, to_json
from deploytk.base.progress import Progress, Silent, Verbose, terminal_progress
from deploytk.base.settings import Settings


class _Everywhere(Protocol):
    """What every command takes: see `Everywhere` in deploytk.cli.command."""

    @property
    def as_json(self) -> bool: ...
    @property
    def quiet(self) -> bool: ...
    @property
    def verbose(self) -> bool: ...


class Session:
    """What is set for the one run of this process, before the command and by what every command takes."""

    settings = Settings()
    progress: Progress = Silent()
    as_json = False
    given: Mapping[str, str] = {}  # what the command line itself sets: parameter -> as a person writes it

    @classmethod
    def show_progress(cls, *, quiet: bool, verbose: bool) -> None:
        if quiet:
            cls.progress = Silent()
        elif verbose:
            cls.progress = Verbose()

    @classmethod
    def start(cls, settings: Settings, *, quiet: bool, verbose: bool) -> None:
        """Before the command is known."""
        cls.settings, cls.given, cls.as_json = settings, {}, False
        cls.progress = terminal_progress()
        cls.show_progress(quiet=quiet, verbose=verbose)

    @classmethod
    def begin(cls, given: Mapping[str, str], options: _Everywhere) -> None:
        """With the command's own options."""
        cls.given, cls.as_json = given, options.as_json
        cls.show_progress(quiet=options.quiet, verbose=options.verbose)


def unused(*options: str | type, because: str, hint: str = "leave it out") -> None:
    """Raises UsageError when one of these options, by name or by group, is on the command line: it would do nothing.

    What deploytk.toml sets is a default for where it applies, and is no reason to stop.
    """
    names = [name for one in options for name in ([one] if isinstance(one, str) else _names(one))]
    found = [Session.given[name] for name in names if name in Session.given]
    if found:
        raise UsageError(f"{found[0]} does nothing here: {because}", hint=hint)


def _names(group: type) -> list[str]:
    return [field.name for field in dataclasses.fields(group)]


def show(value: object, show: str, leave_out: tuple[str, ...] = ()) -> None:
    """Print `value` as JSON, or by the function `show` of deploytk.display, which is loaded only then."""
    if not Session.as_json:
        from deploytk import display

        getattr(display, show)(value)
        return
    fields = cast(dict[str, object], plain(value))
    kept = {name: item for name, item in fields.items() if name not in leave_out}
    typer.echo(to_json(kept, indent=2))
