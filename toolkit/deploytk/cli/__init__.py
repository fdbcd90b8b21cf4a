"""The commands: read options, call a stage, print."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from deploytk import __version__
from deploytk.base.errors import DeployError
from deploytk.base.progress import Silent, terminal_progress
from deploytk.base.settings import check_commands, find_settings, load_settings
from deploytk.base.terminal import printable
from deploytk.cli import image, machine, measure, model, preview, release
from deploytk.cli.session import Session

app = typer.Typer(
    name="deploytk",
    help="From a quantized LMDeploy/TurboMind model directory to a published, running, measured deployment.",
    epilog="Start with:  deploytk demo   then   deploytk inspect MODEL",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)

# In the order in which somebody meets them.
for stage in (model, preview, image, release, measure, machine):
    app.add_typer(stage.commands)
app.add_typer(model.templates, name="template")


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"deploytk {__version__}")
        raise typer.Exit


@app.callback()
def _start(
    context: typer.Context,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    version: Annotated[  # noqa: ARG001 (its callback does the work)
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    Session.progress = Silent() if quiet else terminal_progress()
    Session.settings = load_settings(find_settings(sys.argv[1:]))
    commands = getattr(context.command, "commands", {})
    known = {name: {option.name for option in command.params} for name, command in commands.items()}
    context.default_map = dict(check_commands(Session.settings, known))


def main() -> None:
    """The entry point: a DeployError becomes two lines on stderr and its exit code."""
    # To be asked to end is like Ctrl-C: everything on the way out is cleaned up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except DeployError as error:
        typer.echo(printable(f"error: {error}\n hint: {error.hint}"), err=True)
        sys.exit(error.exit_code)
