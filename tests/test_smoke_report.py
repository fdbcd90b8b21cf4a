"""Figures worked out by hand, verdicts, and what reports look like."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from ground_truth import Behaviour, serving

from deploytk.base.errors import UsageError
from deploytk.base.progress import Silent
from deploytk.hardware.catalogue import MIB
from deploytk.hardware.nvml import GpuMemory
from deploytk.plan import DecodeBound
from deploytk.serve import ServeOptions
from deploytk.smoke import Budget, Evidence, Workload, gather, judge, read_budget, read_raw, write_raw, write_report
from deploytk.smoke.correctness import Finding
from deploytk.smoke.figures import latency_of, throughput_of
from deploytk.smoke.judge import now
from deploytk.smoke.memory import Components, KvFacts, Sampling, VramReport
from deploytk.smoke.record import Record
from deploytk.smoke.report import ClientIdentity, Identity
from deploytk.smoke.selfcheck import ClientCheck, check_client

GPU = GpuMemory("NVIDIA H200", "GPU-1", "580", "nvml_v2", False, 141 * 2**30, 0, 0, (), 700.0, 1980, ())
IDENTITY = Identity(
    deploytk="0",
    url="http://127.0.0.1:1",
    model="m",
    engine="turbomind",
    lmdeploy="0.18.0",
    package_digest=None,
    weights="fp16",
    kv_policy="none",
    settings={},
    gpu=None,
    client=ClientIdentity("asyncio", "3.12", "cpu", 2),
)
MS = 1_000_000


def record(sent_ms: int, tokens_at_ms: list[int], tokens: int | None = None) -> Record:
    """A request whose every event is one token."""
    events = tuple(at * MS for at in tokens_at_ms)
    counted = len(events) if tokens is None else tokens
    return Record(
        prompt="question",
        text="x" * 2 * len(events),
        error="",
        status=200,
        scheduled_ns=sent_ms * MS,
        sent_ns=sent_ms * MS,
        head_ns=events[0],
        event_ns=events,
        output_ns=events[0],
        done_ns=events[-1] + MS,
        connect_ms=0.1,
        input_tokens=50,
        output_tokens=counted,
        cached_tokens=None,
        first_tokens=1,
        finish_reason="length",
        asked_tokens=counted,
        is_exact=False,
    )


# Twelve requests one after the other: 20 ms to the first token, then 10 ms per token, 5 tokens.
RECORDS = tuple(record(at, [at + 20, at + 30, at + 40, at + 50, at + 60]) for at in range(0, 1200, 100))
EVIDENCE = Evidence(
    kind="smoke",
    created=now(),
    identity=IDENTITY,
    workload=Workload(requests=12),
    records=RECORDS,
    findings=(Finding("golden answers", "pass", "8 of 8 right"),),
    counted=None,
    client_cpu_share=0.1,
    client=ClientCheck(100_000, 0.5, 0.5),
    has_ended_early=False,
    vram=None,
    load_s=4.0,
)
VRAM = VramReport(
    api="nvml_v2",
    scope="device",
    method="engine_log",
    parser="object_cache",
    sampling=Sampling(100, 3, 100, ((0.0, 500.0), (0.1, 6000.0), (0.2, 5500.0))),
    total_bytes=141 * 2**30,
    reserved_bytes=600 * MIB,
    baseline_bytes=500 * MIB,
    ready_bytes=5500 * MIB,
    peak_bytes=6000 * MIB,
    after_stop_bytes=500 * MIB,
    growth_bytes=0,
    used_before_pool_bytes=4000 * MIB,
    components=Components(3000 * MIB, 1000 * MIB, 1000 * MIB),
    kv=KvFacts(1024, 1024, 512),
    predicted=None,
    foreign_processes=0,
)


def test_figures_are_those_of_the_definitions() -> None:
    latency = latency_of(RECORDS, EVIDENCE.workload)
    throughput = throughput_of(RECORDS, EVIDENCE.workload, latency, Budget())

    assert latency.ttft_ms.p50 == 20
    assert latency.tpot_ms.p50 == 10  # (60 - 20) / (5 - 1)
    assert latency.e2e_ms.p50 == 61
    assert latency.chunk_gap_ms.n == 48  # 12 x 4
    assert latency.window_s == pytest.approx(1.161)  # from 0 to 1100 + 61 ms
    assert throughput.output_tps == pytest.approx(60 / 1.161)
    assert throughput.chars_per_s == pytest.approx(120 / 1.161)
    assert throughput.decode_tps_p50 == 100


def test_events_of_several_tokens_do_not_make_a_model_slower() -> None:
    one = record(0, [20, 30, 40, 50, 60], tokens=9)  # two tokens in each event but the first

    assert one.tpot_ms == 5  # 40 ms / (9 - 1)


def test_the_share_of_the_bound_is_taken_at_the_length_of_one_conversation() -> None:
    # 1 GB/s; a token reads 1 MB, and 100 kB for each token before it. In the middle of an answer that are 50 + 5 / 2.
    bound = DecodeBound(1000, 500, 1_000_000, 100_000, 1)

    report = judge(replace(EVIDENCE, bound=bound), Budget())

    assert report.throughput.decode_tps_p50 == 100
    assert report.bound_share == pytest.approx(100 / (1e9 / (1e6 + 52.5 * 1e5)))


def test_the_steady_rate_leaves_ramp_up_and_down_out() -> None:
    # Two streams: both busy from 100 to 200 ms, in which each sends 10 of its 20 tokens.
    first = record(0, list(range(10, 210, 10)))
    second = record(100, list(range(110, 310, 10)))
    first, second = replace(first, done_ns=200 * MS), replace(second, done_ns=300 * MS)
    workload = Workload(requests=2, concurrency=2)

    throughput = throughput_of((first, second), workload, latency_of((first, second), workload), Budget())

    # first: events at 100..200 (11 of 20), second: at 110..200 (10 of 20): 21 tokens in 0.1 s
    assert throughput.output_tps_steady == pytest.approx(210)


def test_the_schedule_of_an_open_loop_has_the_rate_that_was_asked_for() -> None:
    due = Workload(requests=4001, rate=50, seed=3).schedule()

    assert due == Workload(requests=4001, rate=50, seed=3).schedule()
    # 4000 exponential gaps of mean 20 ms: the mean is within 5 sigma = 5 * 20 / sqrt(4000) = 1.6 ms
    assert due[-1] / 4000 == pytest.approx(0.02, abs=0.0016)


@pytest.mark.parametrize(
    ("evidence", "budget", "exit_code", "reason"),
    [
        (EVIDENCE, Budget(max_ttft_ms=21), 0, ""),
        (EVIDENCE, Budget(max_ttft_ms=19), 3, "ttft"),
        (EVIDENCE, Budget(max_tpot_ms=9), 3, "tpot"),
        (EVIDENCE, Budget(min_tokens_per_s=60), 3, "output_tps"),
        (EVIDENCE, Budget(max_vram_mib=1), 4, "could not be measured"),
        (replace(EVIDENCE, vram=VRAM), Budget(max_vram_mib=5600), 0, ""),  # 6000 - 500 at the peak
        (replace(EVIDENCE, vram=VRAM), Budget(max_vram_mib=5400), 3, "vram"),
        (replace(EVIDENCE, vram=replace(VRAM, foreign_processes=1)), Budget(max_vram_mib=9999), 4, "other process"),
        (replace(EVIDENCE, records=RECORDS[:10]), Budget(max_ttft_ms=21), 4, "samples"),
        (replace(EVIDENCE, has_ended_early=True), Budget(max_ttft_ms=21), 4, "within"),
        (replace(EVIDENCE, client_cpu_share=0.95), Budget(max_ttft_ms=1), 4, "busy"),
        (replace(EVIDENCE, lag_p99_ms=3.5), Budget(max_ttft_ms=21), 4, "late"),  # 20 ms measured, 16.5 to 23.5 in truth
        (replace(EVIDENCE, lag_p99_ms=3.5), Budget(max_ttft_ms=19), 4, "late"),
        (replace(EVIDENCE, lag_p99_ms=3.5), Budget(max_ttft_ms=24, max_tpot_ms=500, min_tokens_per_s=1), 0, ""),
        (replace(EVIDENCE, lag_p99_ms=3.5), Budget(max_ttft_ms=16), 3, "ttft"),
        (replace(EVIDENCE, client_cpu_share=0.95, vram=VRAM), Budget(max_vram_mib=1), 3, "vram"),
        # A slow client sees times that are too long: it excuses those beyond the limit, those within it hold.
        (replace(EVIDENCE, client=ClientCheck(100, 0.5, 0.5)), Budget(max_ttft_ms=21), 0, ""),
        (replace(EVIDENCE, client=ClientCheck(100, 0.5, 0.5)), Budget(max_ttft_ms=19), 4, "client can read"),
        (replace(EVIDENCE, client=ClientCheck(1e5, 6, 0.5)), Budget(max_ttft_ms=21), 0, ""),
        (replace(EVIDENCE, client=ClientCheck(1e5, 6, 0.5)), Budget(max_ttft_ms=15), 4, "late"),
        (replace(EVIDENCE, client=ClientCheck(1e5, 6, 0.5)), Budget(max_ttft_ms=13), 3, "ttft"),
        (replace(EVIDENCE, client=ClientCheck(1e5, 0.5, 3.5)), Budget(max_ttft_ms=21), 4, "off by"),
        (replace(EVIDENCE, client_cpu_share=0.95), Budget(), 0, ""),  # nobody relies on the times
        (replace(EVIDENCE, findings=(Finding("golden answers", "fail", "0 of 8"),)), Budget(max_ttft_ms=1), 1, "0 of"),
        (replace(EVIDENCE, findings=(Finding("repeatable", "warn", "no"),)), Budget(), 0, ""),
    ],
)
def test_verdicts(evidence: Evidence, budget: Budget, exit_code: int, reason: str) -> None:
    report = judge(evidence, budget)

    assert report.verdict.exit_code == exit_code
    assert reason in " ".join(report.verdict.reasons)


def test_a_baseline_of_another_machine_judges_nothing(tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.json"
    write_report(judge(replace(EVIDENCE, identity=replace(IDENTITY, gpu=GPU)), Budget()), baseline)

    same = judge(replace(EVIDENCE, identity=replace(IDENTITY, gpu=GPU)), read_budget(baseline))
    other = replace(IDENTITY, gpu=replace(GPU, name="NVIDIA A10"))
    strange = judge(replace(EVIDENCE, identity=other), read_budget(baseline))

    assert same.verdict.exit_code == 0
    assert strange.verdict.exit_code == 4
    assert "another GPU" in strange.verdict.reasons[0]


def test_a_baseline_allows_a_fifth_more_time(tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.json"
    write_report(judge(replace(EVIDENCE, vram=VRAM), Budget()), baseline)

    budget = read_budget(baseline)

    assert budget.max_ttft_ms == pytest.approx(24)  # 20 ms + 20 %
    assert budget.max_tpot_ms == pytest.approx(12)
    assert budget.max_vram_mib == pytest.approx(5564)  # 6000 - 500 + 64


def test_every_figure_can_be_computed_again_from_the_raw_data(tmp_path: Path) -> None:
    raw = tmp_path / "raw.jsonl"
    budget = Budget(max_ttft_ms=1000)

    with serving(Behaviour(gap_s=0.001)) as server:
        workload = Workload(requests=12, warmup_requests=1, output_tokens=16, has_self_check=False)
        evidence = gather(server.url, ServeOptions(), workload, Silent())
    write_raw(evidence, budget, raw)

    assert judge(*read_raw(raw)) == judge(evidence, budget)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"schema": "deploytk.requests/1"}', "\x00", "[" * 100000])
def test_what_is_no_raw_data_is_refused(tmp_path: Path, content: str) -> None:
    raw = tmp_path / "raw.jsonl"
    raw.write_text(content)

    with pytest.raises(UsageError, match="no raw data"):
        read_raw(raw)


def test_raw_data_holds_vram_too(tmp_path: Path) -> None:
    evidence = replace(EVIDENCE, vram=VRAM, identity=replace(IDENTITY, gpu=GPU))
    write_raw(evidence, Budget(max_vram_mib=6000), tmp_path / "raw.jsonl")

    assert read_raw(tmp_path / "raw.jsonl") == (evidence, Budget(max_vram_mib=6000))


NASTY = "<script>alert(1)</script>\x00|`*[x](javascript:1)\n# head"


def test_junit_has_a_case_per_check(tmp_path: Path) -> None:
    findings = (Finding("golden answers", "fail", NASTY), Finding("memory released", "not run", "not ours"))
    report = judge(replace(EVIDENCE, findings=findings), Budget(max_ttft_ms=1))

    write_report(report, tmp_path / "report.xml")

    suites = ElementTree.parse(tmp_path / "report.xml").getroot()
    suite = suites[0]
    cases = {case.get("name"): [child.tag for child in case] for case in suite.iter("testcase")}
    assert (suites.tag, suite.tag) == ("testsuites", "testsuite")
    assert float(suites.get("time", 0)) == float(suite.get("time", 0)) > 0
    assert all(case.get("time") for case in suite.iter("testcase"))
    assert "machine" in {one.get("name") for one in suite.iter("property")}
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("4", "2", "1")
    assert cases == {
        "golden answers": ["failure"],
        "memory released": ["skipped"],
        "latency.ttft_ms.p50 <= 1": ["failure"],
        "requests answered": ["system-out"],
    }


def test_html_is_one_file_that_loads_nothing(tmp_path: Path) -> None:
    evidence = replace(EVIDENCE, vram=VRAM, findings=(Finding("golden answers", "fail", NASTY),))

    write_report(judge(evidence, Budget(max_ttft_ms=1)), tmp_path / "report.html")

    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert not [word for word in ("src=", "href=", "url(", "@import", "//") if word in text]
    assert text.count("<svg") == 6  # four distributions, VRAM by term, VRAM over time


def test_markdown_keeps_what_a_model_says_in_its_cell(tmp_path: Path) -> None:
    report = judge(replace(EVIDENCE, findings=(Finding("golden answers", "fail", NASTY),)), Budget())

    write_report(report, tmp_path / "report.md")

    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "<script>" not in text.replace("\\<", "")
    assert [line for line in text.splitlines() if line.startswith("# ")] == []


def test_json_has_the_schema_and_the_units_in_its_names(tmp_path: Path) -> None:
    write_report(judge(replace(EVIDENCE, vram=VRAM), Budget()), tmp_path / "report.json")

    found = json.loads((tmp_path / "report.json").read_text())
    assert found["schema"] == "deploytk.report/1"
    assert found["vram"]["components"] == {
        "weights_bytes": 3000 * MIB,
        "kv_pool_bytes": 1000 * MIB,
        "overhead_bytes": 1000 * MIB,
    }
    assert found["latency"]["ttft_ms"]["p50"] == 20


def test_the_client_can_check_itself() -> None:
    check = check_client(4)

    assert check.capacity_events_s > 1000
    assert 0 <= check.ttft_error_ms < 1000
