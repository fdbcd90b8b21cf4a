"""What is planned for models of every kind, figure by figure, as it was reviewed: make golden.

A figure that changes is a promise that changes. Why each is right is held by the tests of plans; that none changes
unseen, by these.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from artifacts import internlm_7b, internlm_workspace
from conftest import MODELS, Reviewed
from public_models import DEEPSEEK, LLAMA, Tensor, layers, matrix, model_of

from deploytk import lmdeploy
from deploytk.artifact import Artifact, Attention, CompressedAttention, LatentAttention, read_artifact
from deploytk.artifact.tensor_sums import FeedForward
from deploytk.base.errors import DeployError
from deploytk.hardware.catalogue import MIB, Gpu, find_gpu
from deploytk.plan import MODEL_AT, MeasuredOverhead, PlanRequest, ServingPlan, extrapolation, plan_serving, shape_of
from deploytk.plan.memory import Memory

GOLDEN = Path(__file__).parent / "golden" / "plans"
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}
ON_A10 = PlanRequest(gpu="A10")

WISHES = {
    "nothing": PlanRequest(),
    "an A10": ON_A10,
    "two A100, KV int8": PlanRequest(
        gpu="A100-80G", tensor_parallel=2, kv_policy="int8", session_len=20_000, max_batch_size=7
    ),
    "a V100, KV int4": PlanRequest(gpu="V100-32G", kv_policy="int4", session_len=3001),
    "too many on an A10": PlanRequest(gpu="A10", max_batch_size=300),
    "too little": PlanRequest(gpu="5G", session_len=4000, max_batch_size=3),
    "eight H200, the PyTorch engine": PlanRequest(gpu="H200", tensor_parallel=8, serving_engine="pytorch"),
    "a T4": PlanRequest(gpu="T4"),
}

QWEN = LLAMA | {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
    "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936,
    "max_position_embeddings": 32768,
}  # fmt: skip
MISTRAL = LLAMA | {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 4096}
FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic", "fmt": "e4m3"}


def _llama_8b(root: Path) -> Path:
    return model_of(root, LLAMA, layers(LLAMA))


def _llama_8b_awq(root: Path) -> Path:
    config = LLAMA | {"quantization_config": AWQ}
    return model_of(root, config, layers(config, "awq"))


def _qwen_half_b(root: Path) -> Path:
    """Tied, with heads of 64 and a bias on three projections."""
    config = QWEN | {"tie_word_embeddings": True}
    tensors = [tensor for tensor in layers(config) if tensor[0] != "lm_head.weight"]
    for layer in range(24):
        tensors += [(f"model.layers.{layer}.self_attn.{name}_proj.bias", "BF16", (size,))
                    for name, size in (("q", 896), ("k", 128), ("v", 128))]  # fmt: skip
    return model_of(root, config, tensors)


def _llama_8b_gptq(root: Path) -> Path:
    config = LLAMA | {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}}
    return model_of(root, config, layers(config, "gptq"))


def _mistral_window(root: Path) -> Path:
    return model_of(root, MISTRAL, layers(MISTRAL))


def _qwen_fp8(root: Path) -> Path:
    config = QWEN | {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 1024, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 3072, "quantization_config": FP8,
    }  # fmt: skip
    tensors: list[Tensor] = []
    for name, kind, shape in layers(config):
        is_matrix = "_proj" in name
        tensors.append((name, "F8_E4M3" if is_matrix else kind, shape))
        if is_matrix:
            tensors.append((f"{name}_scale_inv", "F32", (-(-shape[0] // 128), -(-shape[1] // 128))))
    return model_of(root, config, tensors)


def _mixtral_awq(root: Path) -> Path:
    """Experts of few groups: padded where they are split."""
    config = LLAMA | {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_hidden_layers": 2, "head_dim": 128,
        "hidden_size": 2048, "num_attention_heads": 32, "num_key_value_heads": 4, "num_experts": 16,
        "num_experts_per_tok": 2, "moe_intermediate_size": 768, "quantization_config": AWQ,
    }  # fmt: skip
    tensors: list[Tensor] = [("model.embed_tokens.weight", "BF16", (128256, 2048)),
                             ("lm_head.weight", "BF16", (128256, 2048))]  # fmt: skip
    for layer in range(2):
        for name, rows in (("q", 4096), ("k", 512), ("v", 512)):
            tensors += matrix(f"model.layers.{layer}.self_attn.{name}_proj", rows, 2048, "awq")
        tensors += matrix(f"model.layers.{layer}.self_attn.o_proj", 2048, 4096, "awq")
        for expert in range(16):
            stem = f"model.layers.{layer}.mlp.experts.{expert}"
            for name, rows, columns in (("gate", 768, 2048), ("up", 768, 2048), ("down", 2048, 768)):
                tensors += matrix(f"{stem}.{name}_proj", rows, columns, "awq")
    return model_of(root, config, tensors)


def _kimi_packed(root: Path) -> Path:
    """Packed experts, which the PyTorch engine alone serves, beside latent attention."""
    weights = {"num_bits": 4, "type": "int", "group_size": 32, "strategy": "group", "symmetric": True, "dynamic": False}
    group = {"format": "pack-quantized", "targets": ["Linear"], "weights": weights}
    stated = {
        "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
        "config_groups": {"group_0": group},
    }  # fmt: skip
    config = DEEPSEEK | {"quantization_config": stated, "num_hidden_layers": 1}
    tensors = [
        ("model.embed_tokens.weight", "BF16", (163840, 7168)),
        *matrix("model.layers.0.self_attn.o_proj", 7168, 8192),
        *matrix("model.layers.0.mlp.experts.0.down_proj", 7168, 2048, "packed"),
    ]
    return model_of(root, config, tensors)


def _with_code(root: Path) -> Path:
    """It names code of its own, and the LMDeploy that serves it asks nobody."""
    named = {"auto_map": {"AutoConfig": "configuration_dbrx.DbrxConfig"}, "architectures": ["DbrxForCausalLM"]}
    (root / "configuration_dbrx.py").write_text("")
    return model_of(root, LLAMA | named, layers(LLAMA))


def _with_code_beside(root: Path) -> Path:
    """A newer LMDeploy runs it when it is told to."""
    (root / "modeling_own.py").write_text("")
    return model_of(root, LLAMA | {"auto_map": {"AutoConfig": "modeling_own.Config"}}, layers(LLAMA))


def _that_sees(root: Path) -> Path:
    config = LLAMA | {"architectures": ["InternVLChatModel"], "model_type": "internvl_chat", "num_hidden_layers": 4}
    config = {"llm_config": config, "vision_config": {"hidden_size": 1024}} | config
    tensors = [(f"language_{name}", kind, shape) for name, kind, shape in layers(config, prefix="model.model.")]
    return model_of(root, config, [*tensors, ("vision_model.embeddings.weight", "BF16", (1024, 4096))])


ON_DISK: dict[str, Callable[[Path], Path]] = {
    "llama-8b": _llama_8b,
    "llama-8b-awq": _llama_8b_awq,
    "qwen-half-b-tied": _qwen_half_b,
    "llama-8b-gptq": _llama_8b_gptq,
    "mistral-window": _mistral_window,
    "qwen-fp8": _qwen_fp8,
    "experts-awq": _mixtral_awq,
    "experts-packed-latent": _kimi_packed,
    "code-of-its-own": _with_code,
    "code-beside": _with_code_beside,
    "pictures": _that_sees,
    **{
        name.replace("/", "-"): (lambda _, name=name: MODELS / name)
        for name in ("hf-awq", "workspace-0.4.2-awq", "gqa/workspace-0.4.2-llama-awq-tp2", "workspace-0.7.3-awq",
                     "workspace-0.9.2-awq")
    },
}  # fmt: skip


def _like(architecture: str, attention: Attention, **changes: Any) -> Artifact:
    plain = internlm_7b(architecture=architecture, has_bias=False)
    facts = dataclasses.replace(plain.facts or lmdeploy.ModelFacts(architecture))
    changed = dataclasses.replace(plain, attention=attention, facts=facts, **changes)
    return dataclasses.replace(changed, lmdeploy=lmdeploy.support(facts))


# What no directory of a few lines shows: attention that is not heads x values, each with sizes of its own.
VALUES = {
    "latent-folded": _like("DeepseekV2ForCausalLM", Attention(27, LatentAttention(512, 0, 64, 128, 128, 0)), layers=27,
                           heads=16, kv_heads=1, head_dim=576, hidden_size=2048),
    "latent-of-another-width": _like("DeepseekV2ForCausalLM", Attention(27, LatentAttention(256, 768, 32, 64, 96, 0)),
                                     layers=27, heads=16, kv_heads=1, head_dim=288, hidden_size=2560),
    "sparse": _like("DeepseekV32ForCausalLM", Attention(61, LatentAttention(512, 1536, 64, 128, 128, 128)), layers=61,
                    heads=128, kv_heads=1, head_dim=576, hidden_size=7168),
    "compressed": _like("DeepseekV4ForCausalLM", Attention(5, compressed=CompressedAttention(2, 1, 128, 512, 128)),
                        layers=5, kv_heads=1, head_dim=512),
    "linear": _like("Qwen3_5ForConditionalGeneration", Attention(16, None, 40_000_000), layers=64, kv_heads=4,
                    head_dim=256),
    "internlm-with-bias": internlm_7b(),
    "workspace-0.1.0": internlm_workspace(is_w4=True),
    "workspace-0.0.14": internlm_workspace(is_w4=False, version="0.0.14"),
}  # fmt: skip


@pytest.mark.parametrize("name", [*ON_DISK, *VALUES])
def test_a_plan_is_as_reviewed(tmp_path: Path, name: str, reviewed: Reviewed) -> None:
    artifact = VALUES[name] if name in VALUES else read_artifact(ON_DISK[name](tmp_path))
    parts = (f"== {wish}\n{_plan(artifact, wanted)}" for wish, wanted in WISHES.items())

    reviewed("\n".join(parts), GOLDEN / f"{name}.txt")


HERE = Gpu("NVIDIA H200", 143_771 * MIB, 600 * MIB, "9.0", 4800, 20_000 * MIB, is_here=True)
FULLER = dataclasses.replace(HERE, used_bytes=100_000 * MIB)


def test_the_rarer_wishes_are_planned_as_reviewed(tmp_path: Path, reviewed: Reviewed) -> None:
    artifact = read_artifact(_llama_8b(tmp_path))
    seen = MeasuredOverhead("A10", "0.18.0", "turbomind", shape_of(artifact), 1, 4000, 17_000 * MIB, 17_900 * MIB,
                            "2026-11-27")  # fmt: skip
    wishes = {
        "a share": PlanRequest(gpu="A10", cache_max_entry_count=0.37, session_len=1000),
        "a share that is too small": PlanRequest(gpu="A100-80G", cache_max_entry_count=0.002, max_batch_size=3),
        "a share that leaves too little": PlanRequest(gpu="A10", cache_max_entry_count=0.99),
        "a share without a GPU": PlanRequest(cache_max_entry_count=0.37),
        "the GPU here": PlanRequest(here=(HERE,)),
        "two of the three GPUs here": PlanRequest(here=(HERE, FULLER, HERE), tensor_parallel=2),
        "more than are here": PlanRequest(here=(HERE,), tensor_parallel=2),
        "a name and a parser": PlanRequest(model_name="My Model", reasoning_parser="default", trust_remote_code=True),
        "another name of a parser": PlanRequest(reasoning_parser="nonsense"),
        "as measured": PlanRequest(gpu="A10", measured=(seen, dataclasses.replace(seen, step_tokens=100))),
        "as measured on another": PlanRequest(gpu="A10", measured=(dataclasses.replace(seen, gpu="A100-40G"),)),
        "sessions beyond the model's": PlanRequest(gpu="H200", session_len=200_000, max_batch_size=1),
        "three GPUs": PlanRequest(tensor_parallel=3),
        "sixteen GPUs": PlanRequest(gpu="A10", tensor_parallel=16),
        "the CPU": PlanRequest(serving_engine="cpu", session_len=1234),
    }
    parts = (f"== {wish}\n{_plan(artifact, wanted)}" for wish, wanted in wishes.items())

    reviewed("\n".join(parts), GOLDEN / "rarer-wishes.txt")


def test_a_number_of_sequences_is_planned_as_reviewed(reviewed: Reviewed) -> None:
    """Up to 0.0.14 it is no share."""
    wishes = {
        "fewer than sessions": PlanRequest(gpu="A10", cache_max_entry_count=5.0),
        "more than sessions": PlanRequest(gpu="A100-80G", cache_max_entry_count=20.0),
        "without a GPU": PlanRequest(cache_max_entry_count=3.0),
        "a share": PlanRequest(gpu="A10", cache_max_entry_count=0.5),
        "half a session more": PlanRequest(cache_max_entry_count=2.5),
    }
    parts = (f"== {wish}\n{_plan(VALUES['workspace-0.0.14'], wanted)}" for wish, wanted in wishes.items())

    reviewed("\n".join(parts), GOLDEN / "sequences.txt")


def test_what_memory_takes_in_every_version_is_as_reviewed(reviewed: Reviewed) -> None:
    """On an A100 of 40 GB."""
    gpu = find_gpu("A100-40G")
    padded = dataclasses.replace(
        internlm_7b(is_w4=True).tensors, feed_forward=(FeedForward(11008, 32 * 3 * 11008 * 4096),)
    )
    models = {
        "fp16": internlm_7b(),
        "W4": dataclasses.replace(internlm_7b(is_w4=True), tensors=padded),
        "tied, 8 KV heads": dataclasses.replace(internlm_7b(), tied_embeddings=True, kv_heads=2),
        "heads of 72": dataclasses.replace(internlm_7b(), head_dim=72),
        "latent": VALUES["latent-folded"],
        "linear": VALUES["linear"],
    }
    parts = (
        f"== {name}, {ranks} GPUs, KV {kv}\n"
        + _by_version(lambda version, m=model, r=ranks, k=kv: _memory(Memory.of(m, (version, "turbomind"), r, k, gpu)))
        for name, model in models.items()
        for ranks, kv in ((1, "none"), (2, "int4"), (4, "int8"))
    )

    reviewed("\n".join(parts), GOLDEN / "memory.txt")


def _by_version(tell: Callable[[str], str]) -> str:
    """A line for all versions, one after the other, of which it tells the same."""
    groups = [(told, [*versions]) for told, versions in itertools.groupby(lmdeploy.VERSIONS, tell)]
    return "".join(f"{versions[0]} to {versions[-1]}: {told}\n" for told, versions in groups)


def _memory(memory: Memory) -> str:
    needed = memory.needed_bytes(1000, 3)
    share = memory.share(1000, 3)
    found = (
        *(memory.weights_bytes, memory.token_bytes, memory.sequence_bytes, memory.block_tokens, needed, share),
        *(memory.pool_bytes(share, 1000, 3), memory.capacity_tokens(needed, 3), memory.available_bytes),
        *(memory.largest_session_len(100_000, 3), memory.largest_batch(1000), memory.overhead.loading_bytes),
        *dataclasses.astuple(memory.overhead.terms(5000)),
    )
    return " ".join(map(str, found))


def test_what_each_version_takes_is_as_reviewed(reviewed: Reviewed) -> None:
    """Its flags, the numbers of its KV policies, the kernels in its wheels."""
    capabilities = (6.1, 7.0, 7.5, 8.0, 8.6, 8.9, 9.0, 10.0, 12.0)

    def tell(version: str) -> str:
        return (
            f"{lmdeploy.pool_meaning(version)} {lmdeploy.default_pool(version)} {lmdeploy.block_tokens(version)}"
            f" KV {[lmdeploy.quant_policy(version, kv) for kv in ('none', 'int8', 'int4')]}"
            f" kernels {[one for one in capabilities if lmdeploy.has_kernels(version, one)]}"
            f" 4 bits from {lmdeploy.smallest_capability_for_4_bits(version)}"
            f" fp8 from {lmdeploy.smallest_capability_for_fp8(version)} base {lmdeploy.legacy_base(version)}"
            f" {' '.join(_is_so(version))}"
        )

    reviewed(_by_version(tell), GOLDEN / "versions.txt")


def _is_so(version: str) -> Iterable[str]:
    asked = (
        lmdeploy.asks_before_remote_code, lmdeploy.splits_vocabulary, lmdeploy.has_static_int8,
        lmdeploy.wants_spare_block, lmdeploy.allocates_pool_in_slabs, lmdeploy.folds_latent_attention,
        lmdeploy.packs_sparse_attention, lmdeploy.pads_feed_forward, lmdeploy.pads_feed_forward_for_kernels,
        lmdeploy.reads_context_fmha, lmdeploy.goes_with_gradio_6, lmdeploy.has_wheel_for_python_3_9,
        lmdeploy.registers_windows, lmdeploy.flags_replace_ini,
    )  # fmt: skip
    return (one.__name__ for one in asked if one(version))


def _plan(artifact: Artifact, wanted: PlanRequest) -> str:
    try:
        plan = plan_serving(artifact, wanted)
    except DeployError as error:
        return f"{type(error).__name__}: {error}; {error.hint}\n".replace(str(artifact.root), "MODEL")
    argv = (*plan.argv[:MODEL_AT], "MODEL", *plan.argv[MODEL_AT + 1 :])
    told = {
        **{name: value for name, value in dataclasses.asdict(plan).items() if name not in _TOLD_OTHERWISE},
        "argv": " ".join(argv),
        "gpu": plan.gpu and plan.gpu.name,
        "extrapolation": extrapolation(artifact, plan, None),
    }
    lines = [f"{name}: {json.dumps(value)}" for name, value in told.items()]
    lines += [f"note: {note}" for note in plan.notes if " has the advisories " not in note]  # they come every month
    lines += [f"instead: {json.dumps(dataclasses.astuple(one))}" for one in plan.alternatives]
    return "\n".join(lines).replace(str(artifact.root), "MODEL").replace(artifact.root.name, "NAME") + "\n"


_TOLD_OTHERWISE = ("argv", "gpu", "notes", "alternatives")
assert {*_TOLD_OTHERWISE} <= {field.name for field in dataclasses.fields(ServingPlan)}


def test_figures_in_the_words_of_another_deploytk_are_not_taken_for_the_users_own() -> None:
    """A bundle keeps the words of the one that made it."""
    artifact = internlm_7b()
    plan = plan_serving(artifact, PlanRequest(gpu="A10"))
    older = dataclasses.replace(plan, vram=dataclasses.replace(plan.vram, overhead_source="the same in other words"))

    assert extrapolation(artifact, older, None) == extrapolation(artifact, plan, None) != ""
