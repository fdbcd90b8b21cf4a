"""The command that says what works on this machine."""

from __future__ import annotations

from deploytk.cli.command import command
from deploytk.cli.session import Session, show


@command("deploytk doctor --json")
def doctor() -> None:
    """Show what works here: driver, GPU, Docker, git-lfs, credentials, mirrors."""
    from deploytk.doctor import check_up

    show(check_up(Session.settings), "show_checkup")
