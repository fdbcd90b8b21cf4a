"""The commands about the templates of card and app."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploytk.cli.command import command
from deploytk.cli.session import show

commands = typer.Typer(help="The templates of card and app.", no_args_is_help=True, rich_markup_mode=None)


@command("deploytk template export ./my-templates")
def export(output: Annotated[Path, typer.Argument(metavar="DIR", help="A new directory.")]) -> None:
    """Write the shipped templates, to be changed and given to --template."""
    from deploytk.bundle import export_templates

    show(export_templates(output), "show_exported")


export.add_to(commands)
