"""The command that tells what a whole workflow did."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploytk.base.terminal import printable
from deploytk.cli.command import command
from deploytk.cli.defaults import source_argument
from deploytk.cli.session import show


@command("deploytk summary ./run --github")
def summary(
    directory: Annotated[Path, source_argument("DIR", "Where the --json of commands lies, as inspect.json and so on.")],
    github: Annotated[
        bool, typer.Option("--github", help="Also the job's page, the step's outputs and annotations, on GitHub.")
    ] = False,
) -> None:
    """Tell as Markdown what the commands of a workflow did, from what --json printed."""
    from deploytk.workflow import summarize, tell_github

    found = summarize(directory)
    for annotation in tell_github(found) if github else ():
        typer.echo(printable(annotation), err=True)
    show(found, "show_summary")
