"""Every figure of reports of many kinds, as it was reviewed: make golden.

Why each is right is held by the tests of smoke; that none changes unseen, by these.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from artifacts import internlm_7b
from conftest import Reviewed
from test_quantize_report import BY
from test_smoke_report import EVIDENCE, GPU, IDENTITY, MS, RECORDS, record

from deploytk.base.json import plain
from deploytk.hardware.catalogue import MIB, find_gpu
from deploytk.hardware.nvml import GpuProcess, Track
from deploytk.plan import DecodeBound, PlanRequest, plan_serving
from deploytk.smoke import Budget, Evidence, Workload, charts, judge, write_report
from deploytk.smoke.correctness import Answer, check_answers, check_counts, check_repeats
from deploytk.smoke.counters import Counters
from deploytk.smoke.doubts import Doubt
from deploytk.smoke.engine_log import EngineLog, read_engine_log
from deploytk.smoke.memory import Watched, check_vram, report_gpus
from deploytk.smoke.prediction import Parts, PlannedVram, measured_overhead
from deploytk.smoke.received import Exchange, split
from deploytk.smoke.record import Outcome, Record, Request, to_record
from deploytk.smoke.report import BudgetCheck
from deploytk.smoke.selfcheck import ClientCheck
from deploytk.smoke.statistics import mean_interval, median_ratio, summarize

GOLDEN = Path(__file__).parent / "golden" / "smoke"
LOGS = Path(__file__).parent / "data" / "logs"
GIB = 2**30

PLANNED = PlannedVram(
    weights_bytes=4 * GIB, kv_pool_bytes=GIB, overhead_bytes=1500 * MIB, kv_bytes_per_token=512 * 1024,
    session_len=700, max_batch_size=3, is_quantized=True, fp16_weights_bytes=13 * GIB, before_pool_bytes=4700 * MIB,
    terms="context 400, unpacking 204, warm up 896", source="a test", extrapolated="another GPU was measured",
)  # fmt: skip
LOG = EngineLog("object_cache", "turbomind", False, 1100 * MIB, 138_634 * MIB, 2 * MIB, 700, (), ())


def _watched(*used_mib: int, after_mib: int | None, others: int = 0, is_ours: bool = True) -> Watched:
    """A GPU that was looked at every 97 ms."""
    processes = tuple(GpuProcess(number, GIB) for number in range(others))
    first = replace(GPU, used_bytes=used_mib[0] * MIB, processes=processes, reserved_bytes=600 * MIB)
    times = [97 * MS * number for number in range(len(used_mib))]
    track = Track(first, times, [mib * MIB for mib in used_mib], 20.0)
    after = None if after_mib is None else after_mib * MIB
    return Watched(replace(first, used_bytes=used_mib[-1] * MIB), track, is_ours, after)


ONE = _watched(500, 2100, 7200, 6900, 6901, 6950, 6980, 7012, 7031, 7040, 7050, 7060, 7070, after_mib=530)
OTHER = _watched(300, 1900, 7000, 6800, 6800, 6800, 6800, 6800, 6801, 6801, 6802, 6803, 6804, after_mib=300)
LEAKING = _watched(500, *range(6000, 9000, 250), after_mib=700, others=2)
LONG = _watched(500, *(6000 + (number * 7919) % 613 for number in range(1000)), after_mib=None, is_ours=False)


def _many(count: int, seed: int, concurrency: int = 1) -> tuple[Record, ...]:
    """Answers of a server whose times vary, of several streams side by side."""
    draw, found = random.Random(seed), []
    free = [0.0] * concurrency
    for number in range(count):
        stream = number % concurrency
        due, sent = free[stream], free[stream] + draw.expovariate(1)
        times = [sent + draw.uniform(15, 40)]
        for _ in range(draw.randint(1, 30)):
            times.append(times[-1] + draw.uniform(4, 14))
        one = record(int(sent), [int(at) + 1 for at in times], len(times) + draw.randint(0, 1))
        free[stream] = times[-1] + 2
        one = replace(
            one, scheduled_ns=int(due) * MS, connect_ms=draw.uniform(0.1, 0.9), cached_tokens=draw.randint(0, 9)
        )
        found.append(replace(one, output_ns=one.event_ns[min(1, len(one.event_ns) - 1)], first_tokens=1 + number % 2))
    return tuple(found)


def _broken(records: Iterable[Record]) -> tuple[Record, ...]:
    """Every seventh one failed."""
    return tuple(
        replace(one, error="HTTP status 503", status=503, text="", event_ns=(), output_ns=None, output_tokens=None)
        if number % 7 == 3 else one
        for number, one in enumerate(records)
    )  # fmt: skip


def _seen(
    watched: Iterable[Watched],
    records: tuple[Record, ...],
    planned: PlannedVram | None = PLANNED,
    log: EngineLog = LOG,
) -> Evidence:
    vram = report_gpus(tuple(watched), log, planned, records)
    findings = (*check_vram(vram, planned), *check_counts(records, Counters(600, 1 + 5 * len(records))))
    identity = replace(IDENTITY, gpu=replace(GPU, slowed_by=("power cap",)))
    return replace(EVIDENCE, vram=vram, records=records, findings=findings, identity=identity)


BUDGET = Budget(max_vram_mib=6500, max_ttft_ms=30, max_tpot_ms=9, min_tokens_per_s=40)
KINDS: dict[str, Callable[[], tuple[Evidence, Budget]]] = {
    "two-gpus": lambda: (_seen((ONE, OTHER), RECORDS), Budget(vram_tolerance_pct=1)),
    "leaking": lambda: (_seen((LEAKING,), RECORDS, log=replace(LOG, session_len=650, pool_bytes=900 * MIB)), BUDGET),
    "not-ours": lambda: (_seen((LONG,), RECORDS, None), BUDGET),
    "open-loop": lambda: (
        replace(_seen((ONE,), _many(200, 1)), workload=Workload(requests=200, rate=2.5), lag_p99_ms=4.0,
                client=ClientCheck(700.0, 6.0, 4.5), client_cpu_share=0.93, has_ended_early=True),
        BUDGET,
    ),
    "closed-loop": lambda: (
        replace(EVIDENCE, records=_many(700, 2, 8), workload=Workload(requests=700, concurrency=8)),
        replace(BUDGET, baseline_key="sha256:0"),
    ),
    "broken": lambda: (replace(EVIDENCE, records=_broken(_many(90, 3, 4)), workload=Workload(concurrency=4)), BUDGET),
    "bound": lambda: (
        replace(EVIDENCE, records=_many(40, 4), bound=DecodeBound(400.0, 300.0, 5 * GIB, 40_000, 4800)),
        Budget(max_tpot_ms=12, max_vram_mib=1000),
    ),
    "quantized": lambda: (replace(EVIDENCE, identity=replace(IDENTITY, quantized_by=BY)), Budget()),
    "few": lambda: (replace(EVIDENCE, records=RECORDS[:5]), BUDGET),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("ending", ["json", "md", "html"])
def test_a_report_is_as_reviewed(tmp_path: Path, kind: str, ending: str, reviewed: Reviewed) -> None:
    evidence, budget = KINDS[kind]()
    report = replace(judge(evidence, budget), created="2026-11-27T00:00:00+00:00")
    if ending == "json":
        made = json.dumps({**_rounded(plain(report)), "bound_share": _rounded(report.bound_share)}, indent=1)
    else:
        before = replace(report, throughput=replace(report.throughput, output_tps=40.0)) if ending == "html" else None
        write_report(report, tmp_path / f"report.{ending}", before)
        made = (tmp_path / f"report.{ending}").read_text(encoding="utf-8")
        made = re.sub(r"<style>.*</style>", "", made, flags=re.DOTALL)  # golden/pages has it

    reviewed(made + "\n", GOLDEN / f"{kind}.{ending}")


def test_logs_of_engines_say_what_was_reviewed(reviewed: Reviewed) -> None:
    found = {path.name: asdict(read_engine_log(path)) for path in sorted(LOGS.glob("*.txt"))}

    reviewed(json.dumps(found, indent=1) + "\n", GOLDEN / "engine-logs.json")


def test_statistics_are_as_reviewed(reviewed: Reviewed) -> None:
    draw = random.Random(5)
    found: dict[str, Any] = {}
    for count in (0, 1, 2, 5, 6, 7, 10, 11, 12, 63, 64, 129, 130, 460, 661, 662, 1000):
        values = [draw.lognormvariate(3, 0.4) for _ in range(count)]
        found[str(count)] = {**asdict(summarize(values)), "mean_interval": mean_interval(values[:8])}
    rounds = [([draw.gauss(100, 9) for _ in range(30)], [draw.gauss(104, 9) for _ in range(30)]) for _ in range(4)]
    found["ratio"] = asdict(median_ratio(rounds))

    reviewed(json.dumps(_rounded(found), indent=1) + "\n", GOLDEN / "statistics.json")


ANSWERS = (
    ("right", "Paris is the capital of France, and it is known for the tower that stands by the river."),
    ("empty", " \n"),
    ("short", "yes"),
    ("repeated", "ab" * 40),
    ("half repeated", "This begins as an answer and then it goes wrong: " + "na " * 60),
    ("one word", "well " * 30),
    ("words again", " ".join(["word", "word", "word", "word", "other"] * 8)),
    ("broken", "an answer \ufffd\ufffd\ufffd\ufffd with broken letters"),
    ("slightly broken", "an answer \ufffd with one broken letter, which may be in any text that was cut somewhere"),
    ("mixed", "the кот ist ein зверь и the 狗 är αβγδ und δεζη the кот ist δ"),
    ("two scripts", "абв abc " * 12),
    ("Japanese", "これは日本語の文です。カタカナとひらがなと漢字がある。東京は日本の首都です。"),
    ("Chinese", "我是一个语言模型，可以回答问题，也可以写文章。" * 3),
    ("no common word", " ".join(f"zq{chr(97 + n % 26)}x{chr(97 + n // 26)}v" for n in range(120))),
)


def test_answers_are_judged_as_reviewed(reviewed: Reviewed) -> None:
    found = {
        name: [f"{one.check}: {one.status}: {one.detail}" for one in check_answers([Answer("question", text)])]
        for name, text in ANSWERS
    }
    counts = {
        "right": RECORDS,
        "too few": tuple(replace(one, output_tokens=4) for one in RECORDS),
        "more than asked": tuple(replace(one, output_tokens=8) for one in RECORDS),
        "two more than asked": tuple(replace(one, output_tokens=7) for one in RECORDS),
        "less than exact": tuple(replace(one, asked_tokens=6, is_exact=True) for one in RECORDS),
        "all in the first": tuple(replace(one, first_tokens=2) for one in RECORDS),
        "none": tuple(replace(one, output_tokens=None) for one in RECORDS),
    }
    counters = (None, Counters(0, 60), Counters(0, 35), Counters(0, 36), Counters(0, 84), Counters(0, 85))
    for name, records in counts.items():
        judged = [check_counts(records, counted)[0] for counted in counters]
        found[f"counts, {name}"] = [f"{one.check}: {one.status}: {one.detail}" for one in judged]
    found["repeats"] = [str(check_repeats(texts)) for texts in (["a"], ["a", "a"], ["a", "b"], ["a", "a", "b"])]

    reviewed(json.dumps(found, indent=1, ensure_ascii=False) + "\n", GOLDEN / "answers.json")


PICTURES = {
    "stacked": lambda: charts.stacked(
        "VRAM", [charts.Bar("measured", (("weights", 3000), ("KV pool", 1000), ("a part with a long name", 7))),
                 charts.Bar("planned", tuple((f"part {n}", 100 * n) for n in range(10)))], "MiB",
    ),
    "spread-crowded": lambda: charts.spread("TTFT", "ms", {"min": 24.5, "median": 25.5, "p90": 26.0, "p99": 1250.0}),
    "intervals-three": lambda: charts.intervals(
        "ratios", [charts.Interval("a", 0.9, 0.98, 1.02), charts.Interval("b", 1.1, 1.25, 1.4),
                   charts.Interval("c", 0.3, 0.4, 0.41)], 1.1,
    ),
    "lines-one": lambda: charts.lines("tokens/s", "streams", {"fp16": [(3, 196)]}),
    "lines-crowded": lambda: charts.lines(
        "tokens/s", "streams", {f"setting {n}": [(1, 100 + n), (16, 900 + 3 * n)] for n in range(10)}
    ),
}  # fmt: skip


def test_more_pictures_are_as_reviewed(reviewed: Reviewed) -> None:
    made = "".join(f"{name}: {draw()}\n" for name, draw in PICTURES.items())

    reviewed(made.replace("><", ">\n<"), GOLDEN / "pictures.txt")


def _rounded(value: Any) -> Any:
    """The last digits of a sum are not the same in every Python."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, (list, tuple)) else value


def test_what_is_said_to_be_off_is_said_of_the_gpu_that_is() -> None:
    """The second is used less, and further from its plan: 6504 MiB of 6620, where the first uses 6570."""
    evidence, budget = KINDS["two-gpus"]()

    found = next(one for one in judge(evidence, budget).correctness if one.check == "VRAM as planned")

    assert found.detail.startswith("6,620 MiB planned, 6,504 used on GPU 1 (+1.8 %, 1 % allowed)")


def _answer(status: str, headers: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}\r\n".encode() + body


def _chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + end


def _event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def _counted(**usage: int) -> bytes:
    return json.dumps({"choices": [{"text": "x"}], "usage": usage}).encode()


STREAM = "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
PLAIN = "Content-Type: application/json\r\n"
TEXT = [_event(choices=[{"delta": {"content": word}}]) for word in ("one ", "two ", "three")]
COUNTS = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}
USAGE = _event(choices=[], usage=COUNTS)
DONE = b"data: [DONE]\n\n"
CHOICE = {"message": {"content": "all"}, "finish_reason": "stop"}
WHOLE_ANSWER = json.dumps({"choices": [CHOICE], "usage": {"completion_tokens": 2}})
RAW = {
    "stream": _answer("200 OK", STREAM, _chunked(*TEXT, USAGE, DONE)),
    "stream without done": _answer("200 OK", STREAM, _chunked(*TEXT)),
    "stream that broke off": _answer("200 OK", STREAM, _chunked(*TEXT, end=b"")),
    "stream with trailers": _answer("200 OK", STREAM, _chunked(*TEXT, DONE, end=b"0;x=1\r\nA: b\r\n\r\n")),
    "stream without chunks": _answer("200 OK", "Content-Type: text/event-stream\r\n", b"".join([*TEXT, DONE])),
    "stream of reasoning": _answer("200 OK", STREAM, _chunked(
        _event(choices=[{"delta": {"role": "assistant"}}]), _event(choices=[{"delta": {"reasoning_content": "hm"}}]),
        *TEXT, DONE)),
    "stream with counts": _answer("200 OK", STREAM, _chunked(
        *(_event(choices=[{"text": "ab"}], usage={"completion_tokens": 2 + number}) for number in range(3)),
        DONE)),
    "stream with counts at its end": _answer("200 OK", STREAM, _chunked(
        _event(choices=[{"text": "ab", "finish_reason": "length"}], usage={"completion_tokens": 4}), DONE)),
    "stream of an error": _answer("200 OK", STREAM, _chunked(TEXT[0], _event(error={"message": "out of memory"}))),
    "stream of no text": _answer("200 OK", STREAM, _chunked(_event(choices=[{"delta": {}}]), DONE)),
    "stream of no JSON": _answer("200 OK", STREAM, _chunked(b"data: {\n\n", DONE)),
    "stream of half a letter": _answer("200 OK", STREAM, _chunked(_event(choices=[{"text": "\ud83d"}]), DONE)),
    "chunk of no size": _answer("200 OK", STREAM, b"zz\r\n"),
    "chunk without end": _answer("200 OK", STREAM, b"1" * 5000),
    "whole": _answer("200 OK", f"{PLAIN}Content-Length: {len(WHOLE_ANSWER)}\r\n", WHOLE_ANSWER.encode()),
    "too short by one": _answer("200 OK", f"{PLAIN}Content-Length: {len(WHOLE_ANSWER) + 1}\r\n", WHOLE_ANSWER.encode()),
    "without a length": _answer("200 OK", PLAIN, WHOLE_ANSWER.encode()),
    "no content": _answer("204 No Content", "", b""),
    "key wanted": _answer("401 Unauthorized", "Content-Length: 0\r\n", b""),
    "key wanted, in words": _answer("401 Unauthorized", f"{PLAIN}", b'{"error": "no key"}'),
    "forbidden": _answer("403 Forbidden", "Content-Length: 0\r\n", b""),
    "bad, without words": _answer("400 Bad Request", "Content-Length: 0\r\n", b""),
    "bad, in words": _answer("400 Bad Request", PLAIN, b'{"object": "error", "message": "too long"}'),
    "bad, in no words": _answer("400 Bad Request", PLAIN, b'{"error": {}}'),
    "an error of another kind": _answer("200 OK", PLAIN, b'{"object": "error"}'),
    "elsewhere": _answer("302 Found", "Location: /x\r\nContent-Length: 0\r\n", b""),
    "status 399": _answer("399 Odd", "Content-Length: 0\r\n", b""),
    "a list": _answer("200 OK", PLAIN, b"[]"),
    "packed": _answer("200 OK", "Content-Encoding: gzip\r\n", b"\x1f\x8b"),
    "of HTTP 1.0": b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + WHOLE_ANSWER.encode(),
    "no HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "a strange status": b"HTTP/1.1 2000 OK\r\n\r\n",
    "nothing": b"",
    "most tokens": _answer("200 OK", PLAIN, _counted(completion_tokens=2147483648)),
    "more tokens": _answer("200 OK", PLAIN, _counted(completion_tokens=2147483649)),
    "fewer than none": _answer("200 OK", PLAIN, _counted(prompt_tokens=-1)),
}  # fmt: skip


def test_answers_are_taken_apart_as_reviewed_wherever_reads_cut_them(reviewed: Reviewed) -> None:
    """In one read, and a byte at a time; a read each millisecond."""
    asked, found = Request("question", 5, is_exact=False), {}
    for name, raw in RAW.items():
        for size in (len(raw) or 1, 1):
            reads = tuple((MS * (1 + at), raw[at : at + size]) for at in range(0, len(raw), size))
            for is_closed in (True, False):
                outcome = Outcome(asked, 0, Exchange(0, reads, is_closed), "", 9 * MS, 0.1)
                try:
                    told: Any = plain(to_record(outcome)) if reads else None
                    told = told or plain(split(reads, is_closed=is_closed))
                except ConnectionError as error:
                    told = f"ConnectionError: {error}"
                found[f"{name}, {'one read' if size > 1 else 'bytes'}, {'closed' if is_closed else 'open'}"] = told
    lines = (f"{name}: {json.dumps(_rounded(told))}" for name, told in found.items())

    reviewed("\n".join(lines) + "\n", GOLDEN / "answers-taken-apart.txt")


@pytest.mark.parametrize(
    ("value", "shorter_ms", "longer_ms", "could"),
    [
        # 100 tokens/s over 2 s are 200 tokens: over 1.9 s 105.3, over 2.1 s 95.2
        (100.0, 100.0, 100.0, True),
        (100.0, 100.0, 0.0, False),  # quicker than it seems: still above 96
        (100.0, 0.0, 100.0, True),
        (100.0, 0.0, 80.0, False),  # 96.15
        (92.0, 100.0, 0.0, True),  # 96.8
        (92.0, 80.0, 0.0, False),  # 95.8
        (92.0, 5000.0, 0.0, True),  # more than all of the time
    ],
)
def test_a_doubt_turns_a_rate_as_far_as_the_time_may_be_off(
    value: float, shorter_ms: float, longer_ms: float, could: bool
) -> None:
    doubt = Doubt("late", shorter_ms, longer_ms)
    check = BudgetCheck("throughput.output_tps", ">=", 96.0, value, "pass")

    assert doubt.could_turn(check, 2.0) == could


def test_what_is_kept_of_a_server_is_its_use_without_its_pool_to_the_byte() -> None:
    artifact = internlm_7b()
    plan = plan_serving(artifact, PlanRequest(gpu="A10"))
    parts = Parts(used_bytes=17_000_000_001, kv_pool_bytes=1_234_567_890, before_pool_bytes=15_000_000_000)

    found = measured_overhead(artifact, plan, find_gpu("A10"), "0.18.0", parts)

    assert found is not None
    assert (found.before_pool_bytes, found.beside_pool_bytes) == (15_000_000_000, 15_765_432_111)
