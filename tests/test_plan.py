"""How models are served and what that takes; the expected figures were measured on GPUs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
from pathlib import Path

import pytest
from artifacts import internlm_7b, internlm_workspace
from conftest import MODELS
from hypothesis import given
from hypothesis import strategies as st

from deploytk import lmdeploy
from deploytk.artifact import Artifact, KvPolicy, read_artifact
from deploytk.artifact.tensor_sums import FeedForward
from deploytk.base.errors import ArtifactError, PlanError, UsageError
from deploytk.base.json import plain
from deploytk.hardware.catalogue import MIB, find_gpu
from deploytk.plan import MODEL_AT, PlanRequest, ServingPlan, memory, plan_serving
from deploytk.plan.kv import kv_bytes_per_token
from deploytk.plan.overhead import _inner_columns, find_overhead
from deploytk.plan.weights_size import _padding_bytes, weights_bytes

SEED = PlanRequest(gpu="A100-40G", session_len=512, max_batch_size=1)
PINNED = dataclasses.replace(SEED, gpu="H200")


def _flag(plan: ServingPlan, name: str) -> str:
    return plan.argv[plan.argv.index(name) + 1]


def _known(version: str) -> set[str]:
    return set(FLAGS[version].split())


def _llama_7b(*, is_w4: bool) -> Artifact:
    """What was measured on the H200: random weights of the same shape under the Llama architecture, no bias."""
    return internlm_7b(is_w4=is_w4, architecture="LlamaForCausalLM", has_bias=False)


@pytest.mark.parametrize(
    ("is_w4", "kv", "measured_mib"),
    [(False, "none", 14918), (False, "int8", 14790), (True, "none", 5952), (True, "int8", 5828)],
)
def test_the_vram_of_the_first_users_table_is_predicted(is_w4: bool, kv: KvPolicy, measured_mib: int) -> None:
    artifact = internlm_workspace(is_w4=is_w4)

    plan = plan_serving(artifact, dataclasses.replace(SEED, kv_policy=kv))

    assert plan.vram.total_bytes / MIB == pytest.approx(measured_mib, rel=0.02)


def test_the_weights_of_internlm_are_exact() -> None:
    fp16 = weights_bytes(internlm_7b(), "0.13.0", 1)
    w4 = weights_bytes(internlm_7b(is_w4=True), "0.13.0", 1)

    # 7 321 948 160 parameters x 2
    assert fp16 == 2 * 7_321_948_160
    # linears 32 x (4 x 4096 x 4096 + 3 x 4096 x 11008) = 6 476 005 376, x 0.53125; the rest stays fp16
    assert w4 == int(6_476_005_376 * 0.53125) + 2 * (7_321_948_160 - 6_476_005_376)


@pytest.mark.parametrize(("kv", "block_bytes"), [("none", 33_554_432), ("int8", 17_301_504), ("int4", 8_912_896)])
def test_kv_blocks_have_the_size_of_the_real_logs(kv: KvPolicy, block_bytes: int) -> None:
    assert 64 * kv_bytes_per_token(_llama_7b(is_w4=False), kv, "0.18.0", 1) == block_bytes


def test_static_int8_has_no_scales_per_token() -> None:
    # 32 layers x 32 heads x 2 x 128 bytes
    assert kv_bytes_per_token(internlm_7b(), "int8", "0.1.0", 1) == 32 * 32 * 2 * 128


@pytest.mark.parametrize(
    ("is_w4", "kv", "share", "ready_mib"),
    [
        # a pool of 1 % of what is free
        (False, "none", 0.01, 16473),
        (False, "int8", 0.01, 16473),
        (False, "int4", 0.01, 16473),
        (True, "none", 0.01, 8377),
        (True, "int8", 0.01, 8377),
        (True, "int4", 0.01, 8377),
        # the default pool, 80 %
        (True, "none", 0.8, 116089),
        # a pool for about one session of 512 tokens
        (False, "none", 0.0021, 15449),
        (False, "int8", 0.0021, 15449),
        (True, "none", 0.0021, 7289),
    ],
)
def test_the_vram_measured_on_an_h200_is_predicted(is_w4: bool, kv: KvPolicy, share: float, ready_mib: int) -> None:
    request = dataclasses.replace(PINNED, kv_policy=kv, cache_max_entry_count=share)

    plan = plan_serving(_llama_7b(is_w4=is_w4), request)

    assert plan.vram.total_bytes / MIB == pytest.approx(ready_mib, rel=0.03)


@pytest.mark.parametrize(("is_w4", "free_mib", "pool_mib"), [(False, 128217, 269), (True, 136345, 286)])
def test_what_is_free_before_the_pool_is_predicted(is_w4: bool, free_mib: int, pool_mib: int) -> None:
    request = dataclasses.replace(PINNED, cache_max_entry_count=0.0021)

    plan = plan_serving(_llama_7b(is_w4=is_w4), request)

    assert plan.vram.kv_pool_bytes / MIB == pytest.approx(0.0021 * free_mib, rel=0.01)
    assert plan.vram.kv_pool_bytes / MIB == pytest.approx(pool_mib, rel=0.01)


def test_the_peak_while_loading_is_predicted() -> None:
    request = dataclasses.replace(PINNED, cache_max_entry_count=0.0021)

    plan = plan_serving(_llama_7b(is_w4=True), request)

    assert plan.vram.loading_peak_bytes / MIB == pytest.approx(8889, rel=0.03)


def test_the_share_holds_the_session_in_whole_blocks_and_one_more() -> None:
    plan = plan_serving(_llama_7b(is_w4=False), PINNED)

    # 512 / 64 + 1 = 9 blocks of 32 MiB, and 32 MiB for alignment: 320 MiB of 128 218 MiB x 0.97 = 0.00257, rounded up
    assert plan.cache_max_entry_count == 0.0026
    assert plan.kv_capacity_tokens >= 576
    assert _flag(plan, "--max-prefill-token-num") == "512"


@pytest.mark.parametrize(("kv", "slab_mib", "blocks"), [("none", 32, 1), ("int8", 256, 15), ("int4", 128, 15)])
def test_slabs_are_those_of_the_real_logs(kv: KvPolicy, slab_mib: int, blocks: int) -> None:
    block_bytes = 64 * kv_bytes_per_token(_llama_7b(is_w4=False), kv, "0.18.0", 1)

    unit = memory.pool_unit(block_bytes, "0.18.0")

    assert (unit.bytes, unit.blocks) == (slab_mib * MIB, blocks)


@pytest.mark.parametrize("kv", ["int8", "int4"])
def test_a_pool_is_never_smaller_than_one_slab(kv: KvPolicy) -> None:
    plan = plan_serving(read_artifact(MODELS / "hf-awq"), PlanRequest(gpu="H200", session_len=64, kv_policy=kv))

    # 64 tokens take kilobytes, but a slab of 32 MiB is the least that holds anything
    assert plan.vram.kv_pool_bytes >= 64 * MIB
    assert plan.kv_capacity_tokens >= 64


def test_old_versions_take_a_share_of_the_whole_gpu() -> None:
    plan = plan_serving(internlm_workspace(is_w4=False), SEED)

    # 4 blocks of 128 tokens x 512 KiB = 256 MiB of 40 960 MiB = 0.00625, rounded up
    assert plan.cache_max_entry_count == 0.0063
    assert plan.lmdeploy == "0.1.0"


def test_up_to_0_1_0_settings_go_into_config_ini() -> None:
    plan = plan_serving(internlm_workspace(is_w4=True), dataclasses.replace(SEED, kv_policy="int8"))

    assert plan.argv == (
        "lmdeploy", "serve", "api_server", "internlm-chat-7b",
        "--server_name", "127.0.0.1", "--server_port", "23333", "--tp", "1",
    )  # fmt: skip
    assert dict(plan.config_ini) == {
        "session_len": "512",
        "max_batch_size": "1",
        "cache_max_entry_count": "0.0032",
        "quant_policy": "4",
    }


@pytest.mark.parametrize(
    ("version", "kv", "number"),
    [
        ("0.2.6", "int8", "4"),
        ("0.3.0", "int8", "4"),
        ("0.4.2", "int8", "8"),
        ("0.4.2", "int4", "4"),
        ("0.7.3", "int8", "8"),
    ],
)
def test_the_kv_policy_is_written_as_the_version_means_it(version: str, kv: KvPolicy, number: str) -> None:
    plan = plan_serving(internlm_workspace(is_w4=True, version=version), dataclasses.replace(SEED, kv_policy=kv))

    assert _flag(plan, "--quant-policy") == number


def test_int4_is_refused_where_it_does_not_exist() -> None:
    with pytest.raises(PlanError, match=r"0\.1\.0 has no int4"):
        plan_serving(internlm_workspace(is_w4=True), dataclasses.replace(SEED, kv_policy="int4"))


def test_static_int8_without_scale_files_is_refused() -> None:
    artifact = dataclasses.replace(internlm_workspace(is_w4=True), files=())

    with pytest.raises(PlanError, match="past_kv_scale"):
        plan_serving(artifact, dataclasses.replace(SEED, kv_policy="int8"))


def test_only_int8_needs_scale_files() -> None:
    artifact = dataclasses.replace(internlm_workspace(is_w4=True), files=())

    assert plan_serving(artifact, dataclasses.replace(SEED, kv_policy="none")).kv_policy == "none"


@pytest.mark.parametrize(("kv", "head_dim", "says"), [("int8", 64, 1), ("int8", 128, 0), ("none", 64, 0)])
def test_a_quantized_cache_of_other_heads_than_those_documented_is_said(kv: KvPolicy, head_dim: int, says: int) -> None:
    artifact = dataclasses.replace(_llama_7b(is_w4=True), head_dim=head_dim)

    notes = plan_serving(artifact, PlanRequest(kv_policy=kv)).notes

    assert sum("for heads of 128 values alone" in note for note in notes) == says


# What `lmdeploy serve api_server` takes at every pin.
FLAGS = json.loads(Path(__file__).with_name("lmdeploy_flags.json").read_text())["flags"]
PINS = sorted({era.made_by[1] for era in lmdeploy.WORKSPACE_ERAS if era.served_until}, key=lmdeploy.release_index)


@pytest.mark.parametrize("kv", ["none", "int8"])
@pytest.mark.parametrize("version", PINS)
def test_a_workspace_gets_only_flags_that_its_version_has(version: str, kv: KvPolicy) -> None:
    artifact = dataclasses.replace(internlm_workspace(is_w4=True, version=version), remote_code=("config.json",))

    plan = plan_serving(artifact, dataclasses.replace(SEED, kv_policy=kv, trust_remote_code=True))

    assert plan.lmdeploy == version
    assert {part for part in plan.argv if part.startswith("-")} <= _known(version)


@pytest.mark.parametrize(("architecture", "pin"), [("InternLMForCausalLM", "0.13.0"), ("LlamaForCausalLM", "0.18.0")])
def test_a_huggingface_directory_gets_only_flags_that_its_version_has(architecture: str, pin: str) -> None:
    artifact = dataclasses.replace(internlm_7b(is_w4=True, architecture=architecture), remote_code=("config.json",))

    plan = plan_serving(artifact, dataclasses.replace(SEED, trust_remote_code=True))

    assert plan.lmdeploy == pin
    assert {part for part in plan.argv if part.startswith("-")} <= _known(pin)
    assert _flag(plan, "--model-format") == "awq"


@pytest.mark.parametrize("version", FLAGS)
def test_the_table_of_flags_agrees_with_the_sources(version: str) -> None:
    # --model-name is left out before 0.6.0, where it chose the chat template
    flags = set(
        "--server-name --server-port --server_name --server_port --tp --backend --model-format --session-len "
        "--max-batch-size --cache-max-entry-count --quant-policy --max-prefill-token-num --trust-remote-code "
        "--chat-template --dtype --enable-metrics --disable-metrics --generation-config".split()
    )

    known = {flag for flag in flags if lmdeploy.has_flag(version, flag)}

    assert known == flags & _known(version)


def test_internlm_is_served_by_the_last_turbomind_that_had_it() -> None:
    plan = plan_serving(internlm_7b(), SEED)

    assert (plan.engine, plan.lmdeploy) == ("turbomind", "0.13.0")


def test_a_workspace_that_nothing_serves_points_to_modernize() -> None:
    artifact = read_artifact(MODELS / "workspace-0.9.2-awq")

    with pytest.raises(PlanError, match="no LMDeploy serves") as caught:
        plan_serving(artifact, PlanRequest())

    assert "deploytk modernize" in caught.value.hint
    assert plan_serving(artifact, PlanRequest(serving_engine="cpu")).engine == "cpu"


def test_a_workspace_keeps_its_tensor_parallelism() -> None:
    artifact = read_artifact(MODELS / "gqa" / "workspace-0.4.2-llama-awq-tp2")

    assert plan_serving(artifact, PlanRequest()).tensor_parallel == 2
    with pytest.raises(PlanError, match="split for --tp 2, not for --tp 1"):
        plan_serving(artifact, PlanRequest(tensor_parallel=1))


def test_gpus_that_share_a_model_are_kept_from_nccls_windows() -> None:
    artifact = internlm_7b()

    shared = plan_serving(artifact, PlanRequest(tensor_parallel=2))

    assert shared.environment == (("NCCL_WIN_ENABLE", "0"),)
    assert shared.command_line.startswith("NCCL_WIN_ENABLE=0 lmdeploy serve api_server ")
    assert any("NCCL_WIN_ENABLE=0" in note for note in shared.notes)
    alone = plan_serving(artifact, PlanRequest(tensor_parallel=1))
    assert (alone.environment, alone.command_line) == ((), shlex.join(alone.argv))
    by_pytorch = plan_serving(artifact, PlanRequest(tensor_parallel=2, serving_engine="pytorch"))
    assert by_pytorch.environment == ()  # it has communicators of its own


def test_a_broken_model_is_refused() -> None:
    from deploytk.artifact import Problem

    artifact = dataclasses.replace(internlm_7b(), problems=(Problem("error", "x is short", "copy it"),))

    with pytest.raises(ArtifactError, match="x is short"):
        plan_serving(artifact, PlanRequest())


def test_a_session_that_does_not_fit_is_said_and_kept() -> None:
    plan = plan_serving(_llama_7b(is_w4=False), PlanRequest(gpu="RTX 4090", session_len=32768, max_batch_size=4))

    # 4 x 32768 tokens x 512 KiB = 64 GiB
    assert (plan.fits, plan.session_len, plan.max_batch_size) == (False, 32768, 4)
    assert any("MiB are missing on RTX 4090" in note for note in plan.notes)


def test_a_model_larger_than_the_gpu_does_not_fit() -> None:
    plan = plan_serving(_llama_7b(is_w4=False), PlanRequest(gpu="8G"))

    assert (plan.fits, plan.largest_session_len, plan.largest_batch) == (False, 0, 0)


def test_without_wishes_as_much_is_taken_as_fits() -> None:
    plan = plan_serving(_llama_7b(is_w4=False), PlanRequest(gpu="A10"))

    # 23 028 - 13 965 - 973 = 8 090 MiB free; 0.9215 of it = 7 455; one session of 2048 tokens takes 33 x 32 = 1056 MiB
    assert (plan.session_len, plan.max_batch_size, plan.fits) == (2048, 7, True)


def test_a_vision_tower_is_on_every_gpu() -> None:
    language = _llama_7b(is_w4=True)
    vision = dataclasses.replace(language, tensors=dataclasses.replace(language.tensors, tower_bytes=600_000_000))

    more = [weights_bytes(vision, "0.18.0", n) - weights_bytes(language, "0.18.0", n) for n in (1, 2)]

    # 300 million parameters of 2 bytes
    assert more == [600_000_000] * 2


def test_a_tiny_share_is_written_without_an_exponent() -> None:
    plan = plan_serving(_llama_7b(is_w4=True), dataclasses.replace(PINNED, cache_max_entry_count=6.4e-05))

    assert _flag(plan, "--cache-max-entry-count") == "0.000064"


def test_two_gpus_halve_what_is_split() -> None:
    one = weights_bytes(_llama_7b(is_w4=False), "0.18.0", 1)
    two = weights_bytes(_llama_7b(is_w4=False), "0.18.0", 2)

    # norms are on both: (2 x 32 + 1) x 4096 x 2 bytes
    norms = (2 * 32 + 1) * 4096 * 2
    assert two == (one - norms) // 2 + norms


def test_tied_embeddings_are_there_twice_with_turbomind_alone() -> None:
    untied = _llama_7b(is_w4=False)
    tensors = dataclasses.replace(untied.tensors, head_bytes=0)
    artifact = dataclasses.replace(untied, tied_embeddings=True, tensors=tensors)

    assert weights_bytes(artifact, "0.18.0", 1) == weights_bytes(untied, "0.18.0", 1)
    # 103168 x 4096 x 2 bytes
    assert weights_bytes(artifact, "0.18.0", 1, "pytorch") == weights_bytes(untied, "0.18.0", 1) - 845_152_256


@pytest.mark.parametrize(
    ("text", "mib"), [("a100-80g", 81920), ("RTX4090", 24564), ("h200", 143771), ("24G", 24576), ("24576MiB", 24576)]
)
def test_gpus_are_found_by_name_or_size(text: str, mib: int) -> None:
    assert find_gpu(text).total_bytes == mib * MIB


@pytest.mark.parametrize("size", ["9" * 10 + "G", "9" * 20 + "G", "9" * 400 + "M"])
def test_a_size_that_no_gpu_has_is_none(size: str) -> None:
    with pytest.raises(UsageError, match="is known"):
        plan_serving(_llama_7b(is_w4=True), PlanRequest(gpu=size))


def test_an_unknown_gpu_names_near_ones() -> None:
    with pytest.raises(UsageError) as caught:
        find_gpu("A1000")

    assert "A100-40G" in caught.value.hint


def test_a_plan_moves_with_its_model() -> None:
    plan = plan_serving(_llama_7b(is_w4=True), PINNED).at(".")

    assert plan.argv[MODEL_AT] == "."


@given(
    st.sampled_from(["T4", "A10", "A100-40G", "H100", "H200"]),
    st.integers(1, 4096),
    st.integers(1, 64),
    st.sampled_from(["none", "int8", "int4"]),
    st.booleans(),
)
def test_what_fits_really_holds_the_sessions(gpu: str, session_len: int, batch: int, kv: KvPolicy, is_w4: bool) -> None:
    request = PlanRequest(gpu=gpu, session_len=session_len, max_batch_size=batch, kv_policy=kv)

    plan = plan_serving(_llama_7b(is_w4=is_w4), request)

    assert 0 < plan.cache_max_entry_count < 1
    assert plan.gpu is not None
    if plan.fits:
        assert plan.kv_capacity_tokens >= session_len * batch
        assert plan.vram.total_bytes <= plan.gpu.total_bytes
        assert plan.largest_batch is not None
        assert plan.largest_batch >= batch


@given(
    st.integers(7000, 24000),
    st.one_of(st.sampled_from([1, 64, 300]), st.integers(1, 8192)),
    st.sampled_from([1, 4, 8, 16, 64]),
    st.sampled_from(["none", "int8", "int4"]),
    st.booleans(),
)
def test_what_is_said_to_fit_at_most_does(mib: int, session_len: int, batch: int, kv: KvPolicy, is_w4: bool) -> None:
    """A longer session, or more of them, makes a larger step, which takes of the room as well."""
    wish = PlanRequest(gpu=f"{mib}M", session_len=session_len, max_batch_size=batch, kv_policy=kv)
    plan = plan_serving(_llama_7b(is_w4=is_w4), wish)

    if plan.largest_session_len:
        longest = dataclasses.replace(wish, session_len=plan.largest_session_len)
        assert plan_serving(_llama_7b(is_w4=is_w4), longest).fits
    if plan.largest_batch:
        most = dataclasses.replace(wish, max_batch_size=plan.largest_batch)
        assert plan_serving(_llama_7b(is_w4=is_w4), most).fits


@pytest.mark.parametrize("kv", ["none", "int8"])
@pytest.mark.parametrize(("gpu", "is_w4", "batch"), [("A10", False, 4), ("T4", True, 8)])
def test_a_pool_leaves_room_for_what_is_taken_after_it(gpu: str, is_w4: bool, batch: int, kv: KvPolicy) -> None:
    """Near the largest sessions that fit, where the share of what is free is rounded and has something to spare."""
    wishes = [PlanRequest(gpu=gpu, session_len=64 * n, max_batch_size=batch, kv_policy=kv) for n in range(20, 140)]
    plans = [plan_serving(_llama_7b(is_w4=is_w4), wish) for wish in wishes]

    assert {plan.fits for plan in plans} == {True, False}
    for plan in plans:
        assert plan.gpu is not None
        if plan.fits:
            assert plan.vram.total_bytes <= plan.gpu.total_bytes, plan.session_len


def test_a_pool_that_was_asked_for_and_leaves_too_little_does_not_fit() -> None:
    wish = PlanRequest(gpu="A10", session_len=2048, max_batch_size=1, cache_max_entry_count=0.97)

    plan = plan_serving(_llama_7b(is_w4=False), wish)

    assert plan.fits is False
    assert plan.gpu is not None
    lack = -(-(plan.vram.total_bytes - plan.gpu.total_bytes) // 2**20)
    said = f"the KV pool leaves {lack} MiB too little for what is taken after it: lower cache_max_entry_count"
    assert lack > 0
    assert said in plan.notes


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (PlanRequest(session_len=0), "--session-len 0 is less than 1"),
        (PlanRequest(max_batch_size=-1), "--max-batch-size -1 is less than 1"),
        (PlanRequest(tensor_parallel=0), "--tp 0 is less than 1"),
        (PlanRequest(cache_max_entry_count=1.0), "1 is not between 0 and 1"),
        (PlanRequest(cache_max_entry_count=1.5), "1.5 is not between 0 and 1"),
        (PlanRequest(cache_max_entry_count=-0.5), "-0.5 is not between 0 and 1"),
        (PlanRequest(cache_max_entry_count=0.0), "0 is not between 0 and 1"),
    ],
)
def test_wishes_without_sense_are_refused(wish: PlanRequest, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan_serving(_llama_7b(is_w4=True), wish)


def test_turbomind_is_refused_where_it_cannot() -> None:
    llama = _llama_7b(is_w4=False)
    other = dataclasses.replace(llama, lmdeploy=dataclasses.replace(llama.lmdeploy, engine="pytorch"))

    with pytest.raises(PlanError, match="TurboMind does not serve"):
        plan_serving(other, PlanRequest(serving_engine="turbomind"))
    assert plan_serving(llama, PlanRequest(serving_engine="turbomind")).engine == "turbomind"


def test_a_server_that_takes_more_before_the_pool_than_others_takes_more_while_it_loads() -> None:
    others = find_overhead("0.18.0", _llama_7b(is_w4=False), 1)
    before = others.before_pool.total_bytes

    more, less = (others.scaled_to(before + extra, before + extra, 512, "own") for extra in (2**27, -(2**27)))

    assert more.before_pool.total_bytes > before + 2**27 - 16  # each term is rounded down
    assert more.loading_bytes - others.loading_bytes == more.before_pool.total_bytes - before
    assert less.loading_bytes == others.loading_bytes


def test_a_mixture_of_experts_is_as_wide_as_what_its_layers_hold() -> None:
    llama = _llama_7b(is_w4=False)
    weights = dataclasses.replace(llama.tensors, linear_bytes=llama.layers * 2 * 4 * 4096 * 9000)
    experts = dataclasses.replace(llama, intermediate_size=1024, tensors=weights)

    assert (_inner_columns(experts), _inner_columns(llama)) == (9000, 11008)


def test_feed_forward_layers_in_mxfp4_are_padded_in_their_size() -> None:
    llama = _llama_7b(is_w4=False)
    tensors = dataclasses.replace(llama.tensors, feed_forward=(FeedForward(11008, 32 * 11008 * 4096),))
    experts = dataclasses.replace(llama, weight_format="mxfp4", group_size=32, tensors=tensors)
    halves = dataclasses.replace(experts, weight_format="none")

    added = [_padding_bytes(artifact, "0.18.0", 3) for artifact in (experts, halves)]

    assert added[0] / added[1] == pytest.approx((0.5 + 1 / 32) / 2)


def test_a_plan_with_a_reasoning_parser_is_read_back() -> None:
    llama = _llama_7b(is_w4=False)
    parser = lmdeploy.reasoning_parsers("0.18.0")[0]
    plan = plan_serving(llama, PlanRequest(reasoning_parser=parser))

    assert plan.lmdeploy == "0.18.0"
    assert ServingPlan.from_manifest(plain(plan), llama) == plan


@pytest.mark.parametrize(
    ("changes", "is_read"),
    [
        ({}, True),
        *[({name: value}, value == 1) for name in ("session_len", "max_batch_size") for value in (1, 0, -1)],
        *[({"tensor_parallel": value}, False) for value in (0, -1)],
        *[({"cache_max_entry_count": value}, True) for value in (0.0, 999_999.0)],
        *[({"cache_max_entry_count": value}, False) for value in (-0.001, 1e6)],
        *[({"quant_policy": value}, False) for value in (-1, 4, 8)],
        ({"fits": True}, False),  # without a GPU
        ({"lmdeploy": "0.18.1"}, False),
        ({"model_name": "../x"}, False),
    ],
)
def test_a_plan_that_makes_no_sense_is_not_read_back(changes: dict[str, object], is_read: bool) -> None:
    """Its command is what the changed plan would mean: what refuses it is the number itself."""
    llama = _llama_7b(is_w4=False)
    plan = dataclasses.replace(plan_serving(llama, PlanRequest()), **changes)  # type: ignore[arg-type]
    with contextlib.suppress(KeyError, ValueError):
        plan = dataclasses.replace(plan, argv=plan.command(llama)[0], environment=plan.needed_environment())

    if is_read:
        assert ServingPlan.from_manifest(plain(plan), llama) == plan
        return
    with pytest.raises(ValueError, match=r"plan\.\w+ is "):
        ServingPlan.from_manifest(plain(plan), llama)


def test_the_pytorch_engine_is_refused_where_it_cannot() -> None:
    llama = _llama_7b(is_w4=True)
    assert llama.facts
    facts = dataclasses.replace(llama.facts, quantization=lmdeploy.QuantizationFacts(method="gptq", bits=4))
    gptq = dataclasses.replace(llama, weight_format="gptq", facts=facts)

    with pytest.raises(PlanError, match="the PyTorch engine does not serve"):
        plan_serving(gptq, PlanRequest(serving_engine="pytorch"))


def test_the_pytorch_engine_has_versions_of_its_own() -> None:
    plan = plan_serving(internlm_7b(), PlanRequest(serving_engine="pytorch"))

    # TurboMind lost InternLM after 0.13.0, the PyTorch engine after 0.14.0
    assert (plan.engine, plan.lmdeploy) == ("pytorch", "0.14.0")
    assert _flag(plan, "--backend") == "pytorch"


def test_key_value_heads_are_split_evenly_or_repeated() -> None:
    artifact = dataclasses.replace(_llama_7b(is_w4=True), kv_heads=8)

    # 8 heads on 4 GPUs: 2 on each; on 16: 1 on each, every head twice. 32 layers x 2 x 128 x 2 bytes = 16384 per head
    assert plan_serving(artifact, PlanRequest(tensor_parallel=4)).kv_bytes_per_token == 2 * 16384
    assert plan_serving(artifact, PlanRequest(tensor_parallel=16)).kv_bytes_per_token == 16384
    with pytest.raises(PlanError, match="6 key/value heads cannot be split over 4"):
        plan_serving(dataclasses.replace(artifact, kv_heads=6), PlanRequest(tensor_parallel=4))


def test_what_is_missing_counts_the_weights_too() -> None:
    plan = plan_serving(_llama_7b(is_w4=False), PlanRequest(gpu="8G", session_len=512, max_batch_size=1))

    # 8192 - 13964.5 (weights) - 968 (context) - 3 x 806 (copies of the vocabulary while loading) - 64 = -9222.5, and
    # 9 blocks of 32 MiB + 32 = 320
    assert any(note.startswith("9543 MiB are missing on 8G") for note in plan.notes)


def test_what_would_fit_is_said() -> None:
    plan = plan_serving(_llama_7b(is_w4=False), PlanRequest(gpu="A10", session_len=2048, max_batch_size=20))

    # 7 as in the test of plans without wishes
    assert any("7 of them would fit" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("version", "gpu", "words"),
    [
        ("0.1.0", "T4", "4-bit kernels of LMDeploy 0.1.0 need compute capability 8.0"),
        ("0.5.3", "V100", "4-bit kernels of LMDeploy 0.5.3 need compute capability 7.5"),
        ("0.1.0", "H100", "0.1.0 was built without kernels for compute capability 9.0"),
        ("0.7.3", "RTX 5090", "0.7.3 was built without kernels for compute capability 12.0"),
        ("0.7.3", "P100", "LMDeploy needs compute capability 7.0"),
    ],
)
def test_gpus_without_kernels_are_named(version: str, gpu: str, words: str) -> None:
    plan = plan_serving(internlm_workspace(is_w4=True, version=version), dataclasses.replace(SEED, gpu=gpu))

    assert any(words in note for note in plan.notes)


@pytest.mark.parametrize(("version", "gpu"), [("0.1.0", "RTX 4090"), ("0.4.2", "H100"), ("0.7.3", "V100")])
def test_gpus_with_kernels_are_not_named(version: str, gpu: str) -> None:
    plan = plan_serving(internlm_workspace(is_w4=True, version=version), dataclasses.replace(SEED, gpu=gpu))

    assert not any("kernels" in note for note in plan.notes)


def test_every_architecture_has_a_row_for_people() -> None:
    rows = {name: (turbomind, pytorch) for name, turbomind, pytorch in lmdeploy.compatibility()}

    assert rows["InternLMForCausalLM"] == ("0.2.0 to 0.13.0", "0.6.0 to 0.14.0")
    assert rows["Qwen2VLForConditionalGeneration"] == ("0.9.2 to 0.13.0, from 0.16.0", "from 0.6.1")
    assert rows["Gemma2ForCausalLM"] == ("-", "from 0.6.0")


@pytest.mark.parametrize("version", ["0.4.2", "0.7.3", "0.18.0"])
@given(heads=st.integers(1, 64), head_dim=st.sampled_from([64, 80, 96, 128, 192, 256]))
def test_fewer_bits_never_take_more(version: str, heads: int, head_dim: int) -> None:
    artifact = dataclasses.replace(_llama_7b(is_w4=True), kv_heads=heads, head_dim=head_dim)

    policies: tuple[KvPolicy, ...] = ("int4", "int8", "none")
    taken = [kv_bytes_per_token(artifact, policy, version, 1) for policy in policies]

    assert taken == sorted(taken)


@given(st.integers(1, 4000), st.integers(1, 16), st.sampled_from([1056, 270336, 524288]))
def test_more_sessions_never_take_less(session_len: int, batch: int, token_bytes: int) -> None:
    def pool(session: int, sessions: int) -> int:
        blocks = sessions * memory.session_blocks(session, lmdeploy.NEWEST)
        return memory.pool_unit(64 * token_bytes, lmdeploy.NEWEST).pool_bytes(blocks)

    assert pool(session_len, batch) <= pool(session_len + 1, batch)
    assert pool(session_len, batch) <= pool(session_len, batch + 1)


def _alternatives(plan: ServingPlan) -> dict[str, tuple[int, int]]:
    return {one.option: (one.max_batch_size, one.session_len) for one in plan.alternatives}


def test_what_does_not_fit_says_what_would() -> None:
    plan = plan_serving(_llama_7b(is_w4=False), PlanRequest(gpu="A10", session_len=2048, max_batch_size=20))

    # 7455 MiB for the pool; a block of 64 tokens is 32 MiB, 16.5 in int8 and 8.5 in int4
    found = _alternatives(plan)
    assert plan.fits is False
    assert found["--max-batch-size 7"] == (7, 2048)  # 33 blocks each: 7 x 33 x 32 = 7392
    # 20 sessions of 33 blocks: 660 x 16.5 = 10 890 MiB in int8, 660 x 8.5 = 5610 MiB in int4
    assert "--kv int8" not in found
    assert found["--kv int4"] == (20, 2048)
    assert found["--tp 2"] == (20, 2048)
    assert any(option.startswith("--session-len ") for option in found)
    assert (
        "deploytk quantize MODEL -o DIR" not in found
    )  # 3.9 GB of weights leave 16 GB: not the 20.6 GB that are needed
    assert found["--gpu A100-40G"] == (20, 2048)


def test_every_alternative_fits_when_it_is_planned() -> None:
    artifact = _llama_7b(is_w4=False)
    wish = PlanRequest(gpu="A10", session_len=2048, max_batch_size=20)

    for option, (batch, session_len) in _alternatives(plan_serving(artifact, wish)).items():
        flag, _, value = option.partition(" ")
        changed = dataclasses.replace(wish, session_len=session_len, max_batch_size=batch)
        if flag in ("--gpu", "--tp", "--kv"):
            name = {"--gpu": "gpu", "--tp": "tensor_parallel", "--kv": "kv_policy"}[flag]
            changed = dataclasses.replace(changed, **{name: int(value) if flag == "--tp" else value})
        assert plan_serving(artifact, changed).fits


def test_weights_that_do_not_fit_can_be_quantized_split_or_moved() -> None:
    plan = plan_serving(_llama_7b(is_w4=False), PlanRequest(gpu="12G", session_len=1024, max_batch_size=1))

    assert {"deploytk quantize MODEL -o DIR", "--tp 2"} <= set(_alternatives(plan))
    assert any(option.startswith("--gpu ") for option in _alternatives(plan))
    assert not any(option.startswith(("--session-len", "--kv")) for option in _alternatives(plan))


def test_quantized_weights_are_planned_as_a_quantized_model_is() -> None:
    plan = plan_serving(_llama_7b(is_w4=False), PlanRequest(gpu="12G", session_len=1024, max_batch_size=1))
    really = plan_serving(_llama_7b(is_w4=True), PlanRequest(gpu="12G", session_len=1024, max_batch_size=1))

    (quantized,) = (one for one in plan.alternatives if "quantize" in one.option)
    assert really.fits
    assert quantized.kv_capacity_tokens == pytest.approx(really.kv_capacity_tokens, abs=64)


def test_a_plan_that_fits_or_that_nobody_judges_has_no_alternatives() -> None:
    assert plan_serving(_llama_7b(is_w4=True), PlanRequest(gpu="A10")).alternatives == ()
    assert plan_serving(_llama_7b(is_w4=True), PlanRequest()).alternatives == ()


def test_one_useful_session_is_better_than_eight_short_ones() -> None:
    artifact = dataclasses.replace(_llama_7b(is_w4=True), session_len=8192)

    plan = plan_serving(artifact, PlanRequest(gpu="9000M"))

    # 9000 - 4894 - 1971 that are there before the pool = 2135 MiB free, and 353 come after it (123, and 74 kB for each
    # of 3265 tokens): 1782 MiB, of which 97 % are counted on: 52 blocks of 32 MiB beside 32 for alignment, one to spare
    assert (plan.max_batch_size, plan.session_len, plan.fits) == (1, 51 * 64, True)


def test_a_session_that_holds_no_conversation_is_no_plan() -> None:
    artifact = dataclasses.replace(_llama_7b(is_w4=True), session_len=8192)
    plans = [plan_serving(artifact, PlanRequest(gpu=f"{mib}M")) for mib in range(8800, 9600, 32)]

    lengths = {plan.session_len for plan in plans if plan.fits}

    assert lengths
    assert min(lengths) >= 256


def test_code_is_trusted_by_the_flag_and_not_by_a_model_of_that_name() -> None:
    plan = plan_serving(read_artifact(MODELS / "hf-fp16"), PINNED)
    flag, rest = "--trust-remote-code", plan.argv[MODEL_AT + 1 :]

    def trusts(*argv: str) -> bool:
        return dataclasses.replace(plan, argv=(*plan.argv[:MODEL_AT], *argv)).trusts_remote_code

    assert trusts("model", flag, *rest)
    assert trusts("model", *rest, flag)
    assert not trusts("model", *rest)
    assert not trusts(flag, *rest)
