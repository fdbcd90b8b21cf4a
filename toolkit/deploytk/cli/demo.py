"""The command that goes the whole way with a shipped model."""

from __future__ import annotations

from deploytk.cli.command import command
from deploytk.cli.session import Session, show


@command("deploytk demo")
def demo() -> None:
    """Go the whole way with shipped tiny models, on CPU, in a temporary directory; serving takes the extra cpu."""
    from deploytk.demo import run_demo

    show(run_demo(Session.progress), "show_demo")
