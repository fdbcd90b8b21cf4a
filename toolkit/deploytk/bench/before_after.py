"""What quantizing changed: speed and memory of a model before and after, beside what it cost by the model's record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from deploytk.artifact import QuantizedBy
from deploytk.bench.recommend import Row
from deploytk.smoke import Report
from deploytk.smoke.run import DENSE_NAMES


@dataclass(frozen=True, slots=True)
class Pair:
    """One figure of both; None where it was not measured."""

    before: float | None
    after: float | None

    @property
    def change(self) -> float | None:
        """In percent."""
        if not self.before or self.after is None:
            return None
        return 100 * (self.after / self.before - 1)


@dataclass(frozen=True, slots=True)
class BeforeAfter:
    """A quantized model beside the one in 16 bits, served alike and under the same load."""

    before: str  # the setting, in words
    after: str
    input_tokens: int
    output_tokens: int
    concurrency: int
    output_tps: Pair
    ttft_ms: Pair
    vram_mib: Pair  # ready, of ours
    quantized_by: QuantizedBy | None  # with what it cost, measured then; None where the model has no record


def before_and_after(cells: Sequence[tuple[Row, Sequence[Report]]]) -> tuple[BeforeAfter, ...]:
    """Of every cell of a quantized model, the same of the one that it was made of, where both were measured."""
    rows = [row for row, _ in cells]
    records = {row.setting: reports[0].identity.quantized_by for row, reports in cells}
    return tuple(_beside(found, row, records[row.setting]) for row, found in _pairs(rows, records))


def _pairs(rows: Sequence[Row], records: Mapping[str, QuantizedBy | None]) -> Iterator[tuple[Row, Row]]:
    """(after, before): by the name in the record, or else the only model in 16 bits."""
    dense = [row for row in rows if row.weights in DENSE_NAMES]
    models = {row.model for row in dense}
    for row in rows:
        by = records[row.setting]
        source = by.source if by and by.source else next(iter(models)) if len(models) == 1 else None
        if row in dense or not row.weights or source is None:
            continue
        yield from ((row, one) for one in dense if one.model == source and _load(one) == _load(row))


def _load(row: Row) -> tuple[object, ...]:
    return (row.engine, row.kv_policy, row.gpus, row.input_tokens, row.output_tokens, row.concurrency)


def _beside(before: Row, after: Row, by: QuantizedBy | None) -> BeforeAfter:
    return BeforeAfter(
        before=before.setting,
        after=after.setting,
        input_tokens=after.input_tokens,
        output_tokens=after.output_tokens,
        concurrency=after.concurrency,
        output_tps=Pair(before.output_tps, after.output_tps),
        ttft_ms=Pair(before.ttft_ms, after.ttft_ms),
        vram_mib=Pair(before.vram_mib, after.vram_mib),
        quantized_by=by,
    )
