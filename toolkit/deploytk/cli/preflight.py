"""The command that starts an app as a hub will."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploytk.base.durations import seconds_of
from deploytk.cli.command import command
from deploytk.cli.defaults import source_argument
from deploytk.cli.options import Template, Trust
from deploytk.cli.session import Session, show, unused
from deploytk.cli.source import refuse_template, refuse_trust_in_no_code

_EXIT = {"fail": 1, "inconclusive": 4}


@command("deploytk preflight ./bundle --gpu A10")
def preflight(
    source: Annotated[Path, source_argument("BUNDLE|APP", "A bundle, or the directory of an app.")],
    trust: Trust,
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|SIZE", help="The GPU of the hub's tier; by default that of the smallest known tier."
        ),
    ] = None,
    start: Annotated[str, typer.Option(metavar="FILE", help="The start file, as the hub's form names it.")] = "app.py",
    python: Annotated[
        Path | None, typer.Option(help="The Python that starts the app, best one as old as the hub's.", metavar="FILE")
    ] = None,
    within: Annotated[str, typer.Option(metavar="DURATION", help="Longest time until the first answer.")] = "30s",
    network: Annotated[
        bool, typer.Option("--network", help="Let pip resolve the requirements, on the package index.")
    ] = False,
    template: Template = None,
) -> None:
    """Start an app as a hub will, and name what would keep it queueing: 0 it runs, 1 it cannot, 4 it was not tried."""
    from deploytk.preflight import PreflightOptions
    from deploytk.preflight import preflight as look_at

    _refuse_unused(source, template)
    options = PreflightOptions(
        start=start,
        gpu=gpu,
        python=python,
        within_s=seconds_of(within),
        with_network=network,
        template=template,
        trusts_bundle=trust.trust_bundle,
        trusts_code=trust.trust_remote_code,
    )
    found = look_at(source, options, Session.progress)
    show(found, "show_preflight")
    if found.status != "pass":
        raise typer.Exit(_EXIT[found.status])


def _refuse_unused(source: Path, template: Path | None) -> None:
    from deploytk.bundle import is_bundle, read_bundle
    from deploytk.preflight import is_model

    if is_bundle(source):
        refuse_template(template)
        refuse_trust_in_no_code(source, read_bundle(source).manifest.plan.engine)
    if not source.is_dir() or is_bundle(source):
        return
    unused("template", "trust_remote_code", because=f"{source} is not a bundle")
    if not is_model(source):
        unused("trust_bundle", because=f"{source} is an app without a model, which is run in any case")
    unused("gpu", because=f"{source} is an app without a plan, so nothing says what memory it takes")
    if not (source / "requirements.txt").is_file():
        unused("network", because=f"{source} has no requirements.txt to resolve")
