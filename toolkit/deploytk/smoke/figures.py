"""Computes the figures of docs/metrics.md from records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from deploytk.smoke.budget import Budget
from deploytk.smoke.counters import Counters
from deploytk.smoke.record import Record
from deploytk.smoke.report import Counts, Latency, Throughput, Tokens
from deploytk.smoke.statistics import Summary, summarize
from deploytk.smoke.workload import Workload

_STEADY = 0.95  # of the concurrency


def latency_of(records: Sequence[Record], workload: Workload) -> Latency:
    """Distributions over the requests that were answered."""
    good = [record for record in records if record.is_success]

    def summary(figure: Callable[[Record], float | None], source: Iterable[Record] = good) -> Summary:
        return summarize([value for record in source if (value := figure(record)) is not None])

    return Latency(
        n=len(good),
        window_s=window_s(records),
        ttft_ms=summary(lambda record: record.ttft_ms),
        ttft_sched_ms=summary(lambda record: record.ttft_sched_ms, good if workload.rate else ()),
        ttfo_ms=summary(lambda record: record.ttfo_ms),
        tpot_ms=summary(lambda record: record.tpot_ms),
        ntpot_ms=summary(lambda record: record.ntpot_ms),
        e2e_ms=summary(lambda record: record.e2e_ms),
        e2e_content_ms=summary(lambda record: record.e2e_content_ms),
        chunk_gap_ms=summarize([gap for record in good for gap in record.chunk_gaps_ms]),
        dispatch_delay_ms=summary(lambda record: record.dispatch_delay_ms, records),
        connect_ms=summary(lambda record: record.connect_ms, records),
    )


def window_s(records: Sequence[Record]) -> float:
    """From the first send to the last byte."""
    if not records:
        return 0.0
    return (max(record.done_ns for record in records) - min(record.sent_ns for record in records)) / 1e9


def throughput_of(records: Sequence[Record], workload: Workload, latency: Latency, budget: Budget) -> Throughput:
    good = [record for record in records if record.is_success]
    total = _output_tokens(good)
    characters, window = sum(len(record.text) for record in good), latency.window_s or None
    events = sum(len(record.event_ns) for record in good)
    decode = latency.tpot_ms.p50
    prefill = summarize([r.input_tokens / r.ttft_ms * 1000 for r in good if r.input_tokens and r.ttft_ms])
    schedule = workload.schedule()
    sends = sorted(record.sent_ns for record in records)
    kept = sum(_keeps(record, budget) for record in good) if _has_objectives(budget) else None
    return Throughput(
        output_tps=total / window if total is not None and window else None,
        output_tps_steady=_steady(good, workload),
        decode_tps_p50=1000 / decode if decode else None,
        prefill_tps_p50=prefill.p50,
        request_rate=len(good) / window if window else None,
        offered_rate=(len(schedule) - 1) / schedule[-1] if len(schedule) > 1 else None,
        achieved_send_rate=(len(sends) - 1) / ((sends[-1] - sends[0]) / 1e9) if schedule and len(sends) > 1 else None,
        chars_per_s=characters / window if window else None,
        chars_per_token=characters / total if total else None,
        tokens_per_event=total / events if total is not None and events else None,
        goodput_rps=kept / window if kept is not None and window else None,
        goodput_fraction=kept / len(records) if kept is not None and records else None,
    )


def counts_of(records: Sequence[Record]) -> Counts:
    errors = Counter(record.error for record in records if not record.is_success)
    return Counts(len(records), len(records) - errors.total(), errors.total(), dict(errors))


def tokens_of(records: Sequence[Record], counted: Counters | None) -> Tokens:
    good = [record for record in records if record.is_success]
    total = _output_tokens(good)
    cached = [record.cached_tokens for record in good if record.cached_tokens is not None]
    return Tokens(
        source=None if total is None else "usage",
        input=None if total is None else sum(record.input_tokens or 0 for record in good),
        output=total,
        events=sum(len(record.event_ns) for record in good),
        cached=sum(cached) if cached else None,
        server_counter_delta=counted,
    )


def _output_tokens(good: Sequence[Record]) -> int | None:
    """By the server's count; None when it left one out."""
    counts = [record.output_tokens for record in good]
    return sum(count for count in counts if count is not None) if good and None not in counts else None


def _steady(good: Sequence[Record], workload: Workload) -> float | None:
    """Tokens per second in the time in which nearly all streams were busy; None without a closed loop of several.

    Tokens of a request count for the part of its answer that lies inside.
    """
    if workload.rate is not None or workload.concurrency < 2 or not good or _output_tokens(good) is None:
        return None
    steps = sorted([(r.sent_ns, 1) for r in good] + [(r.done_ns, -1) for r in good])
    busy, full = 0, []
    for when, step in steps:
        was, busy = busy, busy + step
        if was < _STEADY * workload.concurrency <= busy or busy < _STEADY * workload.concurrency <= was:
            full.append(when)
    if len(full) < 2 or full[-1] <= full[0]:
        return None
    start, end = full[0], full[-1]
    inside = 0.0
    for record in good:
        if record.event_ns and record.output_tokens:
            within = sum(start <= when <= end for when in record.event_ns)
            inside += record.output_tokens * within / len(record.event_ns)
    return inside / ((end - start) / 1e9)


def _has_objectives(budget: Budget) -> bool:
    return budget.max_ttft_ms is not None or budget.max_tpot_ms is not None


def _keeps(record: Record, budget: Budget) -> bool:
    """Whether one request met the latency budgets."""
    pairs = ((record.ttft_ms, budget.max_ttft_ms), (record.tpot_ms, budget.max_tpot_ms))
    return all(limit is None or (value is not None and value <= limit) for value, limit in pairs)
