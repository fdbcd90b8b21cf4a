"""Shows what 4 bits were made of, and what they cost."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from deploytk.artifact import COST_SHOWS
from deploytk.base.terminal import console
from deploytk.display.rows import mib, plain_line, show_notes, show_rows

if TYPE_CHECKING:
    from deploytk.artifact import CalibrationData, QuantizationCost
    from deploytk.quantize import Quantized


def show_quantized(done: Quantized) -> None:
    by, memory = done.quantized_by, done.memory
    gpu = f", {mib(memory.gpu)} of the GPU" if memory.gpu is not None else ""
    took = (
        f"{done.seconds.tool:.1f} s, {mib(memory.ram)} of memory{gpu}" if memory.ram else f"{done.seconds.tool:.1f} s"
    )
    show_rows(
        [
            ("directory", str(done.path)),
            ("architecture", done.architecture),
            ("weights", f"awq, 4 bit, group 128: {mib(done.bytes)} on disk, {mib(done.source_bytes)} before"),
            ("made by", f"{by.tool} {by.tool_version} ({', '.join((by.method, *by.arguments))})"),
            ("calibrated", _calibrated(by.calibration)),
            ("took", took),
            *(_cost_rows(by.cost) if by.cost else [("cost", "not measured")]),
            *(
                [("budget", "kept" if done.is_within_budget else "exceeded")]
                if done.is_within_budget is not None
                else []
            ),
        ]
    )
    show_notes(done.notes)
    console().print("\nNext:", style="dim")
    plain_line(shlex.join(["deploytk", "smoke", str(done.path)]))
    plain_line(shlex.join(["deploytk", "publish", str(done.path), "--help"]))


def _calibrated(data: CalibrationData) -> str:
    if not data.windows:
        return "with no texts: the weights alone were looked at"
    whose = "the texts of deploytk" if data.name == "deploytk" else data.name
    return f"with {data.windows} windows of {data.window_tokens} tokens of {whose}"


def _cost_rows(cost: QuantizationCost) -> list[tuple[str, str]]:
    before, after, change = cost.perplexity_before, cost.perplexity_after, cost.perplexity_increase
    rows = [
        ("perplexity", f"{before:,.3f} before, {after:,.3f} after ({change:+.2f} %)"),
        (
            "divergence",
            f"{cost.kl_mean:.4f} nats (KL, mean), {cost.top1_agreement:.1%} of likeliest tokens are the same",
        ),
    ]
    if cost.golden:
        rows.append(("known answers", f"{cost.golden_before} of {cost.golden} right before, {cost.golden_after} after"))
    return [*rows, ("", f"on {cost.windows} x {cost.window_tokens} tokens of text; {COST_SHOWS}")]
