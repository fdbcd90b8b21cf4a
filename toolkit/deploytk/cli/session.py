"""What holds for the one run of this process, and how a command prints its value."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import cast

import typer

from deploytk.base.errors import DeployError, UsageError
from deploytk.base.json import plain, to_json
from deploytk.base.progress import Progress, Silent, Verbose, terminal_progress
from deploytk.base.retry import Waits
from deploytk.base.settings import Settings, Tables


class Session:
    """What holds for the one run of this process: what is set before the command, and by what every command takes."""

    tables: Callable[[], Tables] = dict  # what deploytk.toml may set for the commands
    settings = Settings()
    progress: Progress = Silent()
    as_json = False
    given: Mapping[str, str] = {}  # what the command line itself sets: parameter -> as a person writes it
    defaults: Mapping[str, object] = {}  # what deploytk.toml sets instead: option without dashes -> value
    command = ""
    has_begun = False  # the command is running
    has_shown = False  # its value is on stdout

    @classmethod
    def start(cls, tables: Callable[[], Tables]) -> None:
        """Before the command is known."""
        cls.tables = tables
        cls.settings, cls.given, cls.defaults = Settings(), {}, {}
        cls.as_json = cls.has_begun = cls.has_shown = False
        cls.command = ""
        cls.progress = terminal_progress()

    @classmethod
    def show_progress(cls, *, quiet: bool, verbose: bool) -> None:
        if quiet and verbose:
            raise UsageError("-q and -v ask for opposite things", hint="take one of them")
        if quiet or verbose:
            cls.progress = Silent() if quiet else Verbose()
        Waits.say = cls.progress.note


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


class OutputError(DeployError):
    """stdout takes no more; no stage raises it."""


def show(value: object, show: str, leave_out: tuple[str, ...] = ()) -> None:
    """Print `value` as JSON, or by the function `show` of deploytk.display, which is loaded only then."""
    try:
        if Session.as_json:
            fields = cast(dict[str, object], plain(value))
            kept = {name: item for name, item in fields.items() if name not in leave_out}
            typer.echo(to_json(kept, indent=2))
        else:
            from deploytk import display

            getattr(display, show)(value)
    except BrokenPipeError:  # typer ends in silence
        raise
    except OSError as error:
        raise output_error(error) from error
    Session.has_shown = True


def output_error(error: OSError) -> OutputError:
    hint = "free some space, or send stdout somewhere else"
    return OutputError(f"the output cannot be written: {error.strerror}", hint=hint)
