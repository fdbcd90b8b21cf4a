"""Reports and pictures as they were reviewed, to the last stroke. Look at them before you rewrite them: make golden."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Reviewed
from test_smoke_rendered import WHOLE

from deploytk.smoke import Budget, charts, judge, write_report
from deploytk.smoke.memory import Sampling

GOLDEN = Path(__file__).parent / "golden" / "pages"

# Known of a GPU's memory: 500 MiB before, a peak in the middle, given back at the end.
SERIES = ((0.0, 500.0), (0.5, 2500.0), (1.0, 6000.0), (4.0, 3000.0), (4.5, 500.0))
PICTURES = {
    "stacked": lambda: charts.stacked(
        "VRAM", [charts.Bar("measured", (("weights", 3000), ("KV pool", 1000))),
                 charts.Bar("planned", (("weights", 2000), ("KV pool", 1500))),
                 charts.Bar("before", (("weights", 12_000), ("KV pool", 1)))], "MiB",
    ),
    "spread": lambda: charts.spread("TTFT", "ms", {"median": 25.5, "p90": 31.0, "p99": 95.0, "most": 96.0}),
    "intervals": lambda: charts.intervals(
        "ratios", [charts.Interval("tokens/s", 0.9, 0.98, 1.02), charts.Interval("TTFT", 1.1, 1.25, 1.4)], 1.05
    ),
    "wide-intervals": lambda: charts.intervals("ratios", [charts.Interval("tokens/s", 0.2, 0.5, 3.0)], 1.05),
    "lines": lambda: charts.lines(
        "tokens/s", "streams",
        {"fp16": [(1, 196), (2, 380), (8, 1315), (32, 4566)], "W4A16": [(1, 147), (8, 1092), (32, 3360)]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(PICTURES))
def test_a_picture_is_as_reviewed(name: str, reviewed: Reviewed) -> None:
    reviewed(PICTURES[name]() + "\n", GOLDEN / f"{name}.svg")


@pytest.mark.parametrize("ending", [".html", ".md", ".xml"])
def test_a_report_is_as_reviewed(tmp_path: Path, ending: str, reviewed: Reviewed) -> None:
    memory = replace(WHOLE.vram, sampling=Sampling(100, 5, 100, SERIES)) if WHOLE.vram else None
    report = judge(replace(WHOLE, vram=memory, client_cpu_share=0.95), Budget(max_ttft_ms=30, max_vram_mib=5000))
    report = replace(report, created="2026-11-27T00:00:00+00:00")
    before = replace(report, throughput=replace(report.throughput, output_tps=40.0))

    write_report(report, tmp_path / f"report{ending}", before)

    reviewed((tmp_path / f"report{ending}").read_text(encoding="utf-8"), GOLDEN / f"smoke{ending}")
