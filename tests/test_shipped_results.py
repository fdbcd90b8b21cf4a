"""`report` reads every result that docs/results ships, on a terminal of 80 columns, and a bench is one page."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import pytest
from commands import run

from deploytk.base.errors import UsageError
from deploytk.bench import read_result
from deploytk.bench.cells import read_cells
from deploytk.bench.html import html
from deploytk.bench.table import read_reports
from deploytk.smoke.render import read_any

RESULTS = Path(__file__).parents[1] / "docs" / "results"
BENCHES = sorted({path.parent for path in RESULTS.rglob("raw*.tar.xz")} | {p.parent for p in RESULTS.rglob("cells")})
REPORTS = sorted(path for path in RESULTS.rglob("*smoke*.json"))


def test_there_is_something_to_read() -> None:
    assert len(BENCHES) >= 2
    assert REPORTS


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: str(path.relative_to(RESULTS)))
def test_a_shipped_report_is_read(path: Path) -> None:
    assert read_any(path).counts.issued


def test_a_shipped_bench_is_read_and_cuts_no_figure_on_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    done = run("report", str(RESULTS / "h200" / "bench-vram"))

    assert done.code == 0, done.stderr
    assert "15,523" in done.stdout
    assert "…" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_bench_is_one_page_that_loads_nothing_and_names_its_machine() -> None:
    place = RESULTS / "h200" / "bench-speed"

    page = html(read_result(place, gpu=None, objective="throughput"), read_reports(place))

    assert not [word for word in ("src=", "href=", "url(", "@import", "<script", "//") if word in page]
    assert "NVIDIA H200, 143,771 MiB, driver" in page
    loads = re.findall(r'text-anchor="middle">(\d+)</text>', page.partition("Output of all streams")[2])
    assert loads[:3] == ["1", "8", "32"]
    assert "? </b> behind a setting" in page or "<b>?</b> behind a setting" in page


def test_an_archive_that_is_none_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "raw.tar.xz").write_bytes(b"no archive")
    with pytest.raises(UsageError, match=r"raw\.tar\.xz cannot be read"):
        read_cells(tmp_path)


def test_of_an_archive_only_cells_are_taken(tmp_path: Path) -> None:
    (tmp_path / "evil").write_text("x")
    with tarfile.open(tmp_path / "raw.tar.xz", "w:xz") as archive:
        archive.add(tmp_path / "evil", "../../evil.jsonl")
        archive.add(tmp_path / "evil", "cells/../../a.r0.jsonl")
    with pytest.raises(UsageError, match="holds no results"):
        read_cells(tmp_path)
