"""The command that decides how a model is served."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import typer

from deploytk.cli.command import command
from deploytk.cli.options import Engine, ModelDirOrHub, Planning, TrustRemoteCode
from deploytk.cli.session import Session, show, unused


@command("deploytk plan ./internlm-chat-7b-awq --gpu A10 --session-len 4096 --kv int8")
def plan(
    model: ModelDirOrHub, planning: Planning, engine: Engine = "auto", trust_remote_code: TrustRemoteCode = False
) -> None:
    """Decide how a model is served and what VRAM that takes, before anything is deployed."""
    from deploytk.artifact import read_artifact
    from deploytk.artifact.remote import RemoteModel, outline_of
    from deploytk.plan import plan_serving

    planning = planning.on_cpu() if engine == "cpu" else planning
    remote = RemoteModel.of(str(model), Session.settings.mirrors.models) if not model.exists() else None
    with outline_of(remote) if remote else contextlib.nullcontext(model) as place:
        artifact = read_artifact(place, allows_pickles=True)  # nothing of them is loaded here
    if remote:
        artifact = dataclasses.replace(artifact, root=Path(remote.repo))
    if not artifact.remote_code:
        unused("trust_remote_code", because=f"{artifact.root} names no code (auto_map)")
    made = plan_serving(artifact, planning.request_here(engine, trusts_code=trust_remote_code))
    show(made, "show_plan")
    if made.fits is False:
        raise typer.Exit(3)
