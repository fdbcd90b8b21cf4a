"""The commands of the app itself, and what a run of one gives."""

from __future__ import annotations

import contextlib
import io
import signal
from dataclasses import dataclass
from typing import Any
from unittest import mock

from typer.main import get_command

from deploytk.cli import app, main


def _leaves(group: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    found = {}
    for name, command in group.commands.items():
        found |= _leaves(command, (*path, name)) if hasattr(command, "commands") else {(*path, name): command}
    return found


COMMANDS: dict[tuple[str, ...], Any] = _leaves(get_command(app))
NAMES = [" ".join(path) for path in COMMANDS]


def options_of(name: str) -> set[str]:
    """All the ways in which options of a command are written."""
    options = [one for one in COMMANDS[tuple(name.split())].params if one.param_type_name == "option"]
    return {written for one in options for written in one.opts} | {"--help", "-h"}


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    stdout: str
    stderr: str


def run(*words: str) -> Done:
    """A run of the real entry point, in this process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    stdout, stderr = io.StringIO(), io.StringIO()
    try:
        with (
            mock.patch("sys.argv", ["deploytk", *words]),
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
        ):
            main()
    except SystemExit as ended:
        return Done(int(str(ended.code)), stdout.getvalue(), stderr.getvalue())
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
