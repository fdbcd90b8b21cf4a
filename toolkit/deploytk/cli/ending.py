"""How a run ends: an exit code for everything, two lines for an error, nothing half said, nobody left running."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

import typer

from deploytk.base.errors import DeployError, PlanError, SettingsError, UsageError
from deploytk.base.event_loop import interrupt
from deploytk.base.json import to_json
from deploytk.base.terminal import printable
from deploytk.cli.session import Session, output_error

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SAME_WISH_WITHIN_S = 0.5  # a terminal and a parent may both pass on one Ctrl-C
_CLEANED_UP_WITHIN_S = 1.5
_WITH_SERVERS = ("serve", "chat", "smoke", "bench", "preflight", "demo")  # which they have to stop, each in its time


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as `--json` prints it."""

    what: str
    hint: str
    exit_code: int


def run_to_the_end(run: Callable[[], object], arguments: Sequence[str]) -> int:
    """The exit code of a command; what went wrong is on stderr, and with --json on stdout too, as its one value."""
    ending = _Ending(arguments)
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, ending.ask)
    try:
        code = run()
        if sys.stdout is not None:  # as with >&-
            sys.stdout.flush()
    except (DeployError, typer.TyperException, OSError, typer.Abort, KeyboardInterrupt) as error:
        code = _fail(_failure(error), arguments)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return ending.say() if code == _INTERRUPTED and ending.number else code if isinstance(code, int) else 0


_INTERRUPTED = 130  # what typer makes of KeyboardInterrupt


class _Ending:
    """The first signal ends the command as Ctrl-C does, with all that it cleans up; the next one ends it at once.

    A command without servers to stop has two seconds in all: a library that waits in threads would hold it for
    minutes, and what is left unfinished is found by the next run, as after a kill.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.number: signal.Signals | None = None
        self._asked_s = 0.0
        self._arguments = arguments

    def ask(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        now = time.monotonic()
        if self.number is None:
            self.number, self._asked_s = signal.Signals(number), now
            if Session.command not in _WITH_SERVERS:
                signal.signal(signal.SIGALRM, self._run_out)
                signal.setitimer(signal.ITIMER_REAL, _CLEANED_UP_WITHIN_S)
            interrupt()
            return
        if now - self._asked_s > _SAME_WISH_WITHIN_S:
            _end_at_once(128 + number)

    def say(self) -> int:
        """The exit code, and with --json the value that says so."""
        assert self.number is not None  # noqa: S101 (it was asked)
        interrupted = Failure(f"ended by {self.number.name}", "run it again", 128 + self.number)
        return _fail(interrupted, self._arguments, is_said=False)

    def _run_out(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        code = 128 + (self.number or 0)
        with contextlib.suppress(RuntimeError, ValueError, OSError):  # stdout may be in the middle of a write
            code = self.say()
            sys.stdout.flush()
        _end_at_once(code)


def _end_at_once(code: int) -> NoReturn:
    """The kernel ends our children with us: see `die_with_parent`."""
    os._exit(code)


def _failure(error: BaseException) -> Failure:
    if isinstance(error, DeployError):
        place = _set_in_file(str(error)) if isinstance(error, (UsageError, PlanError)) else ""
        code = SettingsError.exit_code if place else error.exit_code
        return Failure(f"{place}{error}", error.hint, code)
    if isinstance(error, typer.TyperException):
        return _of_usage(error)
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return Failure("", "", _INTERRUPTED)
    if isinstance(error, OSError) and not Session.has_begun:  # only help and version were printed
        return _failure(output_error(error))
    raise error


def _of_usage(error: typer.TyperException) -> Failure:
    """What typer says of the command line, or of a default that deploytk.toml has for it."""
    context: Any = getattr(error, "ctx", None)
    if context is not None and error.format_message() == context.get_help():  # a group without a command
        typer.echo(error.format_message())
        return Failure("", "", UsageError.exit_code)
    message = _as_ours(error.format_message())
    option: Any = getattr(error, "param", None)
    if context is not None and option is not None and _is_from_file(context, option):
        place = _place(max(option.opts, key=len).removeprefix("--"))
        return Failure(f"{place}{message}", "correct it, or leave it out", SettingsError.exit_code)
    command = context.command_path if context is not None else "deploytk"
    return Failure(message, f"see {command} --help", UsageError.exit_code)


def _is_from_file(context: Any, option: Any) -> bool:
    source = context.get_parameter_source(option.name)
    return source is not None and source.name == "DEFAULT_MAP"


def _as_ours(message: str) -> str:
    """Errors begin small, end without a full stop and are one line."""
    words = " ".join(message.replace("Value error, ", "").split()).rstrip(".")
    return f"{words[:1].lower()}{words[1:]}"


def _set_in_file(message: str) -> str:
    """Where deploytk.toml sets the value that an error names; "" where it does not."""
    for name, value in Session.defaults.items():
        if not isinstance(value, bool) and re.search(rf"(?<!\w){re.escape(str(value))}(?!\w)", message):
            return _place(name)
    return ""


def _place(option: str) -> str:
    return f"{Session.settings.path}, line {Session.settings.line(Session.command, option)}: {option}: "


def _fail(failure: Failure, arguments: Sequence[str], *, is_said: bool = True) -> int:
    """Say it; returns the exit code. A value that is on stdout already stays the only one there."""
    if not failure.what:
        return failure.exit_code
    with contextlib.suppress(OSError):
        if is_said:
            typer.echo(printable(f"error: {failure.what}\n hint: {failure.hint}"), err=True)
        if _wants_json(arguments) and not Session.has_shown:
            typer.echo(to_json({"error": failure}, indent=2))
    return failure.exit_code


def _wants_json(arguments: Sequence[str]) -> bool:
    """Also when the command line could not be read."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return Session.as_json or (not Session.has_begun and "--json" in options)
