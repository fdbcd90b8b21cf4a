"""What the report of a bench says, whatever it is written as: sentences, lists, and figures in tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deploytk.artifact import COST_SHOWS
from deploytk.base.json import shown
from deploytk.bench.before_after import BeforeAfter, Pair
from deploytk.bench.recommend import Row
from deploytk.bench.table import Result


@dataclass(frozen=True, slots=True)
class Table:
    """Figures by setting; the first `keys` columns say of what."""

    title: str
    keys: int
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def remarks(result: Result) -> list[tuple[str, str]]:
    """(title or "", a sentence)."""
    found = []
    if result.recommendation:
        found.append((f"Recommended for {result.recommendation.objective}", result.recommendation.reason))
    elif result.rows:
        found.append(("", "Nothing is recommended: no row is both beyond doubt and small enough for the GPU."))
    if result.slo:
        found.append(("Goodput", f"requests per second with {result.slo}, and their share of all."))
    if any(row.doubts for row in result.rows):
        found.append(("?", "behind a setting marks figures that are not to be relied on; why is said below."))
    if any(row.bound_share is not None for row in result.rows):
        bound = "tokens/s that the GPU's memory allows one stream when every token reads all weights and its KV cache"
        found.append(("of bound", f"the measured share of the {bound}; a bound, not a prediction."))
    if result.before_after:
        found.append(("Before and after", _cost_shows(result.before_after)))
    return found


def _cost_shows(pairs: Sequence[BeforeAfter]) -> str:
    """Where the figures of quality come from, and what they do not tell."""
    if not any(pair.quantized_by and pair.quantized_by.cost for pair in pairs):
        return "what quantizing cost was not recorded with the model: deploytk quantize measures it."
    found = {pair.quantized_by for pair in pairs if pair.quantized_by and pair.quantized_by.cost}
    days = sorted({by.created[:10] for by in found if by.created})
    when = f" ({', '.join(days)})" if days else ""
    return f"perplexity, KL and answers were measured when it was quantized{when}, not here; that {COST_SHOWS}."


def lists(result: Result) -> list[tuple[str, list[str]]]:
    """What was left out, what failed, what is not to be relied on."""
    found = [
        (title, [f"{item.name}: {' '.join(item.reason.split())}" for item in items])
        for title, items in (("Not possible", result.skipped), ("Failed", result.failed))
    ]
    doubted = [
        f"{row.setting}, {row.concurrency} at once: {'; '.join(row.doubts)}" for row in result.rows if row.doubts
    ]
    return [(title, items) for title, items in [*found, ("Not to be relied on", doubted)] if items]


def tables(rows: Sequence[Row]) -> list[Table]:
    return [table for table in (_memory(rows), _speed(rows)) if table.rows]


def costs(pairs: Sequence[BeforeAfter]) -> list[Table]:
    """Speed, memory and what quantizing cost in one table: a line per load of a model before and after."""
    columns = (
        *("before and after", "in / out", "at once", "tokens/s", "TTFT, ms", "VRAM, MiB"),
        *("perplexity", "KL, nats", "same token", "known answers"),
    )
    lines = [_cost_line(pair) for pair in pairs]
    return [_narrowed("Before and after quantization", 3, columns, lines)] if lines else []


def _cost_line(pair: BeforeAfter) -> tuple[str, ...]:
    cost = pair.quantized_by.cost if pair.quantized_by else None
    measured = ("-",) * 4
    if cost:
        perplexity = f"{cost.perplexity_before:,.3f} → {cost.perplexity_after:,.3f} ({cost.perplexity_increase:+.2f} %)"
        golden = f"{cost.golden_before} → {cost.golden_after} of {cost.golden}" if cost.golden else "-"
        measured = (perplexity, f"{cost.kl_mean:.4f}", f"{cost.top1_agreement:.1%}", golden)
    return (
        f"{pair.before} → {pair.after}",
        f"{pair.input_tokens} / {pair.output_tokens}",
        str(pair.concurrency),
        _changed(pair.output_tps),
        _changed(pair.ttft_ms),
        _changed(pair.vram_mib, 0),
        *measured,
    )


def _changed(pair: Pair, digits: int = 1) -> str:
    if pair.before is None and pair.after is None:
        return "-"
    change = "" if pair.change is None else f" ({pair.change:+.0f} %)"
    return f"{shown(pair.before, digits)} → {shown(pair.after, digits)}{change}"


def _narrowed(title: str, keys: int, columns: Sequence[str], lines: Sequence[tuple[str, ...]]) -> Table:
    """Without the columns that no line has a figure in."""
    kept = [at for at in range(len(columns)) if at < keys or any(line[at] != "-" for line in lines)]
    return Table(
        title, keys, tuple(columns[at] for at in kept), tuple(tuple(line[at] for at in kept) for line in lines)
    )


def head(result: Result) -> str:
    """Where it was measured, "" where nothing was."""
    identity = result.identity
    if identity is None:
        return ""
    where = f"{identity.gpu.name}, driver {identity.gpu.driver}" if identity.gpu else identity.client.cpu
    server = f", LMDeploy {identity.lmdeploy}" if identity.lmdeploy else ""
    counts = sorted({row.repetitions for row in result.rows})
    repetitions = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    word = "repetition" if counts == [1] else "repetitions"
    return f"{where}{server}, deploytk {identity.deploytk}; medians of {repetitions} {word}."


def _memory(rows: Sequence[Row]) -> Table:
    """One line per deployment: what it takes, split, against the plan."""
    first = {row.setting: row for row in reversed(rows) if row.vram_mib is not None}
    columns = ("setting", "weights", "KV pool", "other", "ready", "planned", "error", "peak")
    lines = []
    for setting, row in sorted(first.items()):
        error = f"{row.planned_error_pct:+.1f} %" if row.planned_error_pct is not None else "-"
        cells = (row.weights_mib, row.kv_pool_mib, row.overhead_mib, row.vram_mib, row.planned_mib)
        lines.append((setting, *(shown(value, 0) for value in cells), error, shown(row.vram_peak_mib, 0)))
    is_shared = any(row.gpus and row.gpus > 1 for row in rows)
    return Table(f"VRAM, MiB{' of the fullest GPU' if is_shared else ''}", 1, columns, tuple(lines))


def _speed(rows: Sequence[Row]) -> Table:
    """One line per cell; columns that no row has a figure for are left out."""
    columns = (
        *("setting", "in / out", "at once", "rounds", "tokens/s", "95 %", "chars/s", "per stream", "of bound"),
        *("TTFT, ms", "answer, s", "goodput/s", "good", "start, s"),
    )
    lines = [_speed_line(row) for row in rows]
    optional = {"of bound", "goodput/s", "good", "start, s"}
    kept = [at for at, name in enumerate(columns) if name not in optional or any(line[at] != "-" for line in lines)]
    narrowed = tuple(tuple(line[at] for at in kept) for line in lines)
    return Table("Speed", 3, tuple(columns[at] for at in kept), narrowed)


def _speed_line(row: Row) -> tuple[str, ...]:
    interval = f"{row.output_tps_ci95[0]:,.0f} to {row.output_tps_ci95[1]:,.0f}" if row.output_tps_ci95 else "-"
    return (
        f"{row.setting}{' ?' * bool(row.doubts)}",
        f"{row.input_tokens} / {row.output_tokens}",
        str(row.concurrency),
        str(row.repetitions),
        shown(row.output_tps),
        interval,
        shown(row.chars_per_s),
        shown(row.decode_tps),
        "-" if row.bound_share is None else f"{row.bound_share:.0%}",
        shown(row.ttft_ms),
        shown(row.seconds),
        shown(row.goodput_rps),
        "-" if row.goodput_fraction is None else f"{row.goodput_fraction:.0%}",
        shown(row.load_s),
    )
