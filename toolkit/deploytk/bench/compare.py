"""Judges a change: the cells of two benches against each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploytk.base.errors import UsageError
from deploytk.bench.cells import Repetitions, read_cells
from deploytk.hardware.catalogue import MIB
from deploytk.smoke import Budget, Evidence, judge
from deploytk.smoke.memory import SLACK_BYTES
from deploytk.smoke.record import Record
from deploytk.smoke.statistics import median_ratio

Judgement = Literal["faster", "slower", "same", "inconclusive"]

LEAST_EFFECT = 1.10
"""What counts as a change: starts of one server differ by a few per cent (facts: docs/metrics.md)."""

_LEAST_ROUNDS = 3
METRICS: dict[str, Callable[[Record], float | None]] = {
    "ttft_ms": lambda record: record.ttft_ms,
    "tpot_ms": lambda record: record.tpot_ms,
}

Rounds = Sequence[tuple[Sequence[float], Sequence[float]]]
"""Per repetition, the values of A and those of B."""


@dataclass(frozen=True, slots=True)
class Change:
    """One metric of one cell: B against A, times (less is better)."""

    cell: str
    metric: str
    rounds: int
    ratio: float | None  # B / A; None without values
    low: float | None  # 95 %
    high: float | None
    judgement: Judgement


@dataclass(frozen=True, slots=True)
class MemoryChange:
    """VRAM when ready: B less A, in MiB; None where one of them has none."""

    cell: str
    mib: float | None
    is_more: bool  # than comes and goes by itself


@dataclass(frozen=True, slots=True)
class Comparison:
    status: Judgement  # slower when anything is; more memory counts as slower
    exit_code: int  # 0 not worse, 3 worse, 4 it cannot be told
    changes: tuple[Change, ...]
    memory: tuple[MemoryChange, ...]
    only_in_one: tuple[str, ...]  # cells that could not be compared; what only A has makes it inconclusive
    failures: tuple[str, ...]  # cells where more requests failed in B, which is slower whatever the others took
    doubts: tuple[str, ...]  # rounds that were left out, because the client or the machine was not to be relied on


def compare(a: Path, b: Path) -> Comparison:
    """B against A, two directories of `deploytk bench`, cell by cell; repetitions are paired by their number.

    Raises UsageError where they hold no results, or have no cell in common.
    """
    first, second = read_cells(a), read_cells(b)
    common = [cell for cell in first if cell in second]
    if not common:
        hint = "measure the same in both; two models, engines or KV caches go into one bench: --kv none,int8"
        raise UsageError(f"{a} and {b} have no cell in common", hint=hint)
    doubts = {cell: _doubts(first[cell], second[cell]) for cell in common}
    changes = tuple(change for cell in common for change in _changes(cell, first[cell], second[cell], doubts[cell]))
    failures = tuple(line for cell in common for line in _failures(cell, first[cell], second[cell]))
    memory = tuple(_memory(cell, first[cell], second[cell]) for cell in common)
    judgements = {change.judgement for change in changes}
    status: Judgement = "same"
    if "slower" in judgements or failures or any(change.is_more for change in memory):
        status = "slower"
    elif "inconclusive" in judgements or first.keys() - second.keys():
        status = "inconclusive"
    elif "faster" in judgements:
        status = "faster"
    exit_code = {"slower": 3, "inconclusive": 4}.get(status, 0)
    only_in_one = tuple(sorted(first.keys() ^ second.keys()))
    left_out = tuple(f"{cell}, round {number + 1}: {why}" for cell in common for number, why in doubts[cell].items())
    return Comparison(status, exit_code, changes, memory, only_in_one, failures, left_out)


def judge_rounds(rounds: Rounds) -> tuple[Judgement, float | None, float | None, float | None]:
    """(judgement, ratio, low, high) of B's median against A's.

    A change is one of 10 % or more whose interval leaves out 1: with five interleaved rounds of 60 requests that is a
    false alarm in less than 1 of 100 cases and finds a true 15 % in more than 95 (tests/test_bench_compare.py).
    """
    whole = [(a, b) for a, b in rounds if a and b]
    if not whole:
        return "inconclusive", None, None, None
    found = median_ratio(whole)
    figures = (found.value, found.low, found.high)
    if len(whole) < _LEAST_ROUNDS:
        return "inconclusive", *figures
    if found.value > LEAST_EFFECT and found.low > 1:
        return "slower", *figures
    if found.value < 1 / LEAST_EFFECT and found.high < 1:
        return "faster", *figures
    is_within = found.low > 1 / LEAST_EFFECT and found.high < LEAST_EFFECT
    return "same" if is_within else "inconclusive", *figures


def _changes(cell: str, a: Repetitions, b: Repetitions, doubtful: Mapping[int, str]) -> Iterator[Change]:
    numbers = [number for number in a if number in b and number not in doubtful]
    for name, metric in METRICS.items():
        rounds = [(_values(a[number], metric), _values(b[number], metric)) for number in numbers]
        judgement, ratio, low, high = judge_rounds(rounds)
        yield Change(cell, name, len(rounds), ratio, low, high, judgement)


def _doubts(a: Repetitions, b: Repetitions) -> dict[int, str]:
    """Rounds that cannot be believed, and why."""
    found = {}
    for number in (number for number in a if number in b):
        said = [doubt for one in (a[number], b[number]) for doubt in judge(one, Budget()).verdict.inconclusive]
        if said:
            found[number] = "; ".join(dict.fromkeys(said))
    return found


def _failures(cell: str, a: Repetitions, b: Repetitions) -> Iterator[str]:
    shares = []
    for repetitions in (a, b):
        records = [record for one in repetitions.values() for record in one.records]
        shares.append((sum(not record.is_success for record in records), len(records)))
    (failed, of), (failed_before, of_before) = shares[1], shares[0]
    if failed * of_before > failed_before * of:
        yield f"{cell}: {failed} of {of} requests failed in B, {failed_before} of {of_before} in A"


def _memory(cell: str, a: Repetitions, b: Repetitions) -> MemoryChange:
    before, after = next(iter(a.values())).vram, next(iter(b.values())).vram
    if before is None or after is None:
        return MemoryChange(cell, None, is_more=False)
    more = after.ready_of_ours - before.ready_of_ours
    return MemoryChange(cell, more / MIB, more > SLACK_BYTES)


def _values(evidence: Evidence, metric: Callable[[Record], float | None]) -> list[float]:
    return [value for record in evidence.records if record.is_success and (value := metric(record))]
