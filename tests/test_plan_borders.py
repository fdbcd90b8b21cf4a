"""Where plans change: one head, block, slab, byte or version on this side and on the other."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from artifacts import internlm_7b
from test_plan_attention import DEEPSEEK_V2_LITE, _latent

from deploytk import lmdeploy
from deploytk.base.yaml import load_yaml
from deploytk.hardware.catalogue import MIB, find_gpu
from deploytk.lmdeploy import overhead
from deploytk.plan import PlanRequest, plan_serving
from deploytk.plan.caveats import _of_this_machine
from deploytk.plan.memory import Memory, PoolUnit, pool_unit, session_blocks
from deploytk.plan.overhead import OverheadTerms
from deploytk.plan.weights_size import weights_bytes

# Of four heads on eight GPUs: 4 x 128 columns of keys and of values more, 4096 rows, 32 layers; an eighth on each.
REPEATED_PARAMETERS = 32 * 2 * 4 * 128 * 4096 // 8


@pytest.mark.parametrize(
    ("weight_format", "bytes_each"),
    [("none", 2), ("fp8", 1), ("awq", 0.5 + 4 / 128), ("gptq", 0.5 + 4 / 128), ("compressed-tensors", 0.5 + 4 / 128)],
)
def test_more_gpus_than_key_value_heads_each_keep_a_head(weight_format: str, bytes_each: float) -> None:
    is_w4 = bytes_each < 1
    model = dataclasses.replace(internlm_7b(is_w4=is_w4), kv_heads=4, weight_format=weight_format)
    enough = dataclasses.replace(model, kv_heads=8)

    assert weights_bytes(model, "0.13.0", 8) - weights_bytes(enough, "0.13.0", 8) == REPEATED_PARAMETERS * bytes_each
    assert weights_bytes(model, "0.13.0", 4) == weights_bytes(enough, "0.13.0", 4)


def test_values_are_padded_to_the_width_of_keys_until_they_are_folded() -> None:
    model = _latent(DEEPSEEK_V2_LITE, 27, 16, "DeepseekV2ForCausalLM")

    more = [
        weights_bytes(model, version, 1, "turbomind") - weights_bytes(model, version, 1, "pytorch")
        for version in ("0.12.1", "0.12.2")
    ]

    # 16 heads of 128 + 64 columns instead of 128, 2048 rows, 2 bytes, 27 layers
    assert more[0] == 27 * 16 * 64 * 2048 * 2
    assert more[1] != more[0]


@pytest.mark.parametrize(
    ("version", "tokens", "blocks"),
    [("0.14.0", 1, 1), ("0.14.0", 64, 1), ("0.14.0", 65, 2), ("0.15.0", 1, 2), ("0.15.0", 64, 2), ("0.15.0", 65, 3)],
)
def test_from_0_15_0_on_a_session_has_a_block_to_spare(version: str, tokens: int, blocks: int) -> None:
    assert session_blocks(tokens, version) == blocks


@pytest.mark.parametrize(
    ("block_mib", "slab_mib", "blocks"),
    [
        (1, 32, 32),
        (32, 32, 1),
        (33, 512, 15),  # 15 x 33 = 495 of 512 is the first over 95 %: 7 x 33 = 231 of 256, 3 x 33 = 99 of 128
        (600, 1024, 1),  # not filled, and not larger than 1 GiB
        (2048, 2048, 1),
    ],
)
def test_slabs_are_powers_of_two_that_blocks_fill(block_mib: int, slab_mib: int, blocks: int) -> None:
    assert pool_unit(block_mib * MIB, "0.15.0") == PoolUnit(slab_mib * MIB, blocks, 32 * MIB)
    assert pool_unit(block_mib * MIB, "0.14.0") == PoolUnit(block_mib * MIB, 1, 0)


def test_a_pool_holds_whole_slabs_behind_its_alignment() -> None:
    unit = PoolUnit(100, 3, 7)

    assert [unit.pool_bytes(blocks) for blocks in (0, 1, 3, 4)] == [7, 107, 107, 207]
    assert [unit.blocks_in(size) for size in (0, 6, 106, 107, 206, 207)] == [0, 0, 0, 3, 3, 6]


def _memory(gpu: str = "A10") -> Memory:
    model = internlm_7b(architecture="LlamaForCausalLM", has_bias=False)
    return Memory.of(model, ("0.18.0", "turbomind"), 1, "none", find_gpu(gpu))


def test_a_loading_peak_that_alone_does_not_fit_leaves_no_room() -> None:
    memory = _memory()
    assert memory.gpu is not None
    left = memory.gpu.total_bytes - memory.gpu.reserved_bytes - memory.weights_bytes

    just, over = (
        dataclasses.replace(memory, overhead=dataclasses.replace(memory.overhead, loading_bytes=peak))
        for peak in (left, left + 1)
    )

    assert just.room_bytes == memory.room_bytes != 0
    assert (over.available_bytes, over.room_bytes) == (-1, 0)
    assert over.fits(0.5, 1, 1, 10**12) is False
    assert (over.largest_session_len(8192, 1), over.largest_batch(1)) == (0, 0)
    assert over.share(512, 1) == lmdeploy.default_pool("0.18.0")


def test_a_share_that_is_asked_for_and_too_small_does_not_fit() -> None:
    model = internlm_7b(architecture="LlamaForCausalLM", has_bias=False)
    asked = PlanRequest(gpu="A100-40G", session_len=4096, max_batch_size=4)

    # 4 x 4096 tokens x 32 layers x 32 heads x 128 x 2 x 2 bytes = 8 GiB: less than half of 26 GiB, more than a 20th
    assert plan_serving(model, dataclasses.replace(asked, cache_max_entry_count=0.05)).fits is False
    assert plan_serving(model, dataclasses.replace(asked, cache_max_entry_count=0.5)).fits is True


def test_a_pool_of_exactly_what_is_needed_fits_and_a_byte_less_does_not() -> None:
    memory = _memory("A100-40G")
    needed = memory.needed_bytes(512, 2)

    assert memory.fits(0.5, 512, 2, needed) is True
    assert memory.fits(0.5, 512, 2, needed - 1) is False
    assert memory.fits(0.0, 512, 2, needed) is False


@pytest.mark.parametrize(
    ("version", "capability", "has"),
    [
        ("0.3.0", 8.9, True),
        ("0.3.0", 9.0, False),
        ("0.4.0", 9.0, True),
        ("0.4.0", 7.0, True),
        ("0.12.3", 10.0, False),
        ("0.13.0", 10.0, True),
        ("0.13.0", 11.0, False),
        ("0.13.0", 12.0, True),
        ("0.13.0", 6.1, False),
        ("0.0.10", 7.5, True),
    ],
)
def test_kernels_come_and_stay_with_versions(version: str, capability: float, has: bool) -> None:
    assert lmdeploy.has_kernels(version, capability) is has


def test_a_version_that_nobody_has_measured_is_planned_as_the_nearest_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The day that a release is added to support.json, overhead.yaml ends with the one before."""
    rows = load_yaml(Path(overhead.__file__).with_name("overhead.yaml"))["rows"]
    ending = [row | {"last": "0.17.0"} if row["last"] == "0.18.0" else row for row in rows]
    measured = plan_serving(internlm_7b(architecture="LlamaForCausalLM"), PlanRequest(gpu="A10"))
    monkeypatch.setattr(overhead, "_rows", lambda: tuple(ending))

    plan = plan_serving(internlm_7b(architecture="LlamaForCausalLM"), PlanRequest(gpu="A10"))

    assert plan.lmdeploy == "0.18.0"
    assert plan.vram == measured.vram
    assert any("the overhead of LMDeploy 0.18.0 has not been measured" in note for note in plan.notes)
    assert not any("has not been measured" in note for note in measured.notes)


@pytest.mark.parametrize("version", lmdeploy.VERSIONS)
def test_every_version_has_an_overhead(version: str) -> None:
    assert 16 in {row["bits"] for row in lmdeploy.overhead_rows(version)}


def test_what_is_there_before_the_pool_leaves_out_what_comes_after_it() -> None:
    terms = OverheadTerms(context_bytes=7, gaps_bytes=5, warm_up_bytes=3, activations_bytes=2)

    assert (terms.total_bytes, terms.before_pool_bytes) == (17, 12)


@pytest.mark.parametrize(
    ("ranks", "which"),
    [
        (1, "planned for the H100 here (2 are shown)"),
        (2, "the one with least to spare of the 2 H100 here (2 are shown)"),
    ],
)
def test_the_gpu_of_this_machine_is_named_as_one_of_those_that_share(ranks: int, which: str) -> None:
    assert which in _of_this_machine(find_gpu("H100"), ranks, 2)
