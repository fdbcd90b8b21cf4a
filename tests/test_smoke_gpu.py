"""Planned for this machine's GPUs, served there, measured and judged: on a machine whose GPUs are made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import MODELS
from gpu_machine import Machine, make_machine
from nvml import MIB
from typer.testing import CliRunner

from deploytk.cli import app

MODEL = str(MODELS / "hf-fp16")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.chdir(tmp_path)
    return make_machine(tmp_path, monkeypatch, count=2)


def _run(*arguments: str) -> tuple[int, Any]:
    done = CliRunner().invoke(app, [*arguments, "--json"])
    try:
        return done.exit_code, json.loads(done.stdout)
    except ValueError:
        return done.exit_code, str(done.exception)


def _plan(*arguments: str) -> Any:
    exit_code, plan = _run("plan", MODEL, "--session-len", "256", "--max-batch-size", "1", *arguments)
    assert exit_code == 0, plan
    return plan


def _smoke(report: str = "report.json", *arguments: str) -> tuple[int, Any]:
    few = ("--requests", "3", "--output-tokens", "8", "--session-len", "256", "--max-batch-size", "1")
    return _run("smoke", MODEL, *few, "-o", report, *arguments)


def _as_planned(machine: Machine, plan: Any, more_before_mib: float = 0, more_after_mib: float = 0) -> None:
    """The server takes what the plan says, and so much more."""
    terms = plan["vram"]["overhead"]
    after = (terms["exchange_bytes"] + terms["warm_up_bytes"] + terms["activations_bytes"]) / MIB
    before = (plan["vram"]["weights_bytes"] + plan["vram"]["overhead_bytes"]) / MIB - after
    machine.takes(before + more_before_mib, after + more_after_mib)


def test_without_a_gpu_option_this_machines_gpu_is_planned_for(machine: Machine) -> None:
    plan = _plan()

    assert (plan["gpu"]["name"], plan["gpu"]["is_here"]) == ("H100", True)
    assert plan["gpu"]["used_bytes"] == 1000 * MIB
    assert plan["fits"] is True
    assert any("80,059 of 81,559 MiB are free now" in note for note in plan["notes"])  # 81559 - 500 - 1000
    assert "H100 of this machine" in CliRunner().invoke(app, ["plan", MODEL]).stdout


def test_a_named_gpu_beats_the_one_that_is_here(machine: Machine) -> None:
    gpu = _plan("--gpu", "A10")["gpu"]

    assert (gpu["name"], gpu["is_here"]) == ("A10", False)


def test_what_is_not_free_now_is_not_planned_with(machine: Machine) -> None:
    state = machine.nvml.state
    state.write_text(json.dumps({"gpu 0": 80_000 * MIB, "gpu 1": 0}))

    exit_code, plan = _run("plan", MODEL)

    assert (exit_code, plan["fits"]) == (3, False)


def test_cuda_visible_devices_chooses_the_gpu(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.nvml.state.write_text(json.dumps({"gpu 0": 1000 * MIB, "gpu 1": 2000 * MIB}))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")

    assert _plan()["gpu"]["used_bytes"] == 2000 * MIB


def test_of_several_gpus_the_one_with_least_to_spare_counts(machine: Machine) -> None:
    machine.nvml.state.write_text(json.dumps({"gpu 0": 1000 * MIB, "gpu 1": 3000 * MIB}))

    plan = _plan("--tp", "2")

    assert (plan["tensor_parallel"], plan["gpu"]["used_bytes"]) == (2, 3000 * MIB)


def test_more_gpus_than_are_shown_are_refused(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")

    assert _run("plan", MODEL, "--tp", "2") == (1, "2 GPUs are asked for, this machine shows 1")


def test_a_smoke_test_without_any_option_plans_for_the_gpu_and_passes(machine: Machine) -> None:
    _as_planned(machine, _plan())

    exit_code, report = _smoke()

    assert exit_code == 0, report["verdict"]
    # The tiny model is no shape that was measured, which a prediction that holds does not mind.
    assert _finding(report)["status"] == "pass"
    assert abs(report["vram"]["predicted"]["error_pct"]) < 0.1
    share = float(machine.argv[machine.argv.index("--cache-max-entry-count") + 1])
    assert share < 0.01  # and not LMDeploy's 80 %
    assert report["load_s"] > 0


@pytest.mark.parametrize(
    ("more_before", "more_after", "said"),
    [(300, 0, "before the KV pool"), (0, 300, "after the KV pool")],
)
def test_a_missed_prediction_names_the_part_that_was_off(
    machine: Machine, more_before: float, more_after: float, said: str
) -> None:
    _as_planned(machine, _plan(), more_before, more_after)

    exit_code, report = _smoke("report.json", "--vram-tolerance", "2")

    assert (exit_code, report["verdict"]["status"]) == (1, "fail")
    finding = _finding(report)
    assert (finding["status"], said in finding["detail"]) == ("fail", True)


def test_a_prediction_that_rests_on_nothing_measured_only_warns(machine: Machine) -> None:
    _as_planned(machine, _plan(), 300)

    exit_code, report = _smoke()

    assert (exit_code, _finding(report)["status"]) == (0, "warn")
    assert "models of 0.49B to 15B parameters were measured" in _finding(report)["detail"]


def test_two_gpus_are_planned_served_and_measured(machine: Machine) -> None:
    _as_planned(machine, _plan("--tp", "2"))

    exit_code, report = _smoke("report.json", "--tp", "2", "--cache-max-entry-count", "0.01")

    assert exit_code == 0, report["verdict"]
    assert machine.argv[machine.argv.index("--tp") + 1] == "2"
    assert machine.argv[machine.argv.index("--cache-max-entry-count") + 1] == "0.01"
    uses = report["vram"]["gpus"]
    assert [use["uuid"] for use in uses] == ["GPU-a0", "GPU-a1"]
    assert all(abs(use["predicted_error_pct"]) < 0.1 for use in uses)
    shown = CliRunner().invoke(app, ["report", "report.json"]).stdout
    assert "VRAM of GPU 1" in shown


def test_a_gpu_beside_those_that_are_used_does_not_matter(machine: Machine) -> None:
    _as_planned(machine, _plan())

    _, report = _smoke()

    assert [use["uuid"] for use in report["vram"]["gpus"]] == ["GPU-a0"]


def test_what_a_smoke_test_measured_is_planned_with_until_it_is_forgotten(machine: Machine) -> None:
    before = _plan()
    _as_planned(machine, before, 300, 100)
    _smoke()

    exit_code, kept = _run("calibrate", "report.json")
    plan = _plan()

    assert (exit_code, len(kept["measured"])) == (0, 1)
    # 300 MiB more before the pool and 100 after it, as the server took; whole bytes are cut off term by term.
    more = plan["vram"]["overhead_bytes"] - before["vram"]["overhead_bytes"]
    assert more == pytest.approx(400 * MIB, abs=MIB / 10)
    assert "your own smoke test" in plan["vram"]["overhead_source"]
    assert _smoke("again.json")[1]["correctness"][-1]["status"] == "pass"
    assert "your own" not in _plan("--gpu", "A10")["vram"]["overhead_source"]
    for nothing in ("2", "0", "everything", "b"):
        assert f"there is no measured server '{nothing}'" in _run("calibrate", "--forget", nothing)[1]
    assert _run("calibrate", "--forget", "1")[1]["measured"] == []
    assert _plan()["vram"] == before["vram"]


def test_a_report_that_measured_no_vram_teaches_nothing(machine: Machine, tmp_path: Path) -> None:
    from test_smoke_report import EVIDENCE

    from deploytk.smoke import Budget, judge, write_report

    write_report(judge(EVIDENCE, Budget()), tmp_path / "cpu.json")

    assert "no VRAM was measured" in _run("calibrate", "cpu.json")[1]


@pytest.mark.parametrize("content", ["", "{}", "[", '{"format": 2, "measured": []}', '{"format": 1, "measured": [1]}'])
def test_a_broken_file_of_measurements_is_refused_and_can_be_forgotten(machine: Machine, content: str) -> None:
    data = machine.directory / "data"
    data.mkdir()
    (data / "calibration.json").write_text(content)

    assert "calibration.json cannot be used" in _run("plan", MODEL)[1]
    assert _run("calibrate", "--forget", "all")[0] == 0
    assert _run("plan", MODEL)[0] == 0


def _finding(report: Any) -> Any:
    return next(one for one in report["correctness"] if one["check"] == "VRAM as planned")
