"""Commands about a model directory: what it is, how it is served, what it becomes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from deploytk.cli.options import (
    AppKind,
    AsJson,
    BaseModel,
    Engine,
    Golden,
    GpuOption,
    Kv,
    License,
    MaxBatch,
    ModelDir,
    Name,
    SessionLen,
    Template,
    TensorParallel,
)
from deploytk.cli.session import Session, show
from deploytk.cli.source import bundle_options, measured_figures, package_model, plan_request

commands = typer.Typer()
templates = typer.Typer(help="The templates of card and app.", no_args_is_help=True)


@commands.command(epilog="Example:  deploytk inspect ./workspace_hfmerge --json")
def inspect(model: ModelDir, as_json: AsJson = False) -> None:
    """Show what a model directory is, what can serve it, and what is wrong with it."""
    from deploytk.artifact import read_artifact

    artifact = read_artifact(model)
    show(artifact, as_json, "show_artifact", leave_out=("config", "facts"))
    artifact.require_usable()


@commands.command(epilog="Example:  deploytk plan ./internlm-chat-7b-awq --gpu A10 --session-len 4096 --kv int8")
def plan(
    model: ModelDir,
    gpu: GpuOption = None,
    session_len: SessionLen = None,
    max_batch_size: MaxBatch = None,
    kv: Kv = None,
    tp: TensorParallel = None,
    engine: Engine = "auto",
    as_json: AsJson = False,
) -> None:
    """Decide how a model is served and what VRAM that takes, before anything is deployed."""
    from deploytk.artifact import read_artifact
    from deploytk.plan import plan_serving

    request = plan_request(gpu, session_len, max_batch_size, kv, tp, engine)
    show(plan_serving(read_artifact(model), request), as_json, "show_plan")


@commands.command(epilog="Example:  deploytk modernize ./workspace_hfmerge -o ./internlm-chat-7b-awq")
def modernize(
    workspace: Annotated[Path, typer.Argument(metavar="WORKSPACE", help="What `lmdeploy convert` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The directory to write.")],
    to_fp16: Annotated[bool, typer.Option("--to-fp16", help="Dequantize, for engines without 4-bit kernels.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn a legacy workspace into an HF directory that current LMDeploy loads, bit for bit."""
    from deploytk.artifact import read_artifact
    from deploytk.modernize import modernize as write_huggingface

    done = write_huggingface(read_artifact(workspace), output, to_fp16=to_fp16, progress=Session.progress)
    show(done, as_json, "show_fields")


@commands.command(epilog="Example:  deploytk package ./internlm-chat-7b-awq -o ./bundle --license apache-2.0")
def package(
    model: ModelDir,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="BUNDLE", help="The directory to write.")],
    name: Name = None,
    base_model: BaseModel = None,
    license_: License = None,
    app_kind: Annotated[AppKind, typer.Option("--app", help="The app that is generated.")] = "gradio",
    golden: Golden = None,
    template: Template = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE|DIR", exists=True, help="Figures for the card: a smoke report, or bench's DIR."),
    ] = None,
    gpu: GpuOption = None,
    session_len: SessionLen = None,
    max_batch_size: MaxBatch = None,
    kv: Kv = None,
    tp: TensorParallel = None,
    as_json: AsJson = False,
) -> None:
    """Write a bundle: model card, app, Dockerfile and manifest around the (hard-linked) weights."""

    request = plan_request(gpu, session_len, max_batch_size, kv, tp, "auto")
    options = bundle_options(model, name, base_model, license_, app_kind, golden, template)
    if report:
        options = dataclasses.replace(options, measured=measured_figures(report, model))
    show(package_model(model, request, options, output), as_json, "show_bundle", leave_out=("manifest",))


@templates.command("export", epilog="Example:  deploytk template export ./my-templates")
def export(output: Annotated[Path, typer.Argument(metavar="DIR", help="A new directory.")]) -> None:
    """Write the shipped templates, to be changed and given to --template."""
    from deploytk.bundle import export_templates

    for path in export_templates(output):
        typer.echo(output / path)
