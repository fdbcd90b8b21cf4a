"""The smoke test against a server whose answers and send times are known."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ground_truth import MODEL, Behaviour, serving
from hypothesis import given
from hypothesis import strategies as st

from deploytk.base.errors import EndpointError, UsageError
from deploytk.base.event_loop import interrupt
from deploytk.base.net import Key
from deploytk.base.progress import Advance, Silent, Unit
from deploytk.bundle import Golden
from deploytk.serve import ServeOptions
from deploytk.smoke import Budget, Report, Workload, make_budget, markdown, read_budget, smoke, write_report
from deploytk.smoke.client import Connection
from deploytk.smoke.correctness import degenerate
from deploytk.smoke.received import Chunks, Events, Exchange
from deploytk.smoke.statistics import percentile, summarize

FEW = Workload(
    requests=12,
    warmup_requests=1,
    output_tokens=64,
    request_within_s=30,
    total_within_s=60,
    has_self_check=False,
)


def _smoke(behaviour: Behaviour, budget: Budget | None = None, golden: tuple[Golden, ...] = ()) -> Report:
    with serving(behaviour) as server:
        return smoke(server.url, ServeOptions(golden=golden), FEW, budget or Budget(), Silent())


def test_a_healthy_server_passes() -> None:
    report = _smoke(Behaviour())

    assert (report.verdict.status, report.verdict.exit_code) == ("pass", 0)
    assert (report.counts.success, report.identity.model) == (12, MODEL)
    assert report.tokens.source == "usage"


class _Interrupts(Silent):
    """As a person who presses Ctrl-C after the fifth of the timed requests."""

    done = 0

    @contextmanager
    def task(self, label: str, total: int, unit: Unit = "bytes") -> Iterator[Advance]:
        self.done = 0

        def advance(amount: int) -> None:
            self.done += amount
            if label == "requests" and self.done == 5:
                interrupt()  # as the handlers of signals do

        yield advance


@pytest.mark.parametrize("rate", [None, 200.0])
def test_ctrl_c_keeps_what_was_measured_and_says_so(rate: float | None) -> None:
    with serving(Behaviour()) as server:
        workload = dataclasses.replace(FEW, rate=rate)
        report = smoke(server.url, ServeOptions(), workload, Budget(max_ttft_ms=1e6), _Interrupts())

    assert report.counts.issued >= 5
    assert report.counts.issued < 12
    assert report.latency.ttft_ms.n == report.counts.issued
    assert (report.verdict.status, report.verdict.exit_code) == ("inconclusive", 4)
    assert f"ended by a signal after {report.counts.issued} of 12 requests" in report.verdict.reasons


def test_requests_under_way_at_a_signal_have_not_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their connections are closed by us, of which an event loop may tell them before it cancels them."""
    close = Connection.close

    def close_and_tell(connection: Connection) -> None:
        wire = connection._wire
        close(connection)
        if wire is not None:
            wire.connection_lost(None)

    monkeypatch.setattr(Connection, "close", close_and_tell)
    with serving(Behaviour(first_after_s=0.2)) as server:
        workload = dataclasses.replace(FEW, rate=20.0)
        report = smoke(server.url, ServeOptions(), workload, Budget(), _Interrupts())

    assert report.counts.issued >= 5
    assert report.counts.failed == 0
    assert report.verdict.status == "inconclusive"


def test_requests_that_end_in_the_moment_of_a_signal_leave_no_connection_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their answers are there when the measurement is cancelled, and they run once more after it has cleaned up."""
    made: list[Connection] = []
    are_held: list[asyncio.Event] = []

    class Held(Connection):
        def __init__(self, url: str, key: Key | None = None) -> None:
            super().__init__(url, key)
            made.append(self)

        async def post(self, path: str, body: dict[str, Any], within_s: float, largest_bytes: int = 2**20) -> Exchange:
            exchange = await super().post(path, body, within_s, largest_bytes)
            if progress.is_timed and len(are_held) < 3:
                are_held.append(asyncio.Event())
                await are_held[-1].wait()
            return exchange

    class Progress(_Interrupts):
        is_timed = False

        @contextmanager
        def task(self, label: str, total: int, unit: Unit = "bytes") -> Iterator[Advance]:
            def advance(amount: int) -> None:
                on(amount)
                if self.done == 5:
                    for event in are_held:
                        asyncio.get_running_loop().call_soon(event.set)

            self.is_timed = label == "requests"
            with super().task(label, total, unit) as on:
                yield advance

    progress = Progress()
    measuring = importlib.import_module("deploytk.smoke.measure")  # the package has a function of that name
    monkeypatch.setattr(measuring, "Connection", Held)
    with serving(Behaviour()) as server:
        smoke(server.url, ServeOptions(), dataclasses.replace(FEW, rate=20.0), Budget(), progress)

    assert len(are_held) == 3
    assert made
    assert all(connection._wire is None or connection._wire.is_closed for connection in made)


def test_times_are_what_really_happened() -> None:
    """Compared where a busy machine matters least: in the promptest request, and over gaps that are long."""
    behaviour = Behaviour(answer=lambda _: "0123456789", first_after_s=0.03, gap_s=0.03)

    report = _smoke(behaviour)

    measured = behaviour.sent_ns[1:]  # the first request is the warm-up
    true_tpot = sorted((times[-1] - times[0]) / 1e6 / 9 for times in measured)
    assert report.latency.ttft_ms.min == pytest.approx(30, abs=15)
    assert report.latency.tpot_ms.p50 == pytest.approx(percentile(true_tpot, 50), abs=2.5)  # of ten events, not nine: 3
    assert report.latency.chunk_gap_ms.n == 12 * 9


def test_an_empty_role_event_is_not_the_first_token() -> None:
    report = _smoke(Behaviour(first_after_s=0.05, has_role_event=True))

    assert report.latency.ttft_ms.min is not None
    assert report.latency.ttft_ms.min > 40


def test_tokens_are_what_the_server_counts() -> None:
    report = _smoke(Behaviour(answer=lambda _: "x y " * 4, tokens_per_event=4))

    # 12 requests x 16 characters, each a token, four to an event
    assert (report.tokens.output, report.tokens.events) == (12 * 16, 12 * 4)


@pytest.mark.parametrize("is_chunked", [True, False])
def test_both_ways_to_end_an_answer_are_read(is_chunked: bool) -> None:
    assert _smoke(Behaviour(is_chunked=is_chunked)).verdict.status == "pass"


def test_without_usage_there_are_no_token_figures() -> None:
    report = _smoke(Behaviour(has_usage=False), Budget(min_tokens_per_s=1))

    assert report.tokens.output is None
    assert report.latency.tpot_ms.p50 is None
    assert (report.verdict.status, report.verdict.exit_code) == ("inconclusive", 4)


def test_golden_answers_must_come_word_for_word() -> None:
    golden = (Golden("a", "You said: a"), Golden("b", "You said: c"))

    report = _smoke(Behaviour(), golden=golden)

    assert report.verdict.exit_code == 1
    assert "1 of 2 right" in report.verdict.reasons[0]


def test_raw_golden_prompts_go_to_completions() -> None:
    report = _smoke(Behaviour(), golden=(Golden("<raw>", "You said: <raw>", is_raw=True),))

    assert report.verdict.status == "pass"


# What LMDeploy 0.9.2.post1 answers from a workspace whose weights it never read, and its like.
GARBAGE = ["!" * 64, "的" * 64, "\ufffd" * 30 + "a" * 20, "the the " * 20, "ab" * 40, " 1 2 3" * 20]


@pytest.mark.parametrize("text", GARBAGE)
def test_garbage_fails(text: str) -> None:
    report = _smoke(Behaviour(answer=lambda _: text))

    assert (report.verdict.status, report.verdict.exit_code) == ("fail", 1)
    assert any("no language" in reason for reason in report.verdict.reasons)


def test_real_answers_are_language() -> None:
    dialogs = json.loads((Path(__file__).parent / "models" / "dialogs.json").read_text())

    assert [degenerate(dialog["answer"]) for dialog in dialogs] == [""] * 8


def test_empty_answers_fail() -> None:
    report = _smoke(Behaviour(answer=lambda _: ""))

    assert report.verdict.exit_code == 1


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (Behaviour(stops_after=3), "broke off"),
        (Behaviour(fails_every=5), "out of memory"),
    ],
)
def test_failed_requests_fail_the_test_and_are_counted(behaviour: Behaviour, reason: str) -> None:
    report = _smoke(behaviour)

    assert report.verdict.exit_code == 1
    assert report.counts.failed > 0
    assert any(reason in text for text in report.verdict.reasons)


@pytest.mark.parametrize(
    ("budget", "exit_code"),
    [
        (Budget(max_ttft_ms=1000), 0),
        (Budget(max_ttft_ms=5), 3),
        (Budget(max_tpot_ms=0.5), 3),
        (Budget(min_tokens_per_s=1e6), 3),
        (Budget(max_vram_mib=1), 4),  # there is no GPU here
    ],
)
def test_budgets_are_judged(budget: Budget, exit_code: int) -> None:
    behaviour = Behaviour(answer=lambda _: "0123456789", first_after_s=0.02, gap_s=0.002)

    assert _smoke(behaviour, budget).verdict.exit_code == exit_code


def test_too_few_samples_are_not_judged() -> None:
    with serving(Behaviour(first_after_s=0.02)) as server:
        few = dataclasses.replace(FEW, requests=5)
        report = smoke(server.url, ServeOptions(), few, Budget(max_ttft_ms=1000), Silent())

    assert report.verdict.exit_code == 4
    assert "5 samples, 11 needed" in report.verdict.reasons[0]


def test_wrong_answers_weigh_more_than_budgets() -> None:
    report = _smoke(Behaviour(answer=lambda _: "!" * 64, first_after_s=0.02), Budget(max_ttft_ms=1))

    assert report.verdict.exit_code == 1


@pytest.mark.parametrize("models", [{"data": []}, [], {"error": "no"}])
def test_a_url_that_is_no_model_server_is_refused(models: object) -> None:
    with serving(Behaviour(models=models)) as server, pytest.raises(EndpointError, match="no list of models"):
        smoke(server.url, ServeOptions(), FEW, Budget(), Silent())


def test_what_the_server_itself_counts_is_of_the_measured_requests_alone() -> None:
    behaviour = Behaviour(answer=lambda _: "ten letter", counts=[1000, 2000])

    report = _smoke(behaviour)

    counted = report.tokens.server_counter_delta
    assert counted is not None
    assert (counted.generation, counted.prompt) == (12 * 10, report.tokens.input)
    # Before: the request that asks for a first token, which gets one, and the warm-up.
    assert behaviour.counts is not None
    assert behaviour.counts[1] == 2000 + 1 + 10 + 12 * 10


@pytest.mark.parametrize("trouble", ["out of memory", "weights are missing"])
def test_a_server_that_lists_a_model_and_completes_nothing_is_refused_in_its_own_words(trouble: str) -> None:
    with pytest.raises(EndpointError, match=f"completes nothing: {trouble}"):
        _smoke(Behaviour(fails_every=1, trouble=trouble))


def test_connections_are_open_before_they_are_needed_and_the_time_that_takes_is_kept_apart() -> None:
    kept, closed = _smoke(Behaviour(is_chunked=True)), _smoke(Behaviour(is_chunked=False))

    # One that stays open is opened before anything is timed; one that is closed after every answer is opened for the
    # next: eleven times while twelve requests are measured, in far more than 10 us and far less than the whole run.
    assert kept.latency.connect_ms.n == 0
    assert closed.latency.connect_ms.n == 11
    assert closed.latency.connect_ms.min is not None
    assert closed.latency.connect_ms.max is not None
    assert closed.latency.connect_ms.min > 0.01
    assert closed.latency.connect_ms.max < closed.latency.window_s * 1000


def test_a_server_that_loads_is_waited_for() -> None:
    with serving(Behaviour(ready_after=2)) as server:
        report = smoke(server.url, ServeOptions(attach_within_s=20), FEW, Budget(), Silent())

    assert (report.verdict.status, report.counts.failed) == ("pass", 0)


def test_nobody_at_the_address_is_an_error() -> None:
    with pytest.raises(EndpointError):
        smoke("http://127.0.0.1:9", ServeOptions(), FEW, Budget(), Silent())


@pytest.mark.parametrize(
    "values", [{"max_ttft": 1}, {"max_ttft_ms": -1}, {"max_ttft_ms": "fast"}, {"max_ttft_ms": float("nan")}]
)
def test_impossible_budgets_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        make_budget(values, "here")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("b.toml", "max_ttft_ms = 500\n"),
        ("b.toml", "[budget]\nmax_ttft_ms = 500\n"),
        ("b.json", '{"max_ttft_ms": 500}'),
    ],
)
def test_budgets_come_from_files(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)

    assert read_budget(tmp_path / name) == Budget(max_ttft_ms=500)


def test_an_unreadable_budget_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text("][")

    with pytest.raises(UsageError, match=r"b\.toml cannot be read"):
        read_budget(tmp_path / "b.toml")


def test_reports_are_written_as_json_and_markdown(tmp_path: Path) -> None:
    report = _smoke(Behaviour(first_after_s=0.02), Budget(max_ttft_ms=1000))

    write_report(report, tmp_path / "r.json")
    write_report(report, tmp_path / "r.md")

    loaded = json.loads((tmp_path / "r.json").read_text())
    assert (loaded["schema"], loaded["verdict"]["status"]) == ("deploytk.report/1", "pass")
    assert "| latency.ttft_ms.p50 | <= 1000 |" in markdown(report)
    with pytest.raises(UsageError):
        write_report(report, tmp_path / "r.docx")


def test_percentiles_are_interpolated_and_say_when_they_are_uncertain() -> None:
    summary = summarize([1, 2, 3, 4])

    # type 7: 3 x 0.5 = 1.5 -> between 2 and 3; 3 x 0.9 = 2.7 -> 3 + 0.7
    assert (summary.p50, summary.p90) == (2.5, pytest.approx(3.7))
    assert summary.uncertified == ("p50", "p90", "p95", "p99")
    assert summarize([]).p50 is None


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.lists(st.integers(1, 30), max_size=40))
def test_chunks_are_put_together_wherever_they_are_cut(contents: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(f"{len(c):x}\r\n".encode() + c + b"\r\n" for c in contents) + b"0\r\n\r\n"
    chunks, found, at = Chunks(), b"", 0

    for size in [*cuts, len(wire)]:
        found += chunks.feed(wire[at : at + size])
        at += size

    assert found == b"".join(contents)
    assert chunks.is_done


@given(st.lists(st.text(max_size=20), max_size=6), st.lists(st.integers(1, 20), max_size=60))
def test_events_are_put_together_wherever_they_are_cut(texts: list[str], cuts: list[int]) -> None:
    wire = b"".join(b"data: " + json.dumps({"t": text}).encode() + b"\n\n" for text in texts) + b"data: [DONE]\n\n"
    events, found, at = Events(), [], 0

    for size in [*cuts, len(wire)]:
        found += events.feed(wire[at : at + size])
        at += size

    assert [event["t"] for event in found] == texts
    assert events.is_done
