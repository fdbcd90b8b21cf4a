"""Every figure of a report, worked out by hand; and where doubts and findings begin, to the border."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from test_smoke_report import EVIDENCE, GPU, IDENTITY, VRAM, record

from deploytk.hardware.nvml import GpuProcess, Track
from deploytk.smoke import Budget, Evidence, Workload, judge
from deploytk.smoke.correctness import Finding
from deploytk.smoke.counters import Counters
from deploytk.smoke.engine_log import parse_engine_log
from deploytk.smoke.figures import counts_of, latency_of, throughput_of, tokens_of, window_s
from deploytk.smoke.memory import KvFacts, PlannedVram, VramReport, Watched, check_vram, report_vram
from deploytk.smoke.record import Record
from deploytk.smoke.selfcheck import ClientCheck
from deploytk.smoke.statistics import certified_percentile, percentile, summarize

MIB, GIB, MS = 2**20, 2**30, 1_000_000


def _late(sent_ms: int, due_ms: int) -> Record:
    """Three tokens of six characters, 100, 150 and 200 ms after it was sent, 10 ms and more after it was due."""
    sent = record(sent_ms, [sent_ms + 100, sent_ms + 150, sent_ms + 200])
    return replace(sent, scheduled_ns=due_ms * MS, output_ns=sent.event_ns[1], head_ns=(sent_ms + 90) * MS)


OPEN_LOOP = (_late(10, 0), _late(510, 500), _late(1030, 1000), _late(1540, 1500))
RATE = Workload(requests=4, rate=2.0)


def test_a_request_has_its_times_from_when_it_was_sent_and_from_when_it_was_due() -> None:
    one = _late(30, 20)

    assert (one.dispatch_delay_ms, one.ttft_ms, one.ttft_sched_ms, one.ttfo_ms) == (10, 100, 110, 150)
    assert (one.tpot_ms, one.chunk_gaps_ms) == (50, (50, 50))  # (200 - 100) / (3 - 1)
    assert (one.e2e_ms, one.e2e_content_ms) == (201, 200)
    assert one.ntpot_ms == 67  # 201 / 3


def test_a_request_without_text_has_no_times_of_it() -> None:
    empty = replace(_late(30, 20), event_ns=(), output_ns=None, output_tokens=None)

    assert (empty.ttft_ms, empty.ttft_sched_ms, empty.ttfo_ms, empty.tpot_ms) == (None, None, None, None)
    assert (empty.e2e_content_ms, empty.ntpot_ms, empty.chunk_gaps_ms) == (None, None, ())
    assert empty.e2e_ms == 201


@pytest.mark.parametrize(
    "changes", [{"output_tokens": 1}, {"event_ns": (MS,)}, {"output_tokens": 2, "first_tokens": 2}]
)
def test_one_piece_of_text_has_no_time_per_token(changes: dict[str, object]) -> None:
    assert replace(_late(0, 0), **changes).tpot_ms is None  # type: ignore[arg-type]


def test_every_rate_of_an_open_loop() -> None:
    latency = latency_of(OPEN_LOOP, RATE)
    found = throughput_of(OPEN_LOOP, RATE, latency, Budget(max_ttft_ms=100, max_tpot_ms=50))

    # From 10 ms to 1540 + 201 ms; 3 gaps between the first and the last send, 1.53 s.
    assert latency.window_s == pytest.approx(1.731)
    assert found.output_tps == pytest.approx(12 / 1.731)
    assert found.request_rate == pytest.approx(4 / 1.731)
    assert found.achieved_send_rate == pytest.approx(3 / 1.53)
    assert found.offered_rate == pytest.approx(3 / RATE.schedule()[3])
    assert found.chars_per_s == pytest.approx(24 / 1.731)
    assert (found.chars_per_token, found.tokens_per_event) == (2, 1)
    assert (found.decode_tps_p50, found.prefill_tps_p50) == (20, 500)  # 1000 / 50; 50 tokens in 100 ms
    assert (found.goodput_rps, found.goodput_fraction) == (pytest.approx(4 / 1.731), 1)
    assert found.output_tps_steady is None  # of a closed loop of several alone
    assert latency.dispatch_delay_ms.max == 40
    assert latency.ttft_sched_ms.min == 110
    assert (latency.n, latency.connect_ms.n, latency.chunk_gap_ms.n) == (4, 4, 8)


def test_a_closed_loop_has_no_rate_that_was_asked_for() -> None:
    workload = Workload(requests=4)
    latency = latency_of(OPEN_LOOP, workload)
    found = throughput_of(OPEN_LOOP, workload, latency, Budget())

    assert (found.offered_rate, found.achieved_send_rate, found.goodput_rps, found.goodput_fraction) == (None,) * 4
    assert latency.ttft_sched_ms.n == 0


@pytest.mark.parametrize(
    ("budget", "kept"),
    [
        (Budget(max_ttft_ms=100), 4),
        (Budget(max_ttft_ms=99.9), 0),
        (Budget(max_tpot_ms=50), 4),
        (Budget(max_tpot_ms=49.9), 0),
        (Budget(max_ttft_ms=100, max_tpot_ms=49.9), 0),
        (Budget(max_ttft_ms=99.9, max_tpot_ms=50), 0),
    ],
)
def test_what_keeps_both_budgets_counts_among_all_that_was_asked(budget: Budget, kept: int) -> None:
    failed = replace(_late(200, 200), error="no", event_ns=())
    records = (*OPEN_LOOP, failed)

    found = throughput_of(records, RATE, latency_of(records, RATE), budget)

    assert found.goodput_fraction == kept / 5


def test_an_answer_whose_tokens_are_not_known_keeps_no_budget_of_time_per_token() -> None:
    unknown = tuple(replace(one, output_tokens=None) for one in OPEN_LOOP)

    found = throughput_of(unknown, RATE, latency_of(unknown, RATE), Budget(max_tpot_ms=1000))

    assert found.goodput_fraction == 0
    assert (found.output_tps, found.chars_per_token, found.tokens_per_event) == (None, None, None)
    assert found.chars_per_s == pytest.approx(24 / 1.731)


def test_nothing_that_was_asked_has_no_rate() -> None:
    latency = latency_of((), RATE)
    found = throughput_of((), RATE, latency, Budget(max_ttft_ms=1))

    assert (window_s(()), latency.n, latency.ttft_ms.p50) == (0, 0, None)
    assert (found.output_tps, found.request_rate, found.chars_per_s, found.goodput_fraction) == (None,) * 4


def test_failures_are_counted_by_their_reason() -> None:
    records = (*OPEN_LOOP, *(replace(OPEN_LOOP[0], error=error) for error in ("no", "no", "never")))

    counts = counts_of(records)

    assert (counts.issued, counts.success, counts.failed, counts.errors) == (7, 4, 3, {"no": 2, "never": 1})
    assert counts.error_rate == pytest.approx(3 / 7)
    assert counts_of(()).error_rate == 0


def test_tokens_are_those_of_answers_that_came() -> None:
    cached = replace(OPEN_LOOP[0], cached_tokens=30)
    records = (cached, *OPEN_LOOP[1:], replace(OPEN_LOOP[0], error="no"))

    tokens = tokens_of(records, Counters(1, 2))

    assert (tokens.source, tokens.input, tokens.output, tokens.events, tokens.cached) == ("usage", 200, 12, 12, 30)
    assert tokens.server_counter_delta == Counters(1, 2)


def test_tokens_are_not_known_when_one_answer_does_not_say_them() -> None:
    tokens = tokens_of((replace(OPEN_LOOP[0], output_tokens=None), *OPEN_LOOP[1:]), None)

    assert (tokens.source, tokens.input, tokens.output, tokens.events, tokens.cached) == (None, None, None, 12, None)


@pytest.mark.parametrize(("concurrency", "is_told"), [(1, False), (2, True)])
def test_a_steady_rate_is_that_of_several_streams(concurrency: int, is_told: bool) -> None:
    workload = Workload(requests=4, concurrency=concurrency)
    # Two streams of 0 to 301 ms, ten tokens each from 30 to 300 ms: all of them while both were busy.
    records = tuple(record(0, list(range(30, 301, 30))) for _ in range(2))

    found = throughput_of(records, workload, latency_of(records, workload), Budget()).output_tps_steady

    assert found == (pytest.approx(20 / 0.301) if is_told else None)


# What makes times doubtful. EVIDENCE: 60 events in 1.161 s are 51.68 a second; three times that are 155.04.


@pytest.mark.parametrize(
    ("evidence", "said"),
    [
        (EVIDENCE, ""),
        (replace(EVIDENCE, client=ClientCheck(155.1, 0.5, 0.5)), ""),
        (replace(EVIDENCE, client=ClientCheck(155.0, 0.5, 0.5)), "the client can read only 3.0 times as fast"),
        (replace(EVIDENCE, lag_p99_ms=3.0), ""),
        (replace(EVIDENCE, lag_p99_ms=3.06), "the client was woken up to 3.1 ms late"),
        (replace(EVIDENCE, client_cpu_share=0.9), ""),
        (replace(EVIDENCE, client_cpu_share=0.91), "busy 91% of the time"),
        (replace(EVIDENCE, client=ClientCheck(1e5, 5.0, 3.0)), ""),
        (replace(EVIDENCE, client=ClientCheck(1e5, 5.06, 3.0)), "first tokens 5.1 ms late"),
        (replace(EVIDENCE, client=ClientCheck(1e5, 5.0, 3.06)), "off by 3.1 ms"),
        (replace(EVIDENCE, client=None), ""),
        (replace(EVIDENCE, identity=replace(IDENTITY, gpu=GPU)), ""),
        (replace(EVIDENCE, identity=replace(IDENTITY, gpu=replace(GPU, slowed_by=("heat",)))), "slowed down: heat"),
    ],
)
def test_doubts_begin_just_beyond_their_borders(evidence: Evidence, said: str) -> None:
    doubts = judge(evidence, Budget()).verdict.inconclusive

    assert len(doubts) == bool(said)
    assert said in "".join(doubts)


@pytest.mark.parametrize(("due_ms", "rate", "said"), [(11, 2.0, "sent 11 ms"), (10, 2.0, ""), (11, None, "")])
def test_requests_that_were_sent_late_are_doubted_where_they_were_due(due_ms: int, rate: float, said: str) -> None:
    records = tuple(replace(one, scheduled_ns=one.sent_ns - due_ms * MS) for one in EVIDENCE.records)
    late = replace(EVIDENCE, records=records, workload=replace(EVIDENCE.workload, rate=rate))

    doubts = judge(late, Budget()).verdict.inconclusive

    assert len(doubts) == bool(said)
    assert said in "".join(doubts)


@pytest.mark.parametrize(("count", "is_doubted"), [(99, False), (100, True)])
def test_of_a_hundred_requests_one_in_a_hundred_may_be_late_of_fewer_one_in_ten(count: int, is_doubted: bool) -> None:
    # Five are 30 ms late: more than one in a hundred, less than one in ten.
    records = tuple(replace(record(at, [at + 20]), scheduled_ns=(at - 30 * (at < 5)) * MS) for at in range(count))
    late = replace(EVIDENCE, records=records, workload=Workload(requests=count, rate=2.0), client=None)

    assert any("after they were due" in doubt for doubt in judge(late, Budget()).verdict.inconclusive) == is_doubted


@pytest.mark.parametrize(
    ("budget", "exit_code"),
    [
        (Budget(max_ttft_ms=20), 0),
        (Budget(max_tpot_ms=10), 0),
        (Budget(min_tokens_per_s=60 / 1.161), 0),
        (Budget(max_vram_mib=5500), 0),
        (Budget(max_vram_mib=5499), 3),
    ],
)
def test_a_budget_may_be_used_up(budget: Budget, exit_code: int) -> None:
    assert judge(replace(EVIDENCE, vram=VRAM), budget).verdict.exit_code == exit_code


@pytest.mark.parametrize(("count", "exit_code"), [(11, 0), (10, 4)])
def test_a_median_is_believed_from_eleven_samples_on(count: int, exit_code: int) -> None:
    report = judge(replace(EVIDENCE, records=EVIDENCE.records[:count]), Budget(max_ttft_ms=21))

    assert report.verdict.exit_code == exit_code
    assert exit_code == 0 or report.verdict.reasons == ("latency.ttft_ms.p50 has 10 samples, 11 needed",)


def test_what_went_wrong_is_said_with_its_number_and_its_first_reason() -> None:
    failed = tuple(replace(one, error="HTTP status 500") for one in EVIDENCE.records[:3])

    verdict = judge(replace(EVIDENCE, records=(*failed, *EVIDENCE.records[3:])), Budget()).verdict

    assert (verdict.exit_code, verdict.reasons) == (1, ("3 of 12 requests failed: HTTP status 500",))


def test_a_measurement_that_ended_early_or_beside_others_says_so() -> None:
    early = replace(EVIDENCE, has_ended_early=True, vram=replace(VRAM, foreign_processes=2))

    verdict = judge(early, Budget(max_ttft_ms=21)).verdict

    assert verdict.reasons == ("other processes computed on the GPU: 2", "only 12 requests within 600 s")
    assert judge(replace(EVIDENCE, has_ended_early=True), Budget()).verdict.exit_code == 0  # nobody asked


# Percentiles


def test_percentiles_lie_between_samples() -> None:
    assert [percentile([1, 2, 4], share) for share in (0, 25, 50, 75, 100)] == [1, 1.5, 2, 3, 4]
    assert percentile([7], 99) == 7


def test_a_summary_is_of_its_samples() -> None:
    found = summarize([4, 1, 2, 5])

    assert (found.n, found.mean, found.min, found.p50, found.max) == (4, 3, 1, 3, 5)
    assert found.sd == pytest.approx((10 / 3) ** 0.5)  # (1 + 4 + 1 + 4) / 3
    assert summarize([4]).sd is None
    assert found.uncertified == ("p50", "p90", "p95", "p99")


@pytest.mark.parametrize(("count", "uncertain"), [(10, 4), (11, 3), (63, 3), (64, 2), (129, 2), (130, 1), (662, 0)])
def test_percentiles_are_believed_from_the_counts_of_mlperf_on(count: int, uncertain: int) -> None:
    assert len(summarize(range(count)).uncertified) == uncertain


@pytest.mark.parametrize(("count", "bound"), [(5, None), (6, (0, 5)), (8, (0, 7)), (9, (1, 7)), (12, (2, 9))])
def test_the_interval_of_a_median_lies_between_two_samples(count: int, bound: tuple[float, float] | None) -> None:
    # Half of the cases lie below the median: P(no sample below) is 1/32 of 5 samples, 1/64 of 6 - less than 2.5 %;
    # P(at most one) is 9/256 of 8 and 10/512 of 9; P(at most two) of 12 is (1 + 12 + 66) / 4096 = 1.9 %.
    assert summarize(range(count)).ci95_p50 == bound


@pytest.mark.parametrize(("count", "bound"), [(63, None), (64, 62), (100, 96)])
def test_a_certified_percentile_is_exceeded_in_one_of_a_hundred_cases(count: int, bound: float | None) -> None:
    # P(at most one of 64 above the 90th percentile) is 0.9^64 + 64 x 0.1 x 0.9^63 = 0.96 %, of 63 it is 1.05 %;
    # of 100, P(at most 3) is 0.8 % and P(at most 4) 2.4 %: then the fourth from above, 96, counted from 0.
    assert certified_percentile(range(count), 90) == bound


# Memory


PLANNED = PlannedVram(4 * GIB, GIB, 2 * GIB, 512 * 1024, 1024, 2, is_quantized=True, fp16_weights_bytes=13 * GIB)


def _findings(planned: PlannedVram = PLANNED, **changes: object) -> dict[str, Finding]:
    vram = replace(VRAM, **changes)  # type: ignore[arg-type]
    return {finding.check: finding for finding in check_vram(vram, planned)}


@pytest.mark.parametrize(
    ("check", "changes", "status", "detail"),
    [
        ("no memory leak", {"growth_bytes": 64 * MIB}, "pass", "+64 MiB from request 5 to the last"),
        ("no memory leak", {"growth_bytes": 64 * MIB + 1}, "fail", "+64 MiB from request 5 to the last"),
        ("no memory leak", {"growth_bytes": -3 * MIB}, "pass", "-3 MiB from request 5 to the last"),
        ("no memory leak", {"growth_bytes": None}, "not run", "fewer than 6 requests, or no samples"),
        ("memory released", {"after_stop_bytes": 564 * MIB}, "pass", "64 MiB left after the end"),
        ("memory released", {"after_stop_bytes": 564 * MIB + 1}, "fail", "64 MiB left after the end"),
        ("memory released", {"after_stop_bytes": 400 * MIB}, "pass", "0 MiB left after the end"),
        ("memory released", {"after_stop_bytes": None}, "not run", "the server is not ours to stop"),
        # 0.6 x 13 GiB of weights and 2 GiB of context are 9.8 GiB.
        (
            "really quantized",
            {"used_before_pool_bytes": int(9.79 * GIB)},
            "pass",
            "10025 MiB before the KV pool; fp16 weights alone take 13312",
        ),
        (
            "really quantized",
            {"used_before_pool_bytes": int(9.81 * GIB)},
            "fail",
            "10045 MiB before the KV pool; fp16 weights alone take 13312",
        ),
        ("really quantized", {"used_before_pool_bytes": None}, "not run", "the engine's log does not tell"),
        ("room for the sessions", {"kv": KvFacts(1, 2048, 1024)}, "pass", "2048 tokens in the pool, 2048 planned"),
        ("room for the sessions", {"kv": KvFacts(1, 2048, None)}, "pass", "2048 tokens in the pool, 2048 planned"),
        ("room for the sessions", {"kv": KvFacts(1, 2047, 1024)}, "fail", "2047 tokens in the pool, 2048 planned"),
        (
            "room for the sessions",
            {"kv": KvFacts(1, 2048, 1023)},
            "fail",
            "2048 tokens in the pool, 2048 planned; the engine cut sessions to 1023 tokens",
        ),
        ("room for the sessions", {"kv": KvFacts(1, None, 1024)}, "not run", "the engine's log does not tell"),
    ],
)
def test_what_is_wrong_with_memory_is_said_in_figures(
    check: str, changes: dict[str, object], status: str, detail: str
) -> None:
    assert _findings(**changes)[check] == Finding(check, status, detail)  # type: ignore[arg-type]


@pytest.mark.parametrize(("fp16_bytes", "status"), [(GIB, "fail"), (GIB - 1, "not run")])
def test_weights_are_judged_from_a_gibibyte_on(fp16_bytes: int, status: str) -> None:
    planned = replace(PLANNED, fp16_weights_bytes=fp16_bytes)

    assert _findings(planned, used_before_pool_bytes=4 * GIB)["really quantized"].status == status


def test_weights_that_are_not_quantized_are_not_judged() -> None:
    plain = _findings(replace(PLANNED, is_quantized=False))["really quantized"]

    assert (plain.status, plain.detail) == ("not run", "the model is not quantized")


Samples = tuple[Sequence[int], Sequence[float]]  # ms, MiB


def _reported(samples: Samples, *, is_ours: bool = True, processes: int = 0) -> VramReport:
    """Of a GPU with 500 MiB in use and so many processes before, and 5500 MiB in use when all was done."""
    first = replace(GPU, used_bytes=500 * MIB, processes=tuple(GpuProcess(pid, None) for pid in range(processes)))
    ready = replace(GPU, used_bytes=5500 * MIB, reserved_bytes=600 * MIB)
    track = Track(first, [1000 * MS + at * MS for at in samples[0]], [int(mib * MIB) for mib in samples[1]])
    return report_vram(Watched(ready, track, is_ours, None), parse_engine_log(""), None, ())


def test_use_over_time_is_thinned_out_and_keeps_its_peak() -> None:
    used = [500.0] * 1000
    used[777] = 6000.4

    sampling = _reported((range(0, 20_000, 20), used)).sampling

    assert sampling.samples == 1000
    assert len(sampling.series) == 200  # of every five one
    assert (15.54, 6000.4) in sampling.series  # 777 x 20 ms
    assert sampling.series[0] == (0.0, 500.0)
    assert sampling.max_gap_ms == 20


@pytest.mark.parametrize(("samples", "points"), [(0, 0), (1, 1), (200, 200), (201, 101)])
def test_no_more_points_are_kept_than_can_be_seen(samples: int, points: int) -> None:
    assert (
        len(_reported((range(samples), [500] * samples)).sampling.series) == points
    )  # two samples a point from 201 on


def test_the_peak_is_the_largest_that_was_seen_at_any_time() -> None:
    assert _reported(([0, 1], [500, 6000])).peak_bytes == 6000 * MIB
    assert _reported(([0, 1], [500, 501])).peak_bytes == 5500 * MIB  # when it was ready


@pytest.mark.parametrize(
    ("is_ours", "processes", "foreign", "baseline_mib"),
    [(True, 0, 0, 500), (True, 2, 2, 500), (False, 0, 0, 0), (False, 1, 0, 0), (False, 3, 2, 0)],
)
def test_whose_memory_it_is_depends_on_who_started_the_server(
    is_ours: bool, processes: int, foreign: int, baseline_mib: int
) -> None:
    report = _reported(([0], [500]), is_ours=is_ours, processes=processes)

    assert (report.foreign_processes, report.baseline_bytes) == (foreign, baseline_mib * MIB)
    assert report.ready_of_ours == (5500 - baseline_mib) * MIB
    assert (report.method, report.growth_bytes, report.used_before_pool_bytes) == (None, None, None)
