"""How fast a GPU can decode at most, and where nobody can say."""

from __future__ import annotations

import dataclasses

import pytest
from artifacts import internlm_7b

from deploytk.hardware.catalogue import find_gpu
from deploytk.plan import PlanRequest, plan_serving

# InternLM-7B: 32 layers of 4096 / 11008, a vocabulary of 103168. Of each layer 4 x 4096 x 4096 + 3 x 4096 x 11008 =
# 202375168 numbers and norms of 2 x 4096; one more norm, and the head. The embedding is not read.
_LINEAR = 32 * 202_375_168
_HEAD = 103_168 * 4096


def test_the_bound_is_bandwidth_over_what_one_token_reads() -> None:
    artifact = internlm_7b(architecture="LlamaForCausalLM", has_bias=False)

    bound = plan_serving(artifact, PlanRequest(gpu="A100-40G", session_len=2048, max_batch_size=1)).decode_bound

    assert bound is not None
    read = 2 * (_LINEAR + _HEAD + (2 * 32 + 1) * 4096)
    assert bound.read_bytes == read
    assert bound.tokens_per_s == pytest.approx(1555e9 / read)  # 112.5
    # 32 layers x 32 heads x 2 x 128 values x 2 bytes = 524288 bytes of KV cache per token
    assert bound.full_session_tokens_per_s == pytest.approx(1555e9 / (read + 2048 * 524_288))
    assert bound.at(2048) == bound.full_session_tokens_per_s


def test_two_gpus_read_half_each() -> None:
    artifact = internlm_7b(architecture="LlamaForCausalLM", has_bias=False)
    request = PlanRequest(gpu="H100", session_len=2048, max_batch_size=1)

    one, two = (plan_serving(artifact, dataclasses.replace(request, tensor_parallel=ranks)) for ranks in (1, 2))

    assert one.decode_bound is not None
    assert two.decode_bound is not None
    # norms are on both
    assert two.decode_bound.tokens_per_s == pytest.approx(2 * one.decode_bound.tokens_per_s, rel=1e-3)


def test_without_a_known_bandwidth_there_is_no_bound() -> None:
    artifact = internlm_7b()

    assert plan_serving(artifact, PlanRequest()).decode_bound is None
    assert plan_serving(artifact, PlanRequest(gpu="24G")).decode_bound is None


@pytest.mark.parametrize(
    "config", [{"num_local_experts": 8}, {"text_config": {"num_experts": 64}}, {"expert_num": [8]}]
)
def test_where_a_token_meets_some_experts_only_there_is_no_bound(config: dict[str, object]) -> None:
    artifact = dataclasses.replace(internlm_7b(), config=config)

    assert plan_serving(artifact, PlanRequest(gpu="H100")).decode_bound is None


def test_every_known_gpu_has_a_bandwidth() -> None:
    assert find_gpu("H100-PCIe").bandwidth_gb_s == 2039
    assert find_gpu("H100").bandwidth_gb_s == 3352
