"""Shows a deployment of several replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from deploytk.base.terminal import console
from deploytk.display.rows import mib, show_rows

if TYPE_CHECKING:
    from deploytk.scale import Scaled


def show_scaled(scaled: Scaled) -> None:
    replica, count = scaled.replica, scaled.replicas
    many = str(count.most) if count.are_fixed else f"{count.least} to {count.most}"
    gpus = f"{replica.gpus} x {replica.gpu or 'any'}, {mib(replica.vram_bytes)} of each" if replica.gpus else "none"
    rows = [
        ("deployment", f"{scaled.name}, on {scaled.platform}"),
        ("replicas", many),
        ("GPUs of each", gpus),
        ("host memory of each", mib(replica.memory_bytes)),
        ("requests of each", f"{replica.max_running} at once, {replica.max_waiting} waiting"),
        ("start", f"{replica.start_s} s at most, by {replica.start_from}"),
        ("files", ", ".join(scaled.files) or "none"),
        ("in", str(scaled.path)),
    ]
    show_rows([*rows, ("applied", scaled.applied)] if scaled.applied else rows)
    if scaled.canary:
        for reason in scaled.canary.reasons:
            console().print(Text(f"canary: {reason}", style="bold red"))
        console().print(Text(f"canary: {scaled.canary.status} after {scaled.canary.rounds} rounds"))
        for one in scaled.canary.metrics:
            if one.ratio and one.low and one.high:
                found = f"{one.ratio:.2f} of the old ({one.low:.2f} to {one.high:.2f}, worse from {one.limit:.2f} on)"
                console().print(Text(f"canary: {one.metric} {found}"))
    for line in scaled.misfits:
        console().print(Text(f"does not fit: {line}", style="bold red"))
    for line in scaled.warnings:
        console().print(Text(f"warning: {line}", style="yellow"))
    for number, line in enumerate(scaled.notes, 1):
        console().print(Text(f"{number}. {line}"))
