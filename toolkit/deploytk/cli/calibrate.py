"""The command that keeps what servers were measured to take, for the plans of the same servers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploytk.cli.command import command
from deploytk.cli.defaults import source_argument
from deploytk.cli.session import show, unused


@command("deploytk calibrate report.json")
def calibrate(
    reports: Annotated[
        list[Path] | None, source_argument("REPORT", "Reports of smoke -o, or raw data of smoke --raw.")
    ] = None,
    forget: Annotated[
        str | None, typer.Option(metavar="NUMBER|all", help="Drop one of the list, or everything.")
    ] = None,
) -> None:
    """Plan with the VRAM that a smoke test measured, for the same GPU, LMDeploy and model shape; without one, list."""
    from deploytk.plan.calibration import Calibration, add_measured, calibration_path, forget_measured, read_measured

    if forget is not None:
        unused("reports", because="--forget drops what is kept", hint="leave one of the two out")
        found = forget_measured(forget)
    elif reports:
        from deploytk.smoke.render import measured_in

        found = add_measured([measured_in(report) for report in reports])
    else:
        found = Calibration(calibration_path(), read_measured())
    show(found, "show_calibration")
