"""The command that takes a legacy workspace back to a directory that current LMDeploy loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploytk.cli.command import command
from deploytk.cli.defaults import source_argument
from deploytk.cli.session import Session, show, unused


@command("deploytk modernize ./workspace_hfmerge -o ./internlm-chat-7b-awq")
def modernize(
    workspace: Annotated[Path, source_argument("WORKSPACE", "What `lmdeploy convert` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The directory to write.")],
    to_fp16: Annotated[bool, typer.Option("--to-fp16", help="Dequantize, for engines without 4-bit kernels.")] = False,
    session_len: Annotated[
        int | None,
        typer.Option("--session-len", min=1, help="The longest session to make it for; as long as before by default."),
    ] = None,
) -> None:
    """Turn a legacy workspace into an HF directory that current LMDeploy loads, bit for bit."""
    from deploytk.artifact import read_artifact
    from deploytk.modernize import ModernizeOptions
    from deploytk.modernize import modernize as write_huggingface

    artifact = read_artifact(workspace)
    if artifact.layout == "workspace" and not artifact.is_quantized:
        unused("to_fp16", because=f"the weights of {workspace} are not quantized")
    done = write_huggingface(artifact, output, ModernizeOptions(to_fp16, session_len), Session.progress)
    show(done, "show_modernized")
