"""Judges a measurement: the report, and its JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

from deploytk.gpu import GpuMemory
from deploytk.gpus import MIB
from deploytk.smoke.budget import Budget
from deploytk.smoke.correctness import Finding
from deploytk.smoke.measure import Measurement, Record, Workload
from deploytk.smoke.statistics import Summary, summarize

SCHEMA = "deploytk.report/1"

_LEAST_SAMPLES = 11  # for a median that can be believed, MLPerf Inference
_BUSIEST_CLIENT = 0.9  # of one core: beyond it the client may be what is slow


@dataclass(frozen=True, slots=True)
class Verdict:
    status: Literal["pass", "fail", "inconclusive"]
    exit_code: int  # 0 good, 1 wrong, 3 a budget was exceeded, 4 it cannot be told
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Identity:
    """What was measured, with what."""

    deploytk: str
    url: str
    model: str
    engine: str | None
    package_digest: str | None
    gpu: GpuMemory | None


@dataclass(frozen=True, slots=True)
class VramReport:
    api: str
    baseline_bytes: int  # before the server started; when we did not start it, 0
    ready_bytes: int
    peak_bytes: int
    total_bytes: int
    samples: int


@dataclass(frozen=True, slots=True)
class Latency:
    n: int
    window_s: float
    ttft_ms: Summary
    tpot_ms: Summary
    e2e_ms: Summary
    chunk_gap_ms: Summary


@dataclass(frozen=True, slots=True)
class Throughput:
    output_tps: float | None  # output tokens of all successes / window
    decode_tps_p50: float | None  # 1000 / median TPOT
    request_rate: float | None  # successes / s
    chars_per_s: float | None
    chars_per_token: float | None


@dataclass(frozen=True, slots=True)
class Counts:
    issued: int
    success: int
    failed: int
    errors: dict[str, int]


@dataclass(frozen=True, slots=True)
class Tokens:
    source: Literal["usage"] | None  # None when the server does not count
    input: int | None
    output: int | None
    events: int


@dataclass(frozen=True, slots=True)
class BudgetCheck:
    metric: str
    op: Literal["<=", ">="]
    limit: float
    value: float | None
    status: Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Report:
    schema: str
    kind: Literal["smoke"]
    created: str
    verdict: Verdict
    identity: Identity
    vram: VramReport | None
    workload: Workload
    latency: Latency
    throughput: Throughput
    counts: Counts
    tokens: Tokens
    correctness: tuple[Finding, ...]
    client_cpu_share: float
    checks: tuple[BudgetCheck, ...]


def judge(measurement: Measurement, identity: Identity, vram: VramReport | None, budget: Budget) -> Report:
    """The report of a measurement; it never fails, what is wrong is in its verdict."""
    records = measurement.records
    good = [record for record in records if record.is_success]
    latency = Latency(
        n=len(good),
        window_s=measurement.window_s,
        ttft_ms=summarize([r.ttft_ms for r in good if r.ttft_ms is not None]),
        tpot_ms=summarize([r.tpot_ms for r in good if r.tpot_ms is not None]),
        e2e_ms=summarize([r.e2e_ms for r in good if r.e2e_ms is not None]),
        chunk_gap_ms=summarize([gap for r in good for gap in r.chunk_gaps_ms]),
    )
    throughput = _throughput(good, latency)
    checks = tuple(_checks(latency, throughput, vram, budget))
    errors = Counter(record.error for record in records if not record.is_success)
    counts = Counts(len(records), len(good), len(records) - len(good), dict(errors))
    return Report(
        schema=SCHEMA,
        kind="smoke",
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        verdict=_verdict(measurement, counts, checks),
        identity=identity,
        vram=vram,
        workload=measurement.workload,
        latency=latency,
        throughput=throughput,
        counts=counts,
        tokens=_tokens(good),
        correctness=measurement.findings,
        client_cpu_share=measurement.client_cpu_share,
        checks=checks,
    )


def _throughput(good: list[Record], latency: Latency) -> Throughput:
    tokens = [record.output_tokens for record in good]
    total = sum(count for count in tokens if count) if good and all(count is not None for count in tokens) else None
    characters = sum(len(record.text) for record in good)
    window = latency.window_s or None
    decode = latency.tpot_ms.p50
    return Throughput(
        output_tps=total / window if total is not None and window else None,
        decode_tps_p50=1000 / decode if decode else None,
        request_rate=len(good) / window if window else None,
        chars_per_s=characters / window if window else None,
        chars_per_token=characters / total if total else None,
    )


def _tokens(good: list[Record]) -> Tokens:
    has_usage = bool(good) and all(record.output_tokens is not None for record in good)
    return Tokens(
        source="usage" if has_usage else None,
        input=sum(record.prompt_tokens or 0 for record in good) if has_usage else None,
        output=sum(record.output_tokens or 0 for record in good) if has_usage else None,
        events=sum(record.events for record in good),
    )


def _checks(latency: Latency, throughput: Throughput, vram: VramReport | None, budget: Budget) -> Iterator[BudgetCheck]:
    enough = latency.n >= _LEAST_SAMPLES
    vram_mib = (vram.peak_bytes - vram.baseline_bytes) / MIB if vram else None
    yield from _check("vram.peak_mib", "<=", budget.max_vram_mib, vram_mib, True)
    yield from _check("latency.ttft_ms.p50", "<=", budget.max_ttft_ms, latency.ttft_ms.p50, enough)
    yield from _check("latency.tpot_ms.p50", "<=", budget.max_tpot_ms, latency.tpot_ms.p50, enough)
    yield from _check("throughput.output_tps", ">=", budget.min_tokens_per_s, throughput.output_tps, enough)


def _check(
    metric: str, op: Literal["<=", ">="], limit: float | None, value: float | None, is_certain: bool
) -> Iterator[BudgetCheck]:
    if limit is None:
        return
    if value is None or not is_certain:
        yield BudgetCheck(metric, op, limit, value, "inconclusive")
        return
    is_kept = value <= limit if op == "<=" else value >= limit
    yield BudgetCheck(metric, op, limit, value, "pass" if is_kept else "fail")


def _verdict(measurement: Measurement, counts: Counts, checks: tuple[BudgetCheck, ...]) -> Verdict:
    wrong = [f"{finding.check}: {finding.detail}" for finding in measurement.findings if finding.status == "fail"]
    if counts.failed:
        first = next(iter(counts.errors))
        wrong.append(f"{counts.failed} of {counts.issued} requests failed: {first}")
    if wrong:
        return Verdict("fail", 1, tuple(wrong))
    exceeded = [f"{c.metric} is {c.value:.1f}, {c.op} {c.limit:g} asked for" for c in checks if c.status == "fail"]
    if exceeded:
        return Verdict("fail", 3, tuple(exceeded))
    unclear = [_unclear(check, counts) for check in checks if check.status == "inconclusive"]
    if checks and measurement.client_cpu_share > _BUSIEST_CLIENT:
        unclear.append(f"the client itself was busy {measurement.client_cpu_share:.0%} of the time")
    if measurement.has_ended_early and checks:
        unclear.append(f"only {counts.issued} requests within {measurement.workload.total_within_s:.0f} s")
    if unclear:
        return Verdict("inconclusive", 4, tuple(unclear))
    return Verdict("pass", 0, ())


def _unclear(check: BudgetCheck, counts: Counts) -> str:
    if check.value is None:
        return f"{check.metric} could not be measured here"
    return f"{check.metric} has {counts.success} samples, {_LEAST_SAMPLES} needed"
