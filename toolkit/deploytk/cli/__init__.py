"""The commands: read options, call a stage, print."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from deploytk import __version__
from deploytk.base.errors import DeployError
from deploytk.base.settings import check_commands, find_settings, load_settings
from deploytk.base.terminal import printable
from deploytk.cli import (
    bench,
    build,
    demo,
    doctor,
    inspect,
    modernize,
    package,
    plan,
    preflight,
    publish,
    report,
    serve,
    smoke,
    template,
)
from deploytk.cli.command import Command, Quiet, Verbose
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

COMMANDS: tuple[Command, ...] = (  # in the order in which somebody meets them
    inspect.inspect,
    plan.plan,
    modernize.modernize,
    package.package,
    serve.serve,
    build.build,
    preflight.preflight,
    publish.publish,
    smoke.smoke,
    bench.bench,
    report.report,
    doctor.doctor,
    demo.demo,
)
for one in COMMANDS:
    one.add_to(app)
app.add_typer(template.commands, name="template")


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"deploytk {__version__}")
        raise typer.Exit


@app.callback()
def _start(
    context: typer.Context,
    quiet: Quiet = False,
    verbose: Verbose = False,
    version: Annotated[  # noqa: ARG001 (its callback does the work)
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    Session.start(load_settings(find_settings(sys.argv[1:])), quiet=quiet, verbose=verbose)
    commands = getattr(context.command, "commands", {})
    defaults = Session.settings.commands.get("publish")
    if defaults is not None or context.invoked_subcommand == "publish":
        publish.adapt(commands["publish"], sys.argv[1:], defaults or {})
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
