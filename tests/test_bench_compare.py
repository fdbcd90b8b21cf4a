"""Whether a change is a change: simulated benches with a known truth, and real files."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from test_smoke_report import EVIDENCE, VRAM

from deploytk.base.errors import UsageError
from deploytk.bench import compare, write_comparison
from deploytk.bench.compare import judge_rounds
from deploytk.smoke import Budget, Evidence, read_raw, write_raw
from deploytk.smoke.selfcheck import ClientCheck

TRIALS, ROUNDS, REQUESTS = 200, 5, 60


def _simulated(random: np.random.Generator, effect: float) -> list[tuple[list[float], list[float]]]:
    """Interleaved rounds: a spread of 6 % and 5 % outliers of 1.5 times, and a drift of 2 % between starts."""

    def values(middle: float) -> list[float]:
        drawn = middle * random.lognormal(0, 0.06, REQUESTS) * random.normal(1, 0.02)
        drawn[random.random(REQUESTS) < 0.05] *= 1.5
        return [float(value) for value in drawn]

    return [(values(10.0), values(10.0 * effect)) for _ in range(ROUNDS)]


def test_at_most_one_false_alarm_in_a_hundred() -> None:
    random = np.random.default_rng(1)

    judgements = [judge_rounds(_simulated(random, 1.0))[0] for _ in range(TRIALS)]

    assert sum(judgement in ("slower", "faster") for judgement in judgements) <= TRIALS // 100


def test_a_true_fifteen_per_cent_is_found_in_ninety_five_of_a_hundred() -> None:
    random = np.random.default_rng(2)

    judgements = [judge_rounds(_simulated(random, 1.15))[0] for _ in range(TRIALS)]

    assert judgements.count("slower") >= 0.95 * TRIALS


def test_less_time_is_faster() -> None:
    assert judge_rounds(_simulated(np.random.default_rng(3), 0.8))[0] == "faster"


def test_too_few_rounds_or_values_judge_nothing() -> None:
    assert judge_rounds(_simulated(np.random.default_rng(4), 2.0)[:2])[0] == "inconclusive"
    assert judge_rounds([([], [1.0])] * 5) == ("inconclusive", None, None, None)


def _bench(out: Path, factor: float, used: int = 0, repetitions: int = 3) -> Path:
    (out / "cells").mkdir(parents=True)
    for repetition in range(repetitions):
        records = []
        for number, record in enumerate(EVIDENCE.records):
            slower = factor * (1 + 0.001 * ((number * 7 + repetition) % 5))
            events = tuple(int(record.sent_ns + (when - record.sent_ns) * slower) for when in record.event_ns)
            records.append(replace(record, event_ns=events))
        vram = replace(VRAM, ready_bytes=VRAM.ready_bytes + used)
        evidence = replace(EVIDENCE, records=tuple(records), vram=vram)
        write_raw(evidence, Budget(), out / "cells" / f"m.turbomind.kv-none.c1.i0.o128.r{repetition}.jsonl")
    return out


@pytest.mark.parametrize(
    ("factor", "used", "status", "exit_code"),
    [(1.0, 0, "same", 0), (1.3, 0, "slower", 3), (0.7, 0, "faster", 0), (1.0, 100 * 2**20, "slower", 3)],
)
def test_two_benches_are_judged(tmp_path: Path, factor: float, used: int, status: str, exit_code: int) -> None:
    found = compare(_bench(tmp_path / "a", 1.0), _bench(tmp_path / "b", factor, used))

    assert (found.status, found.exit_code) == (status, exit_code)
    assert {change.metric for change in found.changes} == {"ttft_ms", "tpot_ms"}


def _altered(out: Path, change: Callable[[Evidence], Evidence]) -> Path:
    for path in (out / "cells").iterdir():
        write_raw(change(read_raw(path)[0]), Budget(), path)
    return out


def test_more_failed_requests_are_slower_however_fast_the_others_were(tmp_path: Path) -> None:
    def fail_half(evidence: Evidence) -> Evidence:
        broken = tuple(replace(record, error="500") for record in evidence.records[::2])
        return replace(evidence, records=broken + evidence.records[1::2])

    found = compare(_bench(tmp_path / "a", 1.0), _altered(_bench(tmp_path / "b", 0.7), fail_half))

    # 3 repetitions of 12 requests, half of which failed
    assert found.failures == ("m.turbomind.kv-none.c1.i0.o128: 18 of 36 requests failed in B, 0 of 36 in A",)
    assert (found.status, found.exit_code) == ("slower", 3)


def test_rounds_in_which_the_client_was_not_to_be_relied_on_judge_nothing(tmp_path: Path) -> None:
    def doubt(evidence: Evidence) -> Evidence:
        return replace(evidence, client=ClientCheck(100_000, 50.0, 50.0))

    found = compare(_bench(tmp_path / "a", 1.0), _altered(_bench(tmp_path / "b", 1.3), doubt))

    assert (found.status, found.exit_code) == ("inconclusive", 4)
    assert len(found.doubts) == 3


def test_what_b_no_longer_has_is_inconclusive_and_what_it_has_more_is_not(tmp_path: Path) -> None:
    more, less = _bench(tmp_path / "more", 1.0), _bench(tmp_path / "less", 1.0)
    for path in list((more / "cells").iterdir()):
        shutil.copy(path, path.with_name(path.name.replace("kv-none", "kv-int8")))

    assert compare(more, less).exit_code == 4
    assert compare(less, more).exit_code == 0


def test_repetitions_are_paired_by_number(tmp_path: Path) -> None:
    a, b = _bench(tmp_path / "a", 1.0, repetitions=4), _bench(tmp_path / "b", 1.0, repetitions=4)
    next((a / "cells").glob("*.r0.jsonl")).unlink()
    next((b / "cells").glob("*.r3.jsonl")).unlink()

    assert {change.rounds for change in compare(a, b).changes} == {2}  # numbers 1 and 2


def test_one_repetition_is_inconclusive(tmp_path: Path) -> None:
    found = compare(_bench(tmp_path / "a", 1.0, repetitions=1), _bench(tmp_path / "b", 2.0, repetitions=1))

    assert (found.status, found.exit_code) == ("inconclusive", 4)


def test_benches_without_a_common_cell_are_refused(tmp_path: Path) -> None:
    a, b = _bench(tmp_path / "a", 1.0), _bench(tmp_path / "b", 1.0)
    for path in (b / "cells").iterdir():
        path.rename(path.with_name(path.name.replace("m.", "other.")))

    with pytest.raises(UsageError, match="no cell in common"):
        compare(a, b)


def test_a_directory_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no results"):
        compare(tmp_path, tmp_path)


def test_a_comparison_is_a_page_too(tmp_path: Path) -> None:
    a, b = _bench(tmp_path / "a", 1.0), _bench(tmp_path / "b<", 1.3, 100 * 2**20)
    out = tmp_path / "new" / "page.html"

    write_comparison(compare(a, b), a, b, out)

    text = out.read_text()
    assert "<span class=fail>slower</span>" in text
    assert f"A is {a}, the baseline" in text
    assert "b&lt;" in text  # names are text
    # Every time of B is 1.3 of A's, and 100 MiB more are used.
    plain = text.replace("<td class=figure>", "<td>").replace("<td class=key>", "<td>")
    assert "<td>time per output token<td>3<td>1.300<td>" in plain
    assert "<td>+100<td>more" in plain
    [first, second] = [ElementTree.fromstring(one) for one in re.findall(r"<svg.*?</svg>", text)]
    for picture in (first, second):
        marks = {one.text: float(one.get("x", 0)) for one in picture.iter("text")}
        one, more = marks["1.00"], marks["1.10"]
        [dot] = picture.iter("circle")
        # On a logarithmic axis 1.3 lies log 1.3 / log 1.1 = 2.753 times as far from 1 as 1.1.
        assert float(dot.get("cx", 0)) == pytest.approx(one + (more - one) * 2.753, rel=0.01)
    assert "http" not in text.replace("http://www.w3.org", "")
