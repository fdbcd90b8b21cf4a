"""VRAM: what engines log, how use is split, and what is wrong with it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from artifacts import internlm_7b
from nvml import MIB, Nvml

from deploytk.hardware.nvml import GpuMemory, GpuProcess, Track, read_memory
from deploytk.plan import PlanRequest, plan_serving
from deploytk.smoke.engine_log import EngineLog, parse_engine_log, read_engine_log
from deploytk.smoke.memory import VramReport, Watched, check_vram, report_vram, two_point, used_gpus
from deploytk.smoke.prediction import PlannedVram, planned_vram
from deploytk.smoke.record import Record

LOGS = Path(__file__).parent / "data" / "logs"
GIB = 2**30

# A 7B model: 13 GiB of fp16 weights, 4 of W4; pool and context as a plan would say.
PLANNED = PlannedVram(
    weights_bytes=4 * GIB,
    kv_pool_bytes=1 * GIB,
    overhead_bytes=2 * GIB,
    kv_bytes_per_token=512 * 1024,
    session_len=1024,
    max_batch_size=2,
    is_quantized=True,
    fp16_weights_bytes=13 * GIB,
)


def test_the_pool_of_current_versions_is_read_from_the_log() -> None:
    log = read_engine_log(LOGS / "lmdeploy-0.18.0-7b-w4_kv8.txt")

    # Object cache budget: 1363.45 MB from free 136345.12 MB
    assert (log.parser, log.engine) == ("object_cache", "turbomind")
    assert log.pool_bytes == int(1363.45 * MIB)
    assert log.free_bytes == int(136345.12 * MIB)
    assert (log.block_bytes, log.session_len) == (17301504, 512)
    assert dict(log.settings)["model_format"] == "awq"


def test_the_pool_of_older_versions_is_blocks_times_their_size() -> None:
    text = "[TM][INFO] [BlockManager] block_size = 0.125 MB\n[TM][INFO] [BlockManager] max_block_count = 11391\n"

    log = parse_engine_log(text)

    assert (log.parser, log.pool_bytes) == ("block_manager", 11391 * MIB // 8)


def test_warming_up_beyond_the_session_is_no_problem() -> None:
    assert read_engine_log(LOGS / "lmdeploy-0.18.0-7b-fp16_p512_r0021.txt").problems == ()


def test_warming_up_within_the_session_must_work() -> None:
    text = (LOGS / "lmdeploy-0.18.0-7b-fp16_p512_r0021.txt").read_text().replace("for 513 tokens", "for 512 tokens")

    assert parse_engine_log(text).problems == ("warm-up with 512 tokens failed",)


def test_a_refused_workspace_is_named() -> None:
    assert read_engine_log(LOGS / "lmdeploy-0.18.0-refuses-workspace.txt").problems == ("no checkpoint was found",)


@pytest.mark.parametrize("text", ["", "\x00\xff", "Object cache budget: x MB", "[BlockManager] block_size = 1 MB"])
def test_a_log_that_does_not_tell_says_nothing(text: str) -> None:
    log = parse_engine_log(text)

    assert (log.parser, log.pool_bytes, log.session_len) == (None, None, None)


def test_a_log_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert read_engine_log(tmp_path / "none").parser is None


def test_the_silent_change_of_engines_is_seen() -> None:
    text = "2026 - lmdeploy - WARNING - archs.py:51 - Fallback to pytorch engine because turbomind is not installed"

    assert parse_engine_log(text).has_fallen_back


def test_two_starts_tell_the_pool_from_the_rest() -> None:
    # 100 GiB are free before the pool, 5 GiB in use: shares of 0.1 and 0.3 use 15 and 35 GiB.
    assert two_point(0.1, 15 * GIB, 0.3, 35 * GIB) == (10 * GIB, 5 * GIB)


def _record(done_ns: int) -> Record:
    return Record("p", "t", "", 200, 0, 0, 0, (1, 2), 1, done_ns, None, 1, 2, None, 1, "stop", 2, is_exact=False)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    found = Nvml(used=500 * MIB)
    monkeypatch.setitem(sys.modules, "pynvml", found)
    return found


def _memory() -> GpuMemory:
    memory = read_memory({})
    assert memory is not None
    return memory


def _watched(nvml: Nvml, *, used: int, processes: int = 0, after_stop: int | None = 500 * MIB) -> Watched:
    before = _memory()
    before = replace(before, processes=tuple(GpuProcess(pid, None) for pid in range(processes)))
    nvml.used = used
    ready = _memory()
    track = Track(before, [0, 50, 100], [before.used_bytes, ready.used_bytes, ready.used_bytes])
    return Watched(ready, track, True, after_stop)


def _log(pool: int, free: int | None, session_len: int = 1024) -> EngineLog:
    return EngineLog("object_cache", "turbomind", False, pool, free, None, session_len, (), ())


def _report(nvml: Nvml, free: int, **changes: int) -> VramReport:
    watched = _watched(nvml, used=500 * MIB + 7 * GIB + 100 * MIB)
    log = _log(1 * GIB, free, changes.get("session_len", 1024))
    return report_vram(watched, log, PLANNED, ())


def _statuses(report: VramReport) -> dict[str, str]:
    return {finding.check: finding.status for finding in check_vram(report, PLANNED)}


# What the engine calls free before its pool: all but the reserve, what was there, 4 GiB of weights and 2 of context.
FREE = 80 * GIB - 600 * MIB - 500 * MIB - 6 * GIB


def test_use_is_split_by_the_engines_log_and_compared_with_the_plan(nvml: Nvml) -> None:
    report = _report(nvml, FREE)

    assert report.components.weights_bytes == 4 * GIB
    assert report.components.kv_pool_bytes == 1 * GIB
    assert report.components.overhead_bytes == 2 * GIB + 100 * MIB
    assert report.predicted is not None
    # 7 GiB planned, 7 GiB + 100 MiB used: 7168 / 7268 - 1 = -1.4 %
    assert report.predicted.error_pct == pytest.approx(-1.376, abs=0.001)
    assert report.kv.capacity_tokens == 2048  # 1 GiB / 512 KiB


def test_a_healthy_server_has_no_findings(nvml: Nvml) -> None:
    assert _statuses(_report(nvml, FREE)) == {
        "no memory leak": "not run",
        "memory released": "pass",
        "really quantized": "pass",
        "room for the sessions": "pass",
    }


def test_weights_that_were_loaded_unquantized_are_noticed(nvml: Nvml) -> None:
    fp16 = FREE - 9 * GIB  # 13 GiB of weights instead of 4

    assert _statuses(_report(nvml, fp16))["really quantized"] == "fail"


def test_a_pool_that_holds_fewer_sessions_than_planned_fails(nvml: Nvml) -> None:
    report = _report(nvml, FREE, session_len=600)

    assert _statuses(report)["room for the sessions"] == "fail"


def test_memory_that_stays_after_the_end_fails(nvml: Nvml) -> None:
    watched = _watched(nvml, used=8 * GIB, after_stop=700 * MIB)

    report = report_vram(watched, _log(GIB, FREE), PLANNED, ())

    assert _statuses(report)["memory released"] == "fail"


@pytest.mark.parametrize(("growth_mib", "status"), [(0, "pass"), (60, "pass"), (65, "fail")])
def test_memory_that_grows_with_requests_is_a_leak(nvml: Nvml, growth_mib: int, status: str) -> None:
    watched = _watched(nvml, used=8 * GIB)
    watched.track.used_bytes = [0, 8 * GIB, 8 * GIB + growth_mib * MIB]
    records = tuple(_record(done) for done in (10, 20, 30, 40, 60, 70, 80, 110))

    report = report_vram(watched, _log(GIB, FREE), PLANNED, records)

    assert _statuses(report)["no memory leak"] == status


def test_where_ranks_are_not_known_a_server_uses_the_gpus_on_which_use_grew(nvml: Nvml) -> None:
    grown, other = _watched(nvml, used=8 * GIB), _watched(nvml, used=8 * GIB)
    other = replace(other, track=replace(other.track, first=replace(other.track.first, used_bytes=8 * GIB - MIB)))

    assert used_gpus((other, grown), None) == (grown,)
    assert used_gpus((other, other), None) == (other,)
    assert used_gpus((other, grown), 2) == (other, grown)


def test_foreign_processes_are_counted(nvml: Nvml) -> None:
    watched = _watched(nvml, used=8 * GIB, processes=2)

    assert report_vram(watched, _log(GIB, FREE), PLANNED, ()).foreign_processes == 2


def test_what_the_model_takes_unquantized_is_counted_from_its_numbers() -> None:
    artifact = internlm_7b(is_w4=True, architecture="LlamaForCausalLM", has_bias=False)
    plan = plan_serving(artifact, PlanRequest(gpu="A100-40G"))

    planned = planned_vram(artifact, plan)

    # 7 321 948 160 parameters of 2 bytes
    assert planned is not None
    assert planned.fp16_weights_bytes == 2 * 7_321_948_160
