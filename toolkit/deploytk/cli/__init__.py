"""The commands: read options, call a stage, print."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from deploytk import __version__
from deploytk.cli.command import Quiet, Verbose, describe_on_one_line, show_literally
from deploytk.cli.ending import run_to_the_end
from deploytk.cli.lazily import Lazily
from deploytk.cli.session import Session
from deploytk.cli.tables import tables

app = typer.Typer(
    name="deploytk",
    cls=Lazily,
    help="From a quantized LMDeploy/TurboMind model directory to a published, running, measured deployment.",
    epilog="Start with:  deploytk demo   then   deploytk inspect MODEL",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


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
    Session.start(tables)
    if context.invoked_subcommand == "publish":
        from deploytk.cli.publish import adapt

        command = getattr(context.command, "commands", {})["publish"]
        adapt(command, context, sys.argv[sys.argv.index("publish") + 1 :] if "publish" in sys.argv else [])
        show_literally(command)
    Session.show_progress(quiet=quiet, verbose=verbose)


def main() -> NoReturn:
    """The entry point: whatever happens ends in an exit code, and an error in two lines on stderr."""
    describe_on_one_line()
    sys.exit(run_to_the_end(lambda: app(standalone_mode=False, prog_name="deploytk"), sys.argv[1:]))
