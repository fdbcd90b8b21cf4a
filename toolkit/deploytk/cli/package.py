"""The command that writes a bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from deploytk.cli.command import command
from deploytk.cli.options import App, ModelDir, Packaging, Planning
from deploytk.cli.session import show
from deploytk.cli.source import measured_figures, package_model, refuse_trust, refuse_trust_in_no_code


@command("deploytk package ./internlm-chat-7b-awq -o ./bundle --license apache-2.0")
def package(
    model: ModelDir,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="BUNDLE", help="The directory to write.")],
    packaging: Packaging,
    planning: Planning,
    app: App = "gradio",
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE|DIR", exists=True, help="Figures for the card: a smoke report, or bench's DIR."),
    ] = None,
) -> None:
    """Write a bundle: model card, app, Dockerfile and manifest around the (hard-linked) weights."""
    refuse_trust(model)
    refuse_trust_in_no_code(model)
    options = packaging.options(model, app)
    if report:
        options = dataclasses.replace(options, measured=measured_figures(report, model))
    request = planning.request(trusts_code=packaging.trust_remote_code)
    bundle = package_model(model, request, options, output, allows_pickles=packaging.allow_pickle)
    show(bundle, "show_bundle", leave_out=("manifest",))
