"""What NVML is asked, and what is made of its answers."""

from __future__ import annotations

import sys
import time

import pytest
from nvml import MIB, Nvml

from deploytk.hardware.here import gpus_here
from deploytk.hardware.nvml import GpuProcess, PeakSampler, read_gpus, read_memory
from deploytk.image.docker import RunOptions
from deploytk.serve.container import chosen_gpus


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


@pytest.mark.parametrize("chosen", [None, "0,1", "MIG-1", "GPU-a1,GPU-a0"])
def test_of_split_gpus_one_slice_is_all_that_is_shown(nvml: Nvml, chosen: str | None) -> None:
    nvml.has_slices, nvml.count = True, 1 if chosen == "MIG-1" else 2

    read = read_gpus({} if chosen is None else {"CUDA_VISIBLE_DEVICES": chosen})

    assert [memory.uuid for memory in read] == ["MIG-1"]


def test_a_gpu_of_this_machine_has_its_own_sizes_and_the_catalogues_name(nvml: Nvml) -> None:
    nvml.name, nvml.count, nvml.used_by = "NVIDIA H100 80GB HBM3", 2, {"gpu 1": 5000 * MIB}

    first, second = gpus_here({})

    assert (first.name, first.bandwidth_gb_s, first.compute_capability) == ("H100", 3352, "9.0")
    assert (first.total_bytes, first.reserved_bytes, first.is_here) == (80 * 2**30, 600 * MIB, True)
    assert first.usable_bytes == 80 * 2**30 - 600 * MIB - 1000 * MIB
    assert second.usable_bytes == 80 * 2**30 - 600 * MIB - 5000 * MIB


def test_a_gpu_that_nobody_knows_keeps_its_name(nvml: Nvml) -> None:
    nvml.name, nvml.capability = "NVIDIA Graphics Device", (12, 1)

    (gpu,) = gpus_here({})

    assert (gpu.name, gpu.compute_capability, gpu.bandwidth_gb_s) == ("Graphics Device", "12.1", None)


def test_a_slice_is_not_taken_for_the_whole_card(nvml: Nvml) -> None:
    nvml.name, nvml.has_slices = "NVIDIA H100 80GB HBM3 MIG 1g.10gb", True

    (gpu,) = gpus_here({})

    assert (gpu.name, gpu.bandwidth_gb_s) == ("H100 80GB HBM3 MIG 1g.10gb", None)


@pytest.mark.parametrize(
    ("environment", "handles"),
    [
        ({}, ["gpu 0", "gpu 1", "gpu 2", "gpu 3"]),
        ({"CUDA_VISIBLE_DEVICES": "3,1"}, ["gpu 3", "gpu 1"]),
        ({"CUDA_VISIBLE_DEVICES": " 2 , 0 "}, ["gpu 2", "gpu 0"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-a2"}, ["gpu 2"]),
        ({"CUDA_VISIBLE_DEVICES": "1,9,0"}, ["gpu 1"]),  # CUDA stops at the first name that is none
        ({"CUDA_VISIBLE_DEVICES": "GPU-a"}, []),  # of four
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, []),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, []),
        ({"NVIDIA_VISIBLE_DEVICES": "3"}, ["gpu 0", "gpu 1", "gpu 2", "gpu 3"]),  # in a container NVML has those alone
    ],
)
def test_the_gpus_that_cuda_would_show_are_read(nvml: Nvml, environment: dict[str, str], handles: list[str]) -> None:
    nvml.count = 4

    read = read_gpus(environment)

    assert [memory.uuid for memory in read] == [f"GPU-a{handle[-1]}" for handle in handles]
    assert (read_memory(environment) is None) == (not handles)


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

    (track,) = sampler.tracks
    assert track.first.used_bytes == 1000 * MIB
    assert track.peak_bytes == 5000 * MIB
    assert track.used_at(track.times_ns[-1]) == 2000 * MIB
    assert track.used_at(track.times_ns[0] - 1) is None


def test_every_gpu_is_watched(nvml: Nvml) -> None:
    nvml.count = 2

    with PeakSampler({}) as sampler:
        nvml.used_by = {"gpu 1": 7000 * MIB}
        time.sleep(0.15)

    assert [track.peak_bytes for track in sampler.tracks] == [1000 * MIB, 7000 * MIB]


def test_a_driver_that_goes_away_ends_the_sampling(nvml: Nvml) -> None:
    with PeakSampler({}) as sampler:
        nvml.broken = frozenset({"nvmlDeviceGetMemoryInfo"})
        time.sleep(0.1)

    assert [track.peak_bytes for track in sampler.tracks] == [1000 * MIB]


def test_a_container_gets_the_gpus_that_were_chosen(nvml: Nvml) -> None:
    nvml.count = 4

    assert chosen_gpus({}) is None
    assert chosen_gpus({"CUDA_VISIBLE_DEVICES": "2,0"}) == ("GPU-a2", "GPU-a0")
    assert chosen_gpus({"CUDA_VISIBLE_DEVICES": ""}) == ()
    (request,) = RunOptions("", 1, 1, {}, has_gpu=True, gpus=("GPU-a2",)).device_requests or ()
    assert (request["Count"], request["DeviceIDs"]) == (0, ["GPU-a2"])
    (every,) = RunOptions("", 1, 1, {}, has_gpu=True).device_requests or ()
    assert (every["Count"], every["DeviceIDs"]) == (-1, [])
    assert RunOptions("", 1, 1, {}, has_gpu=False).device_requests is None
