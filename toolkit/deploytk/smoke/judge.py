"""Judges a measurement against a budget: pure, from values to a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

from deploytk.hardware.catalogue import MIB
from deploytk.plan import DecodeBound
from deploytk.smoke.budget import Budget
from deploytk.smoke.correctness import Finding
from deploytk.smoke.counters import Counters
from deploytk.smoke.doubts import doubts_of
from deploytk.smoke.figures import counts_of, latency_of, throughput_of, tokens_of
from deploytk.smoke.measure import INTERRUPTED, Measurement
from deploytk.smoke.memory import VramReport, check_planned
from deploytk.smoke.record import Record
from deploytk.smoke.report import (
    SCHEMA,
    BudgetCheck,
    ClientReport,
    Counts,
    Identity,
    Latency,
    Report,
    Throughput,
    Tokens,
    Verdict,
)
from deploytk.smoke.selfcheck import ClientCheck
from deploytk.smoke.statistics import CERTIFIED_FROM
from deploytk.smoke.workload import Workload

_LEAST_SAMPLES = CERTIFIED_FROM["p50"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that was measured and observed; with it, a report can be computed again at any time."""

    kind: Literal["smoke", "bench"]
    created: str
    identity: Identity
    workload: Workload
    records: tuple[Record, ...]
    findings: tuple[Finding, ...]
    counted: Counters | None
    client_cpu_share: float
    client: ClientCheck | None
    has_ended_early: bool
    vram: VramReport | None
    load_s: float | None
    lag_p99_ms: float | None = None  # how late the client was woken while measuring; None in older raw data
    bound: DecodeBound | None = None  # of what was planned, on the GPU that it ran on


def evidence_of(
    measurement: Measurement,
    identity: Identity,
    findings: tuple[Finding, ...],
    vram: VramReport | None,
    load_s: float | None,
    *,
    kind: Literal["smoke", "bench"] = "smoke",
    bound: DecodeBound | None = None,
) -> Evidence:
    """What was measured, with what was observed around it."""
    return Evidence(
        kind=kind,
        created=now(),
        identity=identity,
        workload=measurement.workload,
        records=measurement.records,
        findings=findings,
        counted=measurement.counted,
        client_cpu_share=measurement.client_cpu_share,
        client=measurement.client,
        has_ended_early=measurement.has_ended_early,
        vram=vram,
        load_s=load_s,
        lag_p99_ms=measurement.lag_p99_ms,
        bound=bound,
    )


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def judge(evidence: Evidence, budget: Budget) -> Report:
    """The report of what was measured; it never fails, what is wrong is in its verdict."""
    if evidence.vram:
        planned = check_planned(evidence.vram, budget.vram_tolerance_pct)
        evidence = dataclasses.replace(evidence, findings=evidence.findings + planned)
    records, workload = evidence.records, evidence.workload
    latency = latency_of(records, workload)
    throughput = throughput_of(records, workload, latency, budget)
    counts, tokens = counts_of(records), tokens_of(records, evidence.counted)
    client = _client(evidence, tokens, latency)
    identity = dataclasses.replace(evidence.identity, baseline_key=evidence.identity.key(workload))
    checks = tuple(_checks(latency, throughput, evidence.vram, budget))
    doubts = tuple(doubts_of(client, latency, workload, identity))
    doubted = {check: [one.why for one in doubts if one.could_turn(check, latency.window_s)] for check in checks}
    return Report(
        schema=SCHEMA,
        kind=evidence.kind,
        created=evidence.created,
        verdict=_verdict(evidence, counts, doubted, tuple(doubt.why for doubt in doubts), _stranger(identity, budget)),
        identity=identity,
        load_s=evidence.load_s,
        bound=evidence.bound,
        vram=evidence.vram,
        workload=workload,
        latency=latency,
        throughput=throughput,
        counts=counts,
        tokens=tokens,
        correctness=evidence.findings,
        client=client,
        budget=budget,
        checks=checks,
    )


def _client(evidence: Evidence, tokens: Tokens, latency: Latency) -> ClientReport:
    observed = tokens.events / latency.window_s if latency.window_s else None
    headroom = evidence.client.capacity_events_s / observed if evidence.client and observed else None
    return ClientReport(evidence.client_cpu_share, evidence.client, observed, headroom, evidence.lag_p99_ms)


def _checks(latency: Latency, throughput: Throughput, vram: VramReport | None, budget: Budget) -> Iterator[BudgetCheck]:
    enough = latency.n >= _LEAST_SAMPLES
    vram_mib = vram.peak_of_ours / MIB if vram else None
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


def _stranger(identity: Identity, budget: Budget) -> str:
    """Why a baseline says nothing about this measurement, "" when it does."""
    if budget.baseline_key is None or budget.baseline_key == identity.baseline_key:
        return ""
    return "the baseline was measured with another GPU, driver, engine, model, KV cache or workload"


def _verdict(
    evidence: Evidence,
    counts: Counts,
    checks: Mapping[BudgetCheck, Sequence[str]],  # with the doubts that could turn it
    doubts: tuple[str, ...],
    stranger: str,
) -> Verdict:
    wrong = [f"{finding.check}: {finding.detail}" for finding in evidence.findings if finding.status == "fail"]
    if counts.failed:
        first = next(iter(counts.errors))
        wrong.append(f"{counts.failed} of {counts.issued} requests failed: {first}")
    if wrong:
        return Verdict("fail", 1, tuple(wrong), doubts)
    unclear = [stranger] * bool(stranger and checks)
    if evidence.vram and evidence.vram.foreign_processes:
        unclear.append(f"other processes computed on the GPU: {evidence.vram.foreign_processes}")
    exceeded = [check for check, doubted in checks.items() if check.status == "fail" and not unclear and not doubted]
    if exceeded:
        reasons = (f"{check.metric} is {check.value:.1f}, {check.op} {check.limit:g} asked for" for check in exceeded)
        return Verdict("fail", 3, tuple(reasons), doubts)
    unclear += [_unclear(check, counts) for check in checks if check.status == "inconclusive"]
    signals = [finding.detail for finding in evidence.findings if finding.check == INTERRUPTED]
    unclear += signals
    if checks and evidence.has_ended_early and not signals:
        unclear.append(f"only {counts.issued} requests within {evidence.workload.total_within_s:.0f} s")
    unclear += dict.fromkeys(why for doubted in checks.values() for why in doubted)
    if unclear:
        return Verdict("inconclusive", 4, tuple(unclear), doubts)
    return Verdict("pass", 0, (), doubts)


def _unclear(check: BudgetCheck, counts: Counts) -> str:
    if check.value is None:
        return f"{check.metric} could not be measured here"
    return f"{check.metric} has {counts.success} samples, {_LEAST_SAMPLES} needed"
