"""The command that says what works on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from deploytk.cli.command import command
from deploytk.cli.session import Session, show

Security = Annotated[
    bool, typer.Option("--security", help="Also name the security advisories of LMDeploy, torch and transformers.")
]


@command("deploytk doctor --json")
def doctor(security: Security = False) -> None:
    """Show what works here: driver, GPU, Docker, git-lfs, credentials, mirrors."""
    from deploytk.doctor import check_up

    show(check_up(Session.settings, security=security), "show_checkup")
