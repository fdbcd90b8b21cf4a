"""How far an engine has come: phases, progress and faults are those that really were."""

from __future__ import annotations

import pytest

from deploytk.app.journey import Journey, fault_of


def test_phases_have_the_seconds_that_they_took_and_only_what_happened_is_one() -> None:
    now_s = 10.0
    journey = Journey(lambda: now_s)
    now_s = 12.5
    journey.enter("verifying")
    journey.enter("verifying")
    now_s = 13.0
    journey.enter("loading")
    now_s = 20.0

    assert journey.phases() == [("starting", 2.5), ("verifying", 0.5), ("loading", 7.0)]
    for _ in range(100):
        journey.enter("starting")
        journey.enter("loading")
    assert len(journey.phases()) == 12


@pytest.mark.parametrize(
    ("line", "percent"),
    [
        ("Convert to turbomind format:  42%|####      | 13/32 [00:01<00:02]", 42),
        ("Downloading LFS objects:  50% (1/2), 1.5 MB | 2 MB/s", 50),
        ("model.safetensors: 7% of 4096 MiB", 7),
        ("10% then 20%", 20),
        ("99.5% done", 99),
        ("cache is 120% of what was asked", None),
        ("0.8 of the memory", None),
    ],
)
def test_a_percentage_that_a_program_prints_is_its_progress(line: str, percent: int | None) -> None:
    journey = Journey()
    journey.note_line(line)

    assert (journey.percent, journey.last_line) == (percent, line)
    journey.enter("loading")
    assert journey.percent is None  # it was that of another phase


@pytest.mark.parametrize(
    ("detail", "fault"),
    [
        ("the engine ended with code 1: torch.cuda.OutOfMemoryError: x", "out_of_memory"),
        ("RuntimeError: [TM][ERROR] CUDA runtime error: out of memory", "out_of_memory"),
        ("the engine was ended by signal 9: ", "out_of_memory"),
        ("model.safetensors is missing", "missing_file"),
        ("a.bin has 3 bytes, deploytk.json says 4", "missing_file"),
        ("x/y cannot be read (401): set HF_TOKEN", "not_fetched"),
        ("RuntimeError: Found no NVIDIA driver on your system", "no_gpu"),
        ("lmdeploy is not installed here", "not_installed"),
        ("LMDeploy fell back to its PyTorch engine, TurboMind was planned: x", "no_turbomind"),
        ("the engine gave no token within 5 s: x", "late"),
        ("the engine ended with code 3: nonsense", "ended"),
    ],
)
def test_what_a_failure_means(detail: str, fault: str) -> None:
    assert fault_of("failed", detail) == fault
    assert fault_of("loading", detail) == ""
