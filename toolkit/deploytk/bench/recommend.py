"""Chooses among what was measured: never by a rule, always by the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from deploytk.hardware.catalogue import MIB, Gpu

Objective = Literal["throughput", "latency"]

_SURE_REPETITIONS = 3
_NOISE = 0.03  # what two starts of the same server differ by


@dataclass(frozen=True, slots=True)
class Row:
    """One cell: medians over its repetitions. None where a figure is not defined or not measured."""

    model: str
    weights: str  # "fp16", "awq 4 bit"
    engine: str
    kv_policy: str
    input_tokens: int
    output_tokens: int
    concurrency: int
    repetitions: int
    output_tps: float | None  # tokens/s, all streams together
    output_tps_ci95: tuple[float, float] | None  # of the mean over the repetitions; None for less than three
    decode_tps: float | None  # tokens/s of one stream, after its first token
    chars_per_s: float | None
    ttft_ms: float | None
    tpot_ms: float | None
    seconds: float | None  # one answer, whole
    load_s: float | None  # start to first token
    vram_mib: float | None  # ready, of ours
    vram_peak_mib: float | None
    weights_mib: float | None
    kv_pool_mib: float | None
    overhead_mib: float | None
    planned_mib: float | None
    planned_error_pct: float | None
    doubts: tuple[str, ...]  # why the figures may not be believed
    gpus: int | None = 1  # that share the model; None where the raw data do not say
    bound_tps: float | None = None  # tokens/s that the GPU's memory allows one stream at the start of a conversation
    bound_share: float | None = None  # of the bound at this length, reached by one stream at a time
    goodput_rps: float | None = None  # requests/s that met the objectives (--slo)
    goodput_fraction: float | None = None  # of all requests

    @property
    def setting(self) -> str:
        """How it was served, in words."""
        gpus = f", {self.gpus} GPUs" if self.gpus and self.gpus > 1 else ""
        return f"{self.model} ({self.weights}), {self.engine}, KV {self.kv_policy}{gpus}"


@dataclass(frozen=True, slots=True)
class Recommendation:
    objective: Objective
    model: str
    weights: str
    engine: str
    kv_policy: str
    concurrency: int
    tokens_per_s: float  # of the objective: all streams for throughput, one stream for latency
    vram_peak_mib: float | None
    reason: str  # one sentence, with the figures it rests on


def recommend(
    rows: Sequence[Row], gpu: Gpu | None, objective: Objective, measured_on: str = ""
) -> Recommendation | None:
    """The fastest row that fits on `gpu` (None: whatever was measured); None when there is none.

    Throughput counts the tokens of all streams, at whatever concurrency gives most; latency those of one stream, at the
    lowest concurrency. Of several lengths the longest counts. Among rows that the repetitions cannot tell apart, the
    one that takes least memory wins. `measured_on` names the GPU of the rows: on another one only memory is known.
    """
    good = [row for row in rows if _speed(row, objective) is not None and not row.doubts]
    if good:
        longest = max((row.output_tokens, row.input_tokens) for row in good)
        good = [row for row in good if (row.output_tokens, row.input_tokens) == longest]
    if objective == "latency" and good:
        least = min(row.concurrency for row in good)
        good = [row for row in good if row.concurrency == least]
    fitting = [row for row in good if _fits(row, gpu)]
    if not fitting:
        return None
    fastest = max(fitting, key=lambda row: _known_speed(row, objective))
    equal = [row for row in fitting if row is fastest or _is_equal(row, fastest, objective)]
    chosen = min(equal, key=lambda row: (row.vram_peak_mib or 0.0, -_known_speed(row, objective)))
    return Recommendation(
        objective=objective,
        model=chosen.model,
        weights=chosen.weights,
        engine=chosen.engine,
        kv_policy=chosen.kv_policy,
        concurrency=chosen.concurrency,
        tokens_per_s=_known_speed(chosen, objective),
        vram_peak_mib=chosen.vram_peak_mib,
        reason=_reason(chosen, fastest, fitting, len(good) - len(fitting), gpu, objective)
        + _caveats(chosen, gpu, measured_on),
    )


def _speed(row: Row, objective: Objective) -> float | None:
    return row.output_tps if objective == "throughput" else row.decode_tps


def _known_speed(row: Row, objective: Objective) -> float:
    return _speed(row, objective) or 0.0


def _fits(row: Row, gpu: Gpu | None) -> bool:
    if gpu is None:
        return True
    return row.vram_peak_mib is not None and row.vram_peak_mib <= (gpu.total_bytes - gpu.reserved_bytes) / MIB


def _is_equal(row: Row, fastest: Row, objective: Objective) -> bool:
    """Whether the measurements leave open which of the two is faster, at the same load."""
    if row.concurrency != fastest.concurrency:
        return False
    if _known_speed(row, objective) < (1 - _NOISE) * _known_speed(fastest, objective):
        return False
    a, b = row.output_tps_ci95, fastest.output_tps_ci95
    if objective == "latency":
        return True
    return a is None or b is None or a[1] >= b[0]


def _caveats(chosen: Row, gpu: Gpu | None, measured_on: str) -> str:
    """What the figures do not carry."""
    text = ""
    if gpu and measured_on and gpu.name not in measured_on:
        text += f" Speeds are those of {measured_on}: for {gpu.name} only the memory is known."
    if chosen.repetitions < _SURE_REPETITIONS:
        text += f" With fewer than {_SURE_REPETITIONS} repetitions, differences of a few per cent mean nothing."
    return text


def _reason(
    chosen: Row, fastest: Row, fitting: Sequence[Row], too_large: int, gpu: Gpu | None, objective: Objective
) -> str:
    speed = _known_speed(chosen, objective)
    streams = f"{chosen.concurrency} stream{'s' * (chosen.concurrency > 1)}"
    text = f"{chosen.setting} gives {speed:,.0f} tokens/s with {streams}"
    if chosen is not fastest:
        text += f", not measurably less than {fastest.setting}, and takes less memory"
    others = [row for row in fitting if row.setting != chosen.setting and row.setting != fastest.setting]
    if others:
        best = max(others, key=lambda row: _known_speed(row, objective))
        text += f"; next is {best.setting} with {_known_speed(best, objective):,.0f}"
        text += f" ({_known_speed(best, objective) / speed - 1:+.0%})" if speed else ""
    if chosen.vram_peak_mib is not None:
        text += f"; it takes {chosen.vram_peak_mib:,.0f} MiB"
        text += f" of {gpu.total_bytes / MIB:,.0f} ({gpu.name})" if gpu else ""
    if too_large:
        text += f"; {too_large} of the rows would not fit there"
    return f"{text}."
