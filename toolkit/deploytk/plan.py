"""Stage 2: Artifact + wishes -> ServingPlan."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from deploytk import lmdeploy
from deploytk.artifact import Artifact, KvPolicy
from deploytk.errors import PlanError, UsageError
from deploytk.gpus import MIB, Gpu, find_gpu
from deploytk.vram import Memory, Vram, kv_bytes_per_token

ServingEngine = Literal["turbomind", "pytorch", "cpu"]

MODEL_AT = 3
"""Where the model's path is in `ServingPlan.argv`."""

PORT = 23333
"""LMDeploy's own default."""

_SESSION_LEN = 8192  # enough for a chat; longer ones are asked for
_BATCH = 8
_PREFILL = 8192  # LMDeploy's default of max_prefill_token_num


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What a user asked for; None means: choose."""

    gpu: str | None = None  # "A100-80G", "RTX 4090", or a size: "24G", "24GiB", "24576MiB"
    session_len: int | None = None  # tokens, prompt and answer together
    max_batch_size: int | None = None
    kv_policy: KvPolicy | None = None
    tensor_parallel: int | None = None
    serving_engine: ServingEngine | None = None
    cache_max_entry_count: float | None = None  # the share itself instead of the sessions that must fit
    model_name: str | None = None  # what /v1/models shows; the directory's name by default
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class ServingPlan:
    """How a model is served. App, image, card and smoke test read this and decide nothing themselves."""

    engine: ServingEngine
    lmdeploy: str | None  # the version to install; None for the CPU engine
    argv: tuple[str, ...]  # starts the engine's API server; the model path is argv[MODEL_AT]
    config_ini: tuple[tuple[str, str], ...]  # keys to set in config.ini (LMDeploy <= 0.1.0 has no flags for them)
    model_name: str
    session_len: int
    max_batch_size: int
    tensor_parallel: int
    kv_policy: KvPolicy
    quant_policy: int  # the number that means kv_policy in that version
    cache_max_entry_count: float  # in the meaning of that version
    kv_bytes_per_token: int  # one GPU
    kv_capacity_tokens: int
    vram: Vram
    gpu: Gpu | None
    fits: bool | None  # None when no GPU is given
    largest_session_len: int | None  # at max_batch_size, on that GPU
    largest_batch: int | None  # at session_len, on that GPU
    notes: tuple[str, ...]  # what a user should know, one sentence each

    def at(self, model: str) -> ServingPlan:
        """The same plan for the same model at another path."""
        argv = (*self.argv[:MODEL_AT], model, *self.argv[MODEL_AT + 1 :])
        return dataclasses.replace(self, argv=argv)


def plan_serving(artifact: Artifact, request: PlanRequest) -> ServingPlan:
    """Decide engine, version, flags, sessions and KV policy, and predict the VRAM.

    Sessions that were asked for are never made smaller: `fits` says whether they fit. Without a wish they
    are at most 8 of 8192 tokens, and as many and as long as fit on the GPU. Raises ArtifactError for a broken
    model, PlanError when nothing can serve it as asked, UsageError for an unknown GPU.
    """
    artifact.require_usable()
    if request.serving_engine == "cpu":
        return _on_cpu(artifact, request)
    version, engine = _engine(artifact, request)
    ranks = _ranks(artifact, request)
    kv_policy, quant_policy = _kv(artifact, request, version)
    memory = Memory.of(artifact, version, ranks, kv_policy, find_gpu(request.gpu) if request.gpu else None)
    session_len, batch = _sessions(artifact, request, memory)
    share = request.cache_max_entry_count or memory.share(session_len, batch)
    pool_bytes = memory.pool_bytes(share, session_len, batch)
    capacity = pool_bytes // memory.block_bytes * memory.block_tokens
    plan = ServingPlan(
        engine=engine,
        lmdeploy=version,
        argv=(),
        config_ini=(),
        model_name=_model_name(artifact, request, version),
        session_len=session_len,
        max_batch_size=batch,
        tensor_parallel=ranks,
        kv_policy=kv_policy,
        quant_policy=quant_policy,
        cache_max_entry_count=share,
        kv_bytes_per_token=memory.token_bytes,
        kv_capacity_tokens=capacity,
        vram=memory.predict(pool_bytes),
        gpu=memory.gpu,
        fits=memory.fits(share, session_len, batch, pool_bytes),
        largest_session_len=memory.largest_session_len(artifact.session_len, batch),
        largest_batch=memory.largest_batch(session_len),
        notes=(*_notes(artifact, request, version, memory), *_shortfall(memory, session_len, batch, pool_bytes)),
    )
    argv, config_ini = _command(artifact, request, plan)
    return dataclasses.replace(plan, argv=argv, config_ini=config_ini)


def _engine(artifact: Artifact, request: PlanRequest) -> tuple[str, lmdeploy.LmdeployEngine]:
    versions = artifact.lmdeploy
    if versions.pin is None or versions.engine is None:
        hint = "deploytk modernize WORKSPACE -o DIR, then plan DIR; or preview it with --engine cpu"
        if artifact.layout == "huggingface":
            hint = "preview it with --engine cpu, or serve another model"
        raise PlanError(f"no LMDeploy serves {artifact.root}: {versions.reason}", hint=hint)
    if request.serving_engine == "pytorch" and artifact.layout == "workspace":
        raise PlanError("the PyTorch engine does not read workspaces", hint="leave --engine out")
    if request.serving_engine == "turbomind" and versions.engine == "pytorch":
        raise PlanError(f"TurboMind does not serve {artifact.root}", hint="leave --engine out: the PyTorch engine does")
    chosen = request.serving_engine or versions.engine
    return versions.pin, "pytorch" if chosen == "pytorch" else "turbomind"


def _ranks(artifact: Artifact, request: PlanRequest) -> int:
    ranks = request.tensor_parallel or artifact.tensor_parallel
    if artifact.layout == "workspace" and ranks != artifact.tensor_parallel:
        raise PlanError(
            f"the workspace was split for {artifact.tensor_parallel} GPU(s), {ranks} asked for",
            hint="leave --tp out, or modernize the workspace: an HF directory can be split anew",
        )
    if artifact.heads % ranks:
        raise PlanError(f"{artifact.heads} heads cannot be split over {ranks} GPUs", hint="take a divisor for --tp")
    return ranks


def _kv(artifact: Artifact, request: PlanRequest, version: str) -> tuple[KvPolicy, int]:
    policy = request.kv_policy or artifact.kv_policy
    number = lmdeploy.quant_policy(version, policy)
    if number is None:
        raise PlanError(
            f"LMDeploy {version} has no {policy} KV cache", hint="take --kv int8 or none, or modernize the workspace"
        )
    is_static = policy == "int8" and lmdeploy.age(version) <= lmdeploy.age("0.3.0")
    if is_static and not any(".past_kv_scale." in file.path for file in artifact.files):
        raise PlanError(
            f"LMDeploy {version} needs past_kv_scale files for an int8 KV cache, and the workspace has none",
            hint="run `lmdeploy lite kv_qparams` of that version, or modernize the workspace and use a newer one",
        )
    return policy, number


def _sessions(artifact: Artifact, request: PlanRequest, memory: Memory) -> tuple[int, int]:
    wanted = request.session_len or min(artifact.session_len, _SESSION_LEN)
    batch = request.max_batch_size or _BATCH
    if request.max_batch_size is None:
        batch = max(1, min(batch, memory.largest_batch(wanted) or batch))
    if request.session_len is None and memory.gpu:
        wanted = min(wanted, memory.largest_session_len(wanted, batch) or wanted)
    return wanted, batch


def _model_name(artifact: Artifact, request: PlanRequest, version: str) -> str:
    if not lmdeploy.has_flag(version, "--model-name"):
        return artifact.chat_template or "llama"  # the server shows its chat template's name
    return _clean_name(artifact, request)


def _clean_name(artifact: Artifact, request: PlanRequest) -> str:
    name = request.model_name or artifact.root.resolve().name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"


def _command(
    artifact: Artifact, request: PlanRequest, plan: ServingPlan
) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """The command line, and what goes into config.ini instead where the version has no flag for it."""
    version = str(plan.lmdeploy)
    share = f"{plan.cache_max_entry_count:g}"
    settings = {
        "session_len": str(plan.session_len),
        "max_batch_size": str(plan.max_batch_size),
        "cache_max_entry_count": share,
        "quant_policy": str(plan.quant_policy),
    }
    start = ("lmdeploy", "serve", "api_server", str(artifact.root))
    if not lmdeploy.has_flag(version, "--session-len"):
        return (*start, "--server_port", str(PORT), "--tp", str(plan.tensor_parallel)), tuple(settings.items())
    flags = {"--server-port": str(PORT), "--backend": plan.engine, "--tp": str(plan.tensor_parallel)}
    if lmdeploy.has_flag(version, "--model-name"):
        flags["--model-name"] = plan.model_name
    flags |= {f"--{name.replace('_', '-')}": value for name, value in settings.items()}
    if artifact.layout == "huggingface" and artifact.weight_format in ("awq", "gptq"):
        flags["--model-format"] = artifact.weight_format
    if plan.kv_capacity_tokens < _PREFILL and lmdeploy.has_flag(version, "--max-prefill-token-num"):
        flags["--max-prefill-token-num"] = str(min(plan.session_len, plan.kv_capacity_tokens))
    trusts = request.trust_remote_code and lmdeploy.has_flag(version, "--trust-remote-code")
    parts = [part for flag in flags.items() for part in flag]
    return (*start, *parts, *(("--trust-remote-code",) if trusts else ())), ()


def _on_cpu(artifact: Artifact, request: PlanRequest) -> ServingPlan:
    """A preview: no VRAM, one conversation at a time, the cache never quantized."""
    if request.kv_policy not in (None, "none"):
        raise UsageError("the CPU engine does not quantize the KV cache", hint="leave --kv out, or --engine cpu")
    session_len = min(request.session_len or _SESSION_LEN, artifact.session_len)
    name = _clean_name(artifact, request)
    start = ("python", "-m", "deploytk.cpu_engine", str(artifact.root), "--server-port", str(PORT))
    return ServingPlan(
        engine="cpu",
        lmdeploy=None,
        argv=(*start, "--model-name", name, "--session-len", str(session_len)),
        config_ini=(),
        model_name=name,
        session_len=session_len,
        max_batch_size=1,
        tensor_parallel=1,
        kv_policy="none",
        quant_policy=0,
        cache_max_entry_count=0.0,
        kv_bytes_per_token=kv_bytes_per_token(artifact, "none", lmdeploy.NEWEST, 1),
        kv_capacity_tokens=session_len,
        vram=Vram(0, 0, 0, 0, 0),
        gpu=None,
        fits=None,
        largest_session_len=None,
        largest_batch=None,
        notes=("the CPU engine is for previews: it answers the same, but slowly",),
    )


def _notes(artifact: Artifact, request: PlanRequest, version: str, memory: Memory) -> Iterator[str]:
    if memory.gpu is None:
        yield (
            "no --gpu given: the KV pool is what the sessions need, cache_max_entry_count is LMDeploy's default, "
            "which takes far more"
        )
    elif not memory.gpu.name.startswith(memory.overhead.gpu):
        yield f"the overhead is measured on another GPU ({memory.overhead.gpu}): {memory.overhead.source}"
    if memory.gpu and memory.gpu.capability:
        yield from _kernel_notes(artifact, version, memory.gpu.name, memory.gpu.capability)
    if artifact.chat_template is None:
        yield "the model has no chat template: chat requests get a plain concatenation"
    has_code = artifact.layout == "huggingface" and any(file.path.endswith(".py") for file in artifact.files)
    if has_code and lmdeploy.has_flag(version, "--trust-remote-code") and not request.trust_remote_code:
        yield "the model brings Python code, which LMDeploy runs only with --trust-remote-code; read it first"
    if artifact.config_format == "ini" and lmdeploy.has_flag(version, "--quant-policy"):
        yield f"LMDeploy {version} ignores the settings in config.ini: the flags repeat them"


def _shortfall(memory: Memory, session_len: int, batch: int, pool_bytes: int) -> Iterator[str]:
    if memory.gpu is None or memory.room_bytes is None:
        return
    needed = memory.needed_bytes(session_len, batch)
    if needed > memory.room_bytes:
        lack = (needed - memory.room_bytes) // MIB
        yield f"{lack} MiB are missing on {memory.gpu.name} for {batch} sessions of {session_len} tokens"
    elif needed > pool_bytes:
        yield f"the KV pool holds fewer than {batch} sessions of {session_len} tokens: raise cache_max_entry_count"


def _kernel_notes(artifact: Artifact, version: str, gpu: str, capability: float) -> Iterator[str]:
    """What that GPU lacks for this model in this version: the lists of compiled kernels in LMDeploy's CMakeLists."""
    smallest = 7.0 if lmdeploy.age(version) >= lmdeploy.age("0.6.0") else 8.0
    if artifact.weight_format in ("awq", "gptq") and capability < smallest:
        yield f"4-bit kernels of LMDeploy {version} need compute capability {smallest}, {gpu} has {capability}"
    if capability >= 8.9 and lmdeploy.age(version) < lmdeploy.age("0.4.0"):
        yield f"LMDeploy {version} has no kernels for compute capability {capability} ({gpu})"
    if capability < 8.0 and artifact.weight_dtype == "bfloat16":
        yield f"{gpu} has no bfloat16: LMDeploy converts the weights to float16"
