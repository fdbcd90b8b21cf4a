"""The command that decides how a model is served."""

from __future__ import annotations

import typer

from deploytk.cli.command import command
from deploytk.cli.options import Engine, ModelDir, Planning
from deploytk.cli.session import show


@command("deploytk plan ./internlm-chat-7b-awq --gpu A10 --session-len 4096 --kv int8")
def plan(model: ModelDir, planning: Planning, engine: Engine = "auto") -> None:
    """Decide how a model is served and what VRAM that takes, before anything is deployed."""
    from deploytk.artifact import read_artifact
    from deploytk.plan import plan_serving

    planning = planning.on_cpu() if engine == "cpu" else planning
    made = plan_serving(read_artifact(model), planning.request(engine))
    show(made, "show_plan")
    if made.fits is False:
        raise typer.Exit(3)
