"""What a user should know about a plan, one sentence each."""

from __future__ import annotations

from collections.abc import Iterator

from deploytk import lmdeploy
from deploytk.artifact import Artifact, security_problems
from deploytk.artifact.workspace_rope import logn_beyond
from deploytk.hardware.catalogue import MIB, Gpu
from deploytk.plan.memory import Memory
from deploytk.plan.value import PlanRequest, ServingPlan


def about_model(artifact: Artifact, plan: ServingPlan, request: PlanRequest) -> Iterator[str]:
    """What the model lacks or needs in the version that serves it."""
    version = str(plan.lmdeploy)
    yield from artifact.lmdeploy.needs
    for problem in security_problems(artifact, plan.lmdeploy):
        yield f"{problem.message}; {problem.hint}"
    if plan.engine == "pytorch" and artifact.lmdeploy.engine == "pytorch" and ";" in artifact.lmdeploy.reason:
        yield artifact.lmdeploy.reason
    if artifact.chat_template is None:
        yield "the model has no chat template: chat requests get a plain concatenation"
    has_code = artifact.layout == "huggingface" and any(file.path.endswith(".py") for file in artifact.files)
    if has_code and lmdeploy.has_flag(version, "--trust-remote-code") and not request.trust_remote_code:
        yield "the model brings Python code, which LMDeploy runs only with --trust-remote-code; read it first"
    runs_code = request.trust_remote_code or not lmdeploy.asks_before_remote_code(version)
    if artifact.remote_code and runs_code:
        asked = "you trust it" if request.trust_remote_code else "unasked, so that nobody starts it for you"
        yield f"LMDeploy {version} runs the code that {artifact.remote_code[0]} names (auto_map): {asked}"
    if artifact.config_format == "ini" and lmdeploy.has_flag(version, "--quant-policy"):
        yield f"LMDeploy {version} ignores the settings in config.ini: the flags repeat them"
        limit = logn_beyond(artifact)
        if limit is not None and lmdeploy.flags_replace_ini(version):
            yield (
                f"use_logn_attn in config.ini has no flag: LMDeploy {version} answers without it, which differs "
                f"from what was converted beyond {limit} tokens"
            )
    if plan.needed_environment():
        yield "NCCL_WIN_ENABLE=0, as without it GPUs that share a model gave wrong tokens and hung (NCCL 2.28.9)"
    if plan.session_len > artifact.session_len:
        yield f"the model was made for {artifact.session_len} tokens: answers beyond them may be poor"
    if plan.kv_policy != "none" and artifact.head_dim != 128:
        yield (
            "LMDeploy documents a quantized KV cache for heads of 128 values alone, "
            f"this model has {artifact.head_dim}: check its answers with deploytk smoke"
        )


def about_memory(artifact: Artifact, plan: ServingPlan, memory: Memory, request: PlanRequest) -> Iterator[str]:
    """Where the VRAM figures are extrapolated, what is missing and what would fit."""
    ground = memory.overhead.ground
    if memory.gpu is None:
        yield _without_gpu(memory.version, request)
    elif not memory.overhead.is_measured_on(memory.gpu):
        yield f"the overhead is measured on another GPU ({ground.gpus[0]}): {memory.overhead.source}"
    elif memory.overhead.is_own:
        yield f"the overhead is {memory.overhead.source}"
    elif ground.lmdeploy != memory.version:
        yield f"the overhead is measured with another version: {memory.overhead.source}"
    if memory.gpu and memory.gpu.is_here:
        yield _of_this_machine(memory.gpu, plan.tensor_parallel, len(request.here))
    if not lmdeploy.is_overhead_measured(memory.version) and not memory.overhead.is_own:
        yield f"the overhead of LMDeploy {memory.version} has not been measured: that of {ground.lmdeploy} is taken"
    if plan.engine == "pytorch":
        yield "the overhead is measured with TurboMind, the PyTorch engine may take more"
    if memory.sequence_bytes:
        size = -(-memory.sequence_bytes // MIB)
        yield f"every session takes {size} MiB beside its tokens, however short it is: the state of its attention"
    if memory.window_tokens is not None and plan.session_len > memory.window_tokens:
        window = memory.window_tokens
        yield f"the PyTorch engine forgets what is more than {window} tokens back (sliding_window), in all layers"
    if memory.gpu:
        yield from _shortfall(artifact, plan, memory, memory.gpu)
        if memory.gpu.capability:
            yield from _kernels(artifact, str(plan.lmdeploy), memory.gpu.name, memory.gpu.capability)


def _without_gpu(version: str, request: PlanRequest) -> str:
    if lmdeploy.pool_meaning(version) == "sequences":
        return "no --gpu given: whether it fits is not known"
    if request.cache_max_entry_count is not None:
        return "no --gpu given: the KV pool is what the sessions need, not the share of a GPU that was asked for"
    return (
        "no --gpu given: the KV pool is what the sessions need, cache_max_entry_count is LMDeploy's default, "
        "which takes far more"
    )


def _of_this_machine(gpu: Gpu, ranks: int, visible: int) -> str:
    shown = f"{visible} are shown" if visible > 1 else "the one that is shown"
    one = "the one with least to spare of the "
    which = f"{one}{ranks} {gpu.name} here" if ranks > 1 else f"the {gpu.name} here"
    free, total = gpu.usable_bytes // MIB, gpu.total_bytes // MIB
    return f"no --gpu given: planned for {which} ({shown}), of which {free:,} of {total:,} MiB are free now"


def _shortfall(artifact: Artifact, plan: ServingPlan, memory: Memory, gpu: Gpu) -> Iterator[str]:
    needed = memory.needed_bytes(plan.session_len, plan.max_batch_size)
    missing = needed - (memory.available_bytes or 0)
    if missing > 0:
        lack = -(-missing // MIB)
        yield f"{lack} MiB are missing on {gpu.name} for {plan.sessions}; {_what_fits(artifact, plan)}"
    elif needed > plan.vram.kv_pool_bytes:
        yield f"the KV pool holds fewer than {plan.sessions}: raise cache_max_entry_count"
    elif plan.vram.total_bytes > gpu.usable_bytes:
        lack = -(-(plan.vram.total_bytes - gpu.usable_bytes) // MIB)
        yield f"the KV pool leaves {lack} MiB too little for what is taken after it: lower cache_max_entry_count"


def _what_fits(artifact: Artifact, plan: ServingPlan) -> str:
    if plan.largest_batch:
        return f"{plan.largest_batch} of them would fit"
    if plan.largest_session_len:
        return f"sessions of {plan.largest_session_len} tokens would fit"
    others = ["more of them (--tp)"] if artifact.layout == "huggingface" else []
    others += [] if artifact.is_quantized else ["4-bit weights"]
    others += ["a smaller batch"] if plan.max_batch_size > 1 else []
    return f"take {' or '.join(['a larger GPU', *others])}"


def _kernels(artifact: Artifact, version: str, gpu: str, capability: float) -> Iterator[str]:
    """What that GPU lacks for this model in this version."""
    smallest = lmdeploy.smallest_capability_for_4_bits(version)
    if artifact.weight_format in ("awq", "gptq") and capability < smallest:
        yield f"4-bit kernels of LMDeploy {version} need compute capability {smallest}, {gpu} has {capability}"
    smallest = lmdeploy.smallest_capability_for_fp8(version)
    if artifact.weight_format == "fp8" and capability < smallest:
        yield f"fp8 weights on LMDeploy {version} need compute capability {smallest}, {gpu} has {capability}"
    if capability < 7.0:
        yield f"LMDeploy needs compute capability 7.0, {gpu} has {capability}"
    elif not lmdeploy.has_kernels(version, capability):
        yield f"LMDeploy {version} was built without kernels for compute capability {capability} ({gpu})"
    if capability < 8.0 and artifact.weight_dtype == "bfloat16":
        yield f"{gpu} has no bfloat16: LMDeploy converts the weights to float16"
