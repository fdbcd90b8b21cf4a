"""Ctrl-C, as a terminal sends it: to a command and all that it has started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from ground_truth import Behaviour, serving


@contextmanager
def _running(*words: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A command in a group of its own, as a shell starts it."""
    command = [sys.executable, "-m", "deploytk", *words]
    mine = {**os.environ, **environment}
    child = subprocess.Popen(
        command, env=mine, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def _press_ctrl_c_after(child: subprocess.Popen[str], word: str) -> str:
    """What it says from then on."""
    assert child.stderr is not None
    for line in child.stderr:
        if word in line:
            break
    os.killpg(child.pid, signal.SIGINT)
    return child.communicate(timeout=60)[1]


def _marked(mark: str) -> list[str]:
    """The programs that run with the mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark.encode() in path.read_bytes():
                found.append((path.parent / "cmdline").read_text().replace("\0", " "))
    return found


@pytest.mark.parametrize(
    "step", ["modernize into", "hf-awq: package", pytest.param("serve it from the hub", marks=pytest.mark.engine)]
)
def test_demo_leaves_nothing_behind_on_ctrl_c(step: str, tmp_path: Path) -> None:
    mark = f"{tmp_path}/the-mark"
    with _running("demo", TMPDIR=str(tmp_path), DEPLOYTK_TEST_MARK=mark) as demo:
        said = _press_ctrl_c_after(demo, step)

        assert (demo.returncode, "Traceback" in said) == (130, False), said
        assert list(tmp_path.iterdir()) == []
        assert _marked(mark) == []


@pytest.mark.parametrize("wants_json", [False, True])
def test_smoke_keeps_what_was_measured_on_ctrl_c(wants_json: bool, tmp_path: Path) -> None:
    behaviour = Behaviour(first_after_s=0.02)
    report, raw = tmp_path / "report.json", tmp_path / "raw.jsonl"
    options = ["--requests", "2000", "-o", str(report), "--raw", str(raw), *(["--json"] if wants_json else [])]
    with serving(behaviour) as server, _running("smoke", server.url, *options) as smoke:
        while len(behaviour.sent_ns) < 20:  # of them one is the warm-up
            assert smoke.poll() is None
        os.killpg(smoke.pid, signal.SIGINT)
        out, said = smoke.communicate(timeout=60)

    found = json.loads(report.read_text())
    assert (smoke.returncode, "Traceback" in said) == (130, False), said
    assert 10 < found["counts"]["success"] < 2000
    assert found["verdict"]["status"] == "inconclusive"
    assert len(raw.read_text().splitlines()) > 10
    assert (json.loads(out)["counts"] if wants_json else found["counts"]) == found["counts"]


def test_smoke_says_before_it_asks_which_percentiles_so_few_requests_cannot_tell() -> None:
    behaviour = Behaviour()
    with (
        serving(behaviour) as server,
        _running("smoke", server.url, "--requests", "10", "--max-ttft-ms", "9e9") as smoke,
    ):
        assert smoke.stderr is not None
        before = [line for line in iter(smoke.stderr.readline, "") if "are few" in line or "requests:" in line]
        smoke.communicate(timeout=60)

    # MLPerf's early stopping at 99 % confidence: p50 needs 11 requests, p90 64, p95 130, p99 662
    assert before[0] == (
        "10 requests are few: p50 11, p90 64, p95 130, p99 662 are needed to be sure, and limits of time cannot be "
        "judged (exit code 4)\n"
    )
    assert smoke.returncode == 4
