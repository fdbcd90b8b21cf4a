"""The command that says what a model directory is."""

from __future__ import annotations

from deploytk.cli.command import command
from deploytk.cli.options import ModelDir
from deploytk.cli.session import show


@command("deploytk inspect ./workspace_hfmerge --json")
def inspect(model: ModelDir) -> None:
    """Show what a model directory is, what can serve it, and what is wrong with it."""
    from deploytk.artifact import read_artifact

    artifact = read_artifact(model)
    show(artifact, "show_artifact", leave_out=("config", "facts"))
    artifact.require_usable()
