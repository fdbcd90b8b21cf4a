"""The commands about deploytk.toml."""

from __future__ import annotations

import typer

from deploytk.cli.command import command
from deploytk.cli.session import show

commands = typer.Typer(
    help="deploytk.toml: defaults for options, mirrors, budgets.", no_args_is_help=True, rich_markup_mode=None
)


@command("deploytk config schema > deploytk.schema.json")
def schema() -> None:
    """Print the JSON schema of deploytk.toml, for editors: `#:schema ./deploytk.schema.json` on its first line."""
    from deploytk.base.settings import file_type
    from deploytk.base.toml import json_schema
    from deploytk.cli.tables import tables

    show(json_schema(file_type(tables())), "show_json")


schema.add_to(commands)
