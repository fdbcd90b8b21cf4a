"""What people read of a measurement: every row of a report, and pictures that are drawn to scale."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from test_smoke_report import EVIDENCE, GPU, IDENTITY, VRAM, record

from deploytk.hardware.catalogue import MIB
from deploytk.smoke import Budget, Evidence, Workload, judge, write_report
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
    assert "<td>time to first token<td>12<td>20.0<td>25.5<td>29.9 ?<td>30.4 ?<td>30.9 ?<td>31.0" in text


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


def test_ranges_of_latency_are_drawn_on_one_scale(tmp_path: Path) -> None:
    picture = _picture(WHOLE, "Latency: least, median, most", tmp_path)

    # Of the four rows the largest value is that of whole answers, 31 + 40 + 1 = 72 ms; least 61, median 66.5.
    left, right = 180.0, max(float(line.get("x2", 0)) for line in picture.iter("line"))
    expected = {
        "time to first token": (20, 25.5, 31),
        "time per output token": (10, 10, 10),
        "gap between pieces of text": (10, 10, 10),
        "whole answer": (61, 66.5, 72),
    }
    names = [text.text for text in picture.iter("text")][::2]
    ends = [text.text for text in picture.iter("text")][1::2]
    drawn = [
        [float(line.get("x1", 0)), float(dot.get("cx", 0)), float(line.get("x2", 0))]
        for line, dot in zip(picture.iter("line"), picture.iter("circle"), strict=True)
    ]
    assert names == list(expected)
    assert ends == ["31.0", "10.0", "10.0", "72.0"]
    for places, values in zip(drawn, expected.values(), strict=True):
        assert places == pytest.approx([left + value / 72 * (right - left) for value in values], abs=0.1)
    heights = [float(line.get("y1", 0)) for line in picture.iter("line")]
    assert heights == [float(line.get("y2", 0)) for line in picture.iter("line")]
    assert heights == [float(dot.get("cy", 0)) for dot in picture.iter("circle")]
    assert all(b - a >= 24 for a, b in pairwise(heights))  # twice the height of a letter
    _lies_within(picture)
    assert right + 8 + 8 * len("72.0") < _width(picture)  # there is room for the figure behind the longest


def test_parts_of_memory_are_drawn_to_scale_measured_over_planned(tmp_path: Path) -> None:
    picture = _picture(WHOLE, "VRAM by component", tmp_path)

    bars = [bar for bar in picture.iter("rect") if bar.find("title") is not None]
    titles = [bar.findtext("title") for bar in bars]
    widths = [float(bar.get("width", 0)) for bar in bars]
    left = float(bars[0].get("x", 0))
    assert titles == [
        "weights: 3,000 MiB",
        "KV pool: 1,000 MiB",
        "other: 1,000 MiB",
        "weights: 2,000 MiB",
        "KV pool: 1,500 MiB",
        "other: 500 MiB",
    ]
    unit = widths[0] / 3000
    assert widths == pytest.approx([unit * mib for mib in (3000, 1000, 1000, 2000, 1500, 500)], abs=0.1)
    assert sum(widths[:3]) > 0.8 * _width(picture)  # the larger bar takes the whole line
    for row in (bars[:3], bars[3:]):
        assert float(row[0].get("x", 0)) == left
        for bar, following in pairwise(row):
            end = float(bar.get("x", 0)) + float(bar.get("width", 0))
            assert float(following.get("x", 0)) == pytest.approx(end, abs=0.11)
        assert len({bar.get("y") for bar in row}) == 1
    assert float(bars[3].get("y", 0)) >= float(bars[0].get("y", 0)) + float(bars[0].get("height", 0))
    colours = [bar.get("fill") for bar in bars]
    legend = [bar for bar in picture.iter("rect") if bar.find("title") is None]
    assert colours == [bar.get("fill") for bar in legend] * 2
    assert len(set(colours)) == 3
    assert float(legend[0].get("y", 0)) >= float(bars[3].get("y", 0)) + float(bars[3].get("height", 0))
    named = [text.text for text in picture.iter("text")]
    assert named == ["measured", "planned", "weights", "KV pool", "other"]
    places = [float(text.get("x", 0)) for text in picture.iter("text")][2:]
    assert all(b - a > 12 + 8 * len("weights") for a, b in pairwise(places))  # no name under the next
    _lies_within(picture)


@pytest.mark.parametrize(
    ("vram", "named"),
    [(VRAM, ["measured"]), (replace(MEASURED, components=Components(None, 1000 * MIB, None)), ["planned"])],
)
def test_a_bar_is_drawn_only_for_what_is_known(vram: object, named: list[str], tmp_path: Path) -> None:
    picture = _picture(replace(WHOLE, vram=vram), "VRAM by component", tmp_path)  # type: ignore[arg-type]

    assert [text.text for text in picture.iter("text")] == [*named, "weights", "KV pool", "other"]


def test_memory_over_time_starts_left_ends_right_and_peaks_at_the_top(tmp_path: Path) -> None:
    series = ((0.0, 500.0), (1.0, 6000.0), (4.0, 3000.0))
    vram = replace(VRAM, sampling=Sampling(100, 3, 100, series))

    picture = _picture(replace(WHOLE, vram=vram), "VRAM in use over time", tmp_path)

    line = picture.find("polyline")
    assert line is not None
    points = [tuple(map(float, point.split(","))) for point in line.get("points", "").split()]
    (x0, y0), (x1, y1), (x2, y2) = points
    texts = {text.text: (float(text.get("x", 0)), float(text.get("y", 0))) for text in picture.iter("text")}
    assert (x1 - x0) / (x2 - x0) == pytest.approx(1 / 4, abs=0.001)
    zero = texts["0"][1]
    assert (zero - y0) / (zero - y1) == pytest.approx(500 / 6000, abs=0.001)
    assert (zero - y2) / (zero - y1) == pytest.approx(3000 / 6000, abs=0.001)
    assert texts["0 s"][0] == x0
    assert set(texts) == {"6,000", "0", "0 s", "4 s"}
    assert texts["6,000"][0] + 8 * len("6,000") < x0  # beside the line, not in it
    assert texts["6,000"][1] == pytest.approx(y1, abs=12)
    assert 0.8 * _width(picture) < x2 - x0 < x2 < _width(picture)
    assert all(0 < y < zero for _, y in points[1:])
    assert zero - y1 > 0.7 * _height(picture)
    assert texts["0 s"][1] > zero + 12  # below the line
    _lies_within(picture)


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
