"""What people read of a measurement: every row of a report, and pictures that are drawn to scale."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_smoke_report import EVIDENCE, GPU, IDENTITY, VRAM, record

from deploytk.hardware.catalogue import MIB
from deploytk.smoke import Budget, Evidence, Workload, charts, judge, write_report
from deploytk.smoke.memory import Components, Predicted, Sampling
from deploytk.smoke.render import rows

# Twelve requests, 20, 21, ... 31 ms to the first token, then 10 ms per token, 5 tokens of two characters each.
RECORDS = tuple(record(100 * n, [100 * n + 20 + n + 10 * token for token in range(5)]) for n in range(12))
# Weights 3000, pool 1000, other 1000 MiB measured; 2000, 1500 and 500 planned: 4000 of 5000 is 20 % too little.
MEASURED = replace(VRAM, predicted=Predicted(2000 * MIB, 1500 * MIB, 500 * MIB, 4000 * MIB, -20.0))
WHOLE = replace(EVIDENCE, records=RECORDS, vram=MEASURED, identity=replace(IDENTITY, gpu=GPU))


def test_every_figure_has_its_row() -> None:
    assert rows(judge(WHOLE, Budget())) == [
        ("model", "m"),
        ("engine", "turbomind (LMDeploy 0.18.0)"),
        ("weights, KV cache", "fp16, none"),
        ("GPU", "NVIDIA H200, driver 580"),
        ("requests", "12 of 12 answered, one at a time"),
        ("time to first token", "median 25.5 ms, 20.0 to 31.0"),
        ("time per output token", "median 10.0 ms, 10.0 to 10.0"),
        # 60 tokens and 120 characters from 0 to 1100 + 31 + 40 + 1 = 1172 ms
        ("output", "51.2 tokens/s, 102.4 characters/s"),
        ("ready after", "4.0 s"),
        ("VRAM", "5,000 MiB ready, 5,500 MiB at the peak"),  # 5500 and 6000, 500 of them there before
        ("VRAM split", "3,000 weights + 1,000 KV pool + 1,000 MiB other (engine_log)"),
        ("VRAM planned", "4,000 MiB (-20.0 %)"),
        ("golden answers", "pass: 8 of 8 right"),
    ]


def test_what_is_not_known_has_no_row_and_no_figure() -> None:
    identity = replace(IDENTITY, engine=None, lmdeploy=None, weights=None)
    unknown = replace(EVIDENCE, records=(), findings=(), load_s=None, identity=identity)

    assert dict(rows(judge(unknown, Budget()))) == {
        "model": "m",
        "engine": "does not say",
        "requests": "0 of 0 answered, one at a time",
        "time to first token": "median - ms, - to -",
        "time per output token": "median - ms, - to -",
        "output": "- tokens/s, - characters/s",
        "VRAM": "not measured: no GPU, or not of this machine",
    }


@pytest.mark.parametrize("missing", ["weights_bytes", "kv_pool_bytes", "overhead_bytes"])
def test_memory_that_cannot_be_told_apart_is_not_split(missing: str) -> None:
    parts = replace(VRAM.components, **{missing: None})

    found = dict(rows(judge(replace(WHOLE, vram=replace(VRAM, components=parts)), Budget())))

    assert "VRAM" in found
    assert "VRAM split" not in found
    assert "VRAM planned" not in found


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        (Workload(requests=12, concurrency=4), "12 of 12 answered, 4 at a time"),
        (Workload(requests=12, rate=2.5), "12 of 12 answered, 2.5 per second"),
    ],
)
def test_the_load_is_said_in_words(workload: Workload, said: str) -> None:
    assert dict(rows(judge(replace(WHOLE, workload=workload), Budget())))["requests"] == said


def test_markdown_has_the_verdict_the_rows_and_the_budget(tmp_path: Path) -> None:
    text = _written(replace(WHOLE, client_cpu_share=0.95), Budget(max_ttft_ms=30, max_vram_mib=5000), tmp_path / "r.md")

    assert text.splitlines()[:7] == [
        "## Smoke test: fail",
        "",
        "- vram.peak\\_mib is 5500.0, <= 5000 asked for".replace("<", "\\<"),
        "- the client itself was busy 95% of the time",
        "",
        "| | |",
        "|---|---|",
    ]
    assert "| time to first token | median 25.5 ms, 20.0 to 31.0 |" in text
    assert text.splitlines()[-4:] == [
        "| Budget | Limit | Measured | |",
        "|---|---|---|---|",
        "| vram.peak_mib | <= 5000 | 5,500.0 | fail |",
        "| latency.ttft_ms.p50 | <= 30 | 25.5 | pass |",
    ]


def test_markdown_of_a_measurement_that_passed_says_no_more_than_its_rows(tmp_path: Path) -> None:
    text = _written(WHOLE, Budget(), tmp_path / "r.md")

    assert text.startswith("## Smoke test: pass\n\n| | |\n|---|---|\n")
    assert "Budget" not in text


def test_html_has_the_verdict_the_rows_the_budget_and_what_is_uncertain(tmp_path: Path) -> None:
    text = _written(WHOLE, Budget(max_ttft_ms=30), tmp_path / "r.html")

    assert "<span class=pass>pass</span>" in text
    assert "<ul>" not in text
    assert "<tr><td>VRAM planned<td>4,000 MiB (-20.0 %)" in text
    assert "<tr><td>latency.ttft_ms.p50<td>&lt;= 30<td>25.5<td>pass" in text
    # 12 samples are enough for a median (11) and for nothing above it (64 for the 90th percentile).
    # The 90th of 20 ... 31 lies at 0.9 x 11 = 9.9: 29.9; the 95th at 30.45; the 99th at 30.89.
    plain = text.replace("<td class=figure>", "<td>").replace("<td class=key>", "<td>")
    assert "<td>time to first token<td>12<td>20.0<td>25.5<td>29.9 ?<td>30.4 ?<td>30.9 ?<td>31.0" in plain


def test_everything_else_is_told_by_its_named_terms(tmp_path: Path) -> None:
    # 3000 MiB of weights and 3700 before the pool: 700 of the other 1000 were there, 300 came later. Planned: 2400
    # before it, 400 of them no weights, and 500 in all.
    named = replace(MEASURED.predicted, before_pool_bytes=2400 * MIB, terms="context 250, unpacking 150, warm up 100")
    evidence = replace(WHOLE, vram=replace(MEASURED, predicted=named, used_before_pool_bytes=3700 * MIB))

    text = _written(evidence, Budget(), tmp_path / "r.html").replace(" class=figure", "").replace(" class=key", "")

    assert "<td>everything else<td>1,000<td>500<td>+500" in text
    assert "<td>of it before the pool<td>700<td>400<td>+300" in text
    assert "<td>of it after the pool<td>300<td>100<td>+200" in text
    assert "<td>of it context<td>-<td>250<td>-" in text
    picture = _picture(evidence, "Everything else, by term", tmp_path)
    widths = [float(bar.get("width", 0)) for bar in picture.iter("rect")]
    # To scale: 1000 measured; 250, 150 and 100 planned.
    assert [width / widths[0] for width in widths] == pytest.approx([1, 0.25, 0.15, 0.1], abs=0.001)


def test_html_says_every_doubt_once(tmp_path: Path) -> None:
    # A client that was busy may have seen its 25.5 ms late: whether it is more than 20 ms cannot be told.
    text = _written(replace(WHOLE, client_cpu_share=0.95), Budget(max_ttft_ms=20), tmp_path / "r.html")

    assert "<span class=inconclusive>inconclusive</span>" in text
    assert text.count("<li>") == text.count("<li>the client itself was busy 95% of the time") == 1


def test_a_picture_without_anything_in_it_is_not_drawn(tmp_path: Path) -> None:
    nothing = replace(VRAM, components=Components(None, None, None), sampling=Sampling(100, 1, 0, ((0.0, 500.0),)))

    text = _written(replace(EVIDENCE, records=(), vram=nothing), Budget(), tmp_path / "r.html")

    assert "<svg" not in text
    assert "nan" not in text


def test_every_distribution_has_an_axis_of_its_own_from_0_to_its_most(tmp_path: Path) -> None:
    # Least 20, median 25.5, most 31 of the first tokens; 61, 66.5, 72 of whole answers.
    for title, values in (("time to first token", (20, 25.5, 31)), ("whole answer", (61, 66.5, 72))):
        picture = _picture(WHOLE, f"{title}, ms", tmp_path)
        lines = [(float(line.get("x1", 0)), float(line.get("x2", 0))) for line in picture.iter("line")]
        (left, right), (low, high) = lines[:2]
        unit = (right - left) / values[2]
        assert (low, high) == pytest.approx((left + values[0] * unit, right), abs=0.1)
        ticks = [x1 for x1, x2 in lines[2::2] if x1 == x2]
        assert ticks == pytest.approx([left + value * unit for value in values], abs=0.1)
        _lies_within(picture)


@given(st.lists(st.floats(0, 700), min_size=1, max_size=6))
def test_labels_of_a_distribution_never_lie_on_each_other(places: list[float]) -> None:
    labels = [f"p{at} 1,234" for at in range(len(places))]

    middles = charts._beside(sorted(places), labels)

    half = 6.7 * len(labels[0]) / 2  # a letter of 12 pixels is at most 6.7 wide
    assert all(b - a >= 2 * half for a, b in pairwise(middles))
    assert middles[-1] + half <= charts.WIDTH


@given(st.lists(st.floats(16, 300), min_size=1, max_size=12))
def test_names_of_lines_never_lie_on_each_other(heights: list[float]) -> None:
    found = sorted(charts._parted(heights, 300))

    assert all(b - a >= 14.9 for a, b in pairwise(found))
    assert found[-1] <= 300.1


@given(st.floats(1.01, 1.5), st.lists(st.floats(0.01, 100), min_size=1, max_size=4))
def test_marks_of_ratios_never_lie_on_each_other_and_one_is_at_1(least: float, ratios: list[float]) -> None:
    rows = [charts.Interval("t", 0.9 * ratio, ratio, 1.1 * ratio) for ratio in ratios]
    picture = ElementTree.fromstring(charts.intervals("t", rows, least))

    marks = sorted(
        (float(text.get("x", 0)), text.text or "")
        for text in picture.iter("text")
        if text.get("text-anchor") == "middle"
    )
    assert "1.00" in [words for _, words in marks]
    assert all(b - a >= 6.7 * (len(one) + len(other)) / 2 for (a, one), (b, other) in pairwise(marks))


def test_every_part_of_a_bar_is_drawn_however_many_there_are() -> None:
    bar = charts.Bar("planned", tuple((f"part {at}", 10.0) for at in range(20)))

    picture = ElementTree.fromstring(charts.stacked("t", [bar], "MiB"))

    widths = [float(one.get("width", 0)) for one in picture.iter("rect")]
    assert len(widths) == 20
    assert min(widths) == pytest.approx(max(widths), abs=0.2)


def test_a_load_axis_is_marked_with_the_loads_that_were_measured() -> None:
    picture = ElementTree.fromstring(charts.lines("t", "at once", {"a": [(1, 5), (2, 9), (4, 20), (32, 90)]}))

    marks = {text.text: float(text.get("x", 0)) for text in picture.iter("text") if text.get("text-anchor") == "middle"}
    assert [mark for mark in marks if mark != "at once"] == ["1", "2", "4", "32"]
    # logarithmic: from 1 to 2 as far as from 2 to 4; from 4 to 32 three times that
    assert marks["4"] - marks["2"] == pytest.approx(marks["2"] - marks["1"], abs=0.2)
    assert marks["32"] - marks["4"] == pytest.approx(3 * (marks["2"] - marks["1"]), abs=0.2)


def test_parts_of_memory_are_a_table_and_bars_to_scale_measured_over_planned(tmp_path: Path) -> None:
    text = _written(WHOLE, Budget(), tmp_path / "r.html").replace(" class=figure", "").replace(" class=key", "")
    picture = _picture(WHOLE, "VRAM by term", tmp_path)

    assert "<td>weights<td>3,000<td>2,000<td>+1,000" in text
    assert "<td>KV pool<td>1,000<td>1,500<td>-500" in text
    bars = list(picture.iter("rect"))
    widths = [float(bar.get("width", 0)) for bar in bars]
    unit = widths[0] / 3000
    assert widths == pytest.approx([unit * mib for mib in (3000, 1000, 1000, 2000, 1500, 500)], abs=0.1)
    assert sum(widths[:3]) > 0.8 * _width(picture)  # the larger bar takes the whole line
    for row in (bars[:3], bars[3:]):
        for bar, following in pairwise(row):
            end = float(bar.get("x", 0)) + float(bar.get("width", 0))
            assert float(following.get("x", 0)) == pytest.approx(end, abs=0.11)
        assert len({bar.get("y") for bar in row}) == 1
    said = [text.text for text in picture.iter("text")]
    assert "measured: weights 3,000, KV pool 1,000, everything else 1,000" in said
    assert "planned: weights 2,000, KV pool 1,500, everything else 500" in said
    _lies_within(picture)


@pytest.mark.parametrize(
    ("vram", "named"),
    [(VRAM, "measured"), (replace(MEASURED, components=Components(None, 1000 * MIB, None)), "planned")],
)
def test_a_bar_is_drawn_only_for_what_is_known(vram: object, named: str, tmp_path: Path) -> None:
    picture = _picture(replace(WHOLE, vram=vram), "VRAM by term", tmp_path)  # type: ignore[arg-type]

    heads = [text.text.partition(":")[0] for text in picture.iter("text") if text.text and ":" in text.text]
    assert heads == [named]


def test_a_report_beside_a_baseline_tells_what_changed(tmp_path: Path) -> None:
    report = judge(WHOLE, Budget())
    slower = replace(report, throughput=replace(report.throughput, output_tps=50.0))
    faster = replace(report, throughput=replace(report.throughput, output_tps=40.0))

    write_report(slower, tmp_path / "r.html", faster)

    text = (tmp_path / "r.html").read_text().replace(" class=figure", "").replace(" class=key", "")
    assert "<td>output, tokens/s<td>40.0<td>50.0<td>+25.0 %" in text  # 50 / 40 - 1


def test_memory_over_time_starts_left_ends_right_and_peaks_at_the_top(tmp_path: Path) -> None:
    series = ((0.0, 500.0), (1.0, 6000.0), (4.0, 3000.0))
    vram = replace(VRAM, sampling=Sampling(100, 3, 100, series))

    picture = _picture(replace(WHOLE, vram=vram), "VRAM in use over time, MiB", tmp_path)

    line = picture.find("polyline")
    assert line is not None
    points = [tuple(map(float, point.split(","))) for point in line.get("points", "").split()]
    (x0, y0), (x1, y1), (x2, y2) = points
    texts = {text.text: (_start(text), float(text.get("y", 0))) for text in picture.iter("text")}
    assert (x1 - x0) / (x2 - x0) == pytest.approx(1 / 4, abs=0.001)
    axis = picture.find("line")
    assert axis is not None
    zero = float(axis.get("y1", 0))
    assert texts["0"][1] == pytest.approx(zero, abs=6)
    assert (zero - y0) / (zero - y1) == pytest.approx(500 / 6000, abs=0.001)
    assert (zero - y2) / (zero - y1) == pytest.approx(3000 / 6000, abs=0.001)
    assert texts["0 s"][0] == x0
    assert set(texts) == {"6,000", "0", "0 s", "4 s"}
    assert texts["6,000"][0] + 7 * len("6,000") < x0  # beside the line, not in it
    assert texts["6,000"][1] == pytest.approx(y1, abs=12)
    assert 0.8 * _width(picture) < x2 - x0 < x2 < _width(picture)
    assert all(0 < y < zero for _, y in points[1:])
    assert zero - y1 > 0.7 * _height(picture)
    assert texts["0 s"][1] > zero + 12  # below the line
    _lies_within(picture)


def _start(text: ElementTree.Element) -> float:
    """Where it begins, when a letter is 7 pixels wide."""
    wide = 7 * len(text.text or "")
    return float(text.get("x", 0)) - {"start": 0, "middle": wide / 2, "end": wide}[text.get("text-anchor", "start")]


def _written(evidence: Evidence, budget: Budget, path: Path) -> str:
    write_report(judge(evidence, budget), path)
    return path.read_text(encoding="utf-8")


def _picture(evidence: Evidence, title: str, tmp_path: Path) -> ElementTree.Element:
    text = _written(evidence, Budget(), tmp_path / "report.html")
    found = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]
    return next(svg for svg in found if svg.findtext("title") == title)


def _width(picture: ElementTree.Element) -> float:
    return float(picture.get("viewBox", "").split()[2])


def _height(picture: ElementTree.Element) -> float:
    return float(picture.get("viewBox", "").split()[3])


def _lies_within(picture: ElementTree.Element) -> None:
    """Nothing of it is cut off, and it is shown as large as it is drawn."""
    assert (picture.get("width"), picture.get("height")) == tuple(picture.get("viewBox", "").split()[2:])
    for shape in picture.iter():
        for name, most in (("x", _width(picture)), ("x2", _width(picture)), ("y", _height(picture))):
            assert 0 <= float(shape.get(name, 0)) < most
        if shape.tag == "rect":
            assert float(shape.get("x", 0)) + float(shape.get("width", 0)) <= _width(picture)
            assert float(shape.get("y", 0)) + float(shape.get("height", 0)) <= _height(picture)
