"""Commands about this machine."""

from __future__ import annotations

import typer

from deploytk.cli.options import AsJson
from deploytk.cli.session import Session, show

commands = typer.Typer()


@commands.command(epilog="Example:  deploytk doctor --json")
def doctor(as_json: AsJson = False) -> None:
    """Show what works here: driver, GPU, Docker, git-lfs, credentials, mirrors."""
    from deploytk.doctor import check_up

    show(check_up(Session.settings), as_json, "show_checkup")


@commands.command(epilog="Example:  deploytk demo")
def demo(as_json: AsJson = False) -> None:
    """Go the whole way with a shipped tiny model, on CPU, in a temporary directory."""
    from deploytk.demo import run_demo

    show(run_demo(Session.progress), as_json, "show_demo")
