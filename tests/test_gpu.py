"""What NVML is asked, and what is made of its answers."""

from __future__ import annotations

import sys
import time

import pytest
from nvml import MIB, Nvml

from deploytk.hardware.nvml import GpuProcess, PeakSampler, read_memory


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    found = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", found)
    return found


def test_without_nvml_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # as if it were not installed

    assert read_memory({}) is None


def test_without_a_driver_there_is_no_gpu(nvml: Nvml) -> None:
    nvml.broken = frozenset({"nvmlInit"})

    assert read_memory({}) is None


def test_the_driver_is_asked_for_what_it_reserves(nvml: Nvml) -> None:
    memory = read_memory({})

    assert memory is not None
    assert (memory.api, memory.used_bytes, memory.reserved_bytes) == ("nvml_v2", 1000 * MIB, 600 * MIB)
    assert (memory.name, memory.driver, memory.power_limit_w) == ("NVIDIA H200", "580.1", 700)


def test_an_old_driver_counts_its_reserve_as_used(nvml: Nvml) -> None:
    nvml.broken = frozenset({"v2"})

    memory = read_memory({})

    assert memory is not None
    assert (memory.api, memory.used_bytes, memory.reserved_bytes) == ("nvml_v1", 1600 * MIB, None)


def test_processes_that_hide_their_memory_are_listed(nvml: Nvml) -> None:
    nvml.processes = ((7, None), (8, 5 * MIB))

    memory = read_memory({})

    assert memory is not None
    assert memory.processes == (GpuProcess(7, None), GpuProcess(8, 5 * MIB))


def test_what_a_driver_does_not_tell_is_left_open(nvml: Nvml) -> None:
    nvml.broken = frozenset({"nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetEnforcedPowerLimit"})

    memory = read_memory({})

    assert memory is not None
    assert (memory.processes, memory.power_limit_w) == ((), None)


def test_the_slice_of_a_split_gpu_is_read(nvml: Nvml) -> None:
    nvml.has_slices = True

    memory = read_memory({})

    assert memory is not None
    assert memory.is_mig
    assert set(nvml.asked) == {"slice 1"}  # there is no slice 0


@pytest.mark.parametrize(
    ("environment", "handle"),
    [
        ({}, "gpu 0"),
        ({"CUDA_VISIBLE_DEVICES": "3,1"}, "gpu 3"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-abc"}, "gpu GPU-abc"),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, "gpu 0"),
    ],
)
def test_the_gpu_that_cuda_would_use_is_read(nvml: Nvml, environment: dict[str, str], handle: str) -> None:
    read_memory(environment)

    assert set(nvml.asked) == {handle}


def test_a_hot_gpu_is_noticed_and_a_power_cap_is_not(nvml: Nvml) -> None:
    nvml.throttle_reasons = 0x40 | 0x04  # thermal, and the power cap that every load meets

    memory = read_memory({})

    assert memory is not None
    assert memory.slowed_by == ("too hot",)


def test_a_short_peak_is_seen(nvml: Nvml) -> None:
    with PeakSampler({}) as sampler:
        nvml.used = 5000 * MIB
        time.sleep(0.15)
        nvml.used = 2000 * MIB
        time.sleep(0.15)

    assert sampler.first is not None
    assert sampler.first.used_bytes == 1000 * MIB
    assert sampler.peak_bytes == 5000 * MIB
    assert sampler.used_at(sampler.times_ns[-1]) == 2000 * MIB
    assert sampler.used_at(sampler.times_ns[0] - 1) is None


def test_a_driver_that_goes_away_ends_the_sampling(nvml: Nvml) -> None:
    with PeakSampler({}) as sampler:
        nvml.broken = frozenset({"nvmlDeviceGetMemoryInfo"})
        time.sleep(0.1)

    assert sampler.peak_bytes == 1000 * MIB
