"""What was measured is kept on a full disk too, and a report that anybody may have written is read in words."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from honest_server import honest
from lying_server import lying
from test_smoke_report import EVIDENCE, GPU, IDENTITY, VRAM

from deploytk.base.errors import DeployError, UsageError
from deploytk.base.json import to_json
from deploytk.bench.run import keep_cell
from deploytk.bundle import read_measured
from deploytk.smoke import Budget, judge, write_raw, write_report
from deploytk.smoke.render import read_any

WHOLE = replace(EVIDENCE, vram=VRAM, identity=replace(IDENTITY, gpu=GPU))
BUDGET = Budget(max_ttft_ms=5.0, max_vram_mib=100.0)
ODD = (None, True, -1, 0, 10**18, 10**300, 1e308, float("nan"), float("inf"), -0.0, "", "x", "\x1b]0;a\x07", "\ud800",
       [], {}, [1], {"a": 1}, "1", [[]])  # fmt: skip


def _smoke(url: str, *more: str, temporary: Path) -> subprocess.CompletedProcess[str]:
    limits = ("--requests", "2", "--output-tokens", "6")
    environment = {**os.environ, "TMPDIR": str(temporary)}
    return subprocess.run(
        [sys.executable, "-m", "deploytk", "smoke", url, *limits, *more],
        capture_output=True, text=True, timeout=100, env=environment,
    )  # fmt: skip


def _fill(disk: Path) -> None:
    descriptor = os.open(disk / "full", os.O_WRONLY | os.O_CREAT)
    with suppress(OSError):
        while True:
            os.write(descriptor, bytes(4096))
    os.close(descriptor)


@pytest.mark.parametrize("as_json", [True, False])
def test_on_a_full_disk_the_measurement_is_elsewhere_and_on_stdout(
    as_json: bool, small_disk: Path, tmp_path: Path
) -> None:
    _fill(small_disk)
    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir()
    files = ("-o", str(small_disk / "r.json"), "--raw", str(small_disk / "r.jsonl"))
    with lying(honest) as url:
        done = _smoke(f"{url}/x", *files, *(("--json",) if as_json else ()), temporary=elsewhere)

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    printed = json.loads(done.stdout if as_json else done.stdout[done.stdout.index("\n{") :])
    assert printed["counts"]["success"] == 2
    (report,), (raw,) = elsewhere.glob("*/r.json"), elsewhere.glob("*/r.jsonl")
    assert f"it is in {report}" in done.stderr
    assert f"it is in {raw}" in done.stderr
    assert json.loads(report.read_text()) == printed
    assert read_any(raw).counts.success == 2


def test_where_nothing_can_be_written_the_report_is_on_stdout(small_disk: Path) -> None:
    place = small_disk / "tmp"
    place.mkdir()
    _fill(small_disk)
    with lying(honest) as url:
        done = _smoke(f"{url}/x", "-o", str(small_disk / "r.json"), "--json", temporary=place)

    assert done.returncode == 1
    assert json.loads(done.stdout)["counts"]["success"] == 2
    assert "cannot be written" in done.stderr


def test_a_cell_of_a_bench_that_cannot_be_written_is_elsewhere(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(small_disk)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with pytest.raises(DeployError, match="it is in") as caught:
        keep_cell(EVIDENCE, Budget(), small_disk / "cell.jsonl")

    assert caught.value.exit_code == 1
    (kept,) = tmp_path.glob("*/cell.jsonl")
    assert read_any(kept) == judge(EVIDENCE, Budget())


def _places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield above
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from _places(inner, (*above, key))


def _changed(value: Any, draw: random.Random) -> Any:
    """`value` with one to three things in it that are odd."""
    copy = json.loads(json.dumps(value))
    for _ in range(draw.choice((1, 1, 3))):
        *path, last = draw.choice([place for place in _places(copy) if place])
        inner = copy
        for key in path:
            inner = inner[key]
        inner[last] = draw.choice(ODD)
    return copy


@pytest.mark.parametrize("kind", ["report", "raw"])
def test_whatever_is_odd_in_a_report_it_is_read_or_refused_in_words(kind: str, tmp_path: Path) -> None:
    write_raw(WHOLE, BUDGET, tmp_path / "raw.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "raw.jsonl").read_text().splitlines()]
    report = json.loads(to_json(judge(WHOLE, BUDGET)))
    draw = random.Random(7)
    refused = 0
    for _ in range(300):
        if kind == "raw":
            path = tmp_path / "odd.jsonl"
            path.write_text("".join(json.dumps(line) + "\n" for line in _changed(lines, draw)))
        else:
            path = tmp_path / "odd.json"
            path.write_text(json.dumps(_changed(report, draw)))
        try:
            found = read_any(path)
        except UsageError:
            refused += 1
            continue
        for ending in ("json", "md", "xml", "html"):
            write_report(found, tmp_path / f"again.{ending}")

    assert 100 < refused < 300


def test_whatever_is_odd_in_a_report_a_card_shows_figures_or_says_that_there_are_none(tmp_path: Path) -> None:
    report = json.loads(to_json(judge(WHOLE, Budget())))
    draw = random.Random(3)
    path = tmp_path / "odd.json"
    for _ in range(300):
        path.write_text(json.dumps(_changed(report, draw)))
        with suppress(UsageError):
            figures = read_measured(path)
            assert figures.ttft_p50_ms is None or figures.ttft_p50_ms >= 0


@pytest.mark.parametrize("name", ["odd.json", "odd.jsonl"])
@pytest.mark.parametrize("kind", ["pipe", "directory", "large", "nested", "number"])
def test_what_is_no_report_is_refused_before_it_is_read_whole(kind: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)  # a reader would wait for ever
    elif kind == "directory":
        path.mkdir()
    elif kind == "large":
        with path.open("wb") as file:
            file.truncate(2**31)
    else:
        path.write_text("[" * 100_000 if kind == "nested" else "9" * 5000)

    with pytest.raises(UsageError, match=path.name):
        read_any(path)
