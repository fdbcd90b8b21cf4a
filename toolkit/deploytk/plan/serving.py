"""Stage 2: Artifact + wishes -> ServingPlan."""

from __future__ import annotations

import dataclasses

from deploytk import lmdeploy
from deploytk.artifact import Artifact, KvPolicy
from deploytk.base.errors import PlanError, UsageError
from deploytk.base.names import slug
from deploytk.hardware.catalogue import Gpu, find_gpu
from deploytk.plan.alternatives import find_alternatives
from deploytk.plan.api import api_features
from deploytk.plan.caveats import about_memory, about_model
from deploytk.plan.kv import kv_bytes_per_token
from deploytk.plan.measured import nearest, shape_of
from deploytk.plan.memory import Memory, Vram, step_tokens
from deploytk.plan.overhead import extrapolated, find_overhead
from deploytk.plan.speed import decode_bound
from deploytk.plan.value import PlanRequest, ServingPlan, template_name

_SESSION_LEN = 8192  # enough for a chat; longer ones are asked for
_LEAST_SESSION_LEN = 256  # a shorter one holds no conversation
_BATCH = 8
_MOST_SESSIONS = 1e6
_OWN = "by your own smoke test (deploytk calibrate)"  # how the source ends of an overhead that was measured here


def plan_serving(artifact: Artifact, request: PlanRequest) -> ServingPlan:
    """Decide engine, version, flags, sessions and KV policy, and predict the VRAM.

    Sessions that were asked for are never made smaller: `fits` says whether they fit, and `alternatives` what would.
    Without a wish they are at most 8 of 8192 tokens, and as many as fit on the GPU; where not one does, one as long as
    fits. Raises ArtifactError for a broken model, PlanError when nothing can serve it as asked, UsageError for an
    unknown GPU.
    """
    artifact.require_plannable()
    _require_sense(request)
    if request.serving_engine == "cpu":
        return _on_cpu(artifact, request)
    plan = _plan(artifact, request)
    if plan.fits is not False:
        return plan
    return dataclasses.replace(plan, alternatives=tuple(find_alternatives(artifact, request, plan, _plan)))


def extrapolation(artifact: Artifact, plan: ServingPlan, version: str | None) -> str:
    """Why the VRAM of `plan` does not rest on measured servers of its kind, "" where it does.

    `version` is that of the LMDeploy that runs, the planned one with None.
    """
    if plan.lmdeploy is None or plan.gpu is None:
        return "the plan is for no GPU"
    if plan.engine != "turbomind":
        return "TurboMind was measured, not the PyTorch engine"
    if version not in (None, plan.lmdeploy):
        return f"LMDeploy {version} runs, {plan.lmdeploy} was planned"
    overhead = find_overhead(plan.lmdeploy, artifact, plan.tensor_parallel)
    if plan.vram.overhead_source.endswith(_OWN):
        return ""
    if not overhead.is_measured_on(plan.gpu):
        return f"{', '.join(overhead.ground.gpus)} were measured, not {plan.gpu.name}"
    tokens = step_tokens(plan.session_len, plan.max_batch_size)
    return extrapolated(overhead, artifact, plan.lmdeploy, plan.tensor_parallel, tokens)


def _plan(artifact: Artifact, request: PlanRequest) -> ServingPlan:
    version, engine = _engine(artifact, request)
    ranks = _ranks(artifact, request)
    kv_policy, quant_policy = _kv(artifact, request, version)
    _require_cache(artifact, kv_policy, engine)
    memory = Memory.of(artifact, (version, engine), ranks, kv_policy, _gpu(request, ranks))
    memory = _as_measured(memory, artifact, request, (engine, ranks))
    session_len, batch = _sessions(artifact, request, memory)
    memory = dataclasses.replace(memory, step_tokens=step_tokens(session_len, batch))
    memory = _as_measured(memory, artifact, request, (engine, ranks))
    share = _share(request, version) or memory.share(session_len, batch)
    pool_bytes = memory.pool_bytes(share, session_len, batch)
    capacity = memory.capacity_tokens(pool_bytes, batch)
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
        notes=(),
        alternatives=(),
        features=api_features(artifact, version, engine),
        decode_bound=decode_bound(artifact, memory, engine, ranks, session_len),
    )
    trusts_code = request.trust_remote_code and bool(artifact.remote_code)
    parser = _reasoning_parser(request, version)
    argv, config_ini = plan.command(artifact, trusts_remote_code=trusts_code, reasoning_parser=parser)
    notes = (*about_memory(artifact, plan, memory, request), *about_model(artifact, plan, request))
    environment = plan.needed_environment()
    return dataclasses.replace(plan, argv=argv, config_ini=config_ini, environment=environment, notes=notes)


def _engine(artifact: Artifact, request: PlanRequest) -> tuple[str, lmdeploy.LmdeployEngine]:
    versions, engine = artifact.lmdeploy, artifact.lmdeploy.engine
    pin = versions.pin
    if pin is None or engine is None:
        hint = "deploytk modernize WORKSPACE -o DIR, then plan DIR; or preview it with --engine cpu"
        if artifact.layout == "huggingface":
            hint = "preview it with --engine cpu, or serve another model"
        raise PlanError(f"no LMDeploy serves {artifact.root}: {versions.reason}", hint=hint)
    if request.serving_engine == "pytorch" and artifact.layout == "workspace":
        raise PlanError("the PyTorch engine does not read workspaces", hint="leave --engine out")
    if request.serving_engine == "turbomind" and engine == "pytorch":
        raise PlanError(f"TurboMind does not serve {artifact.root}", hint="leave --engine out: the PyTorch engine does")
    if request.serving_engine == "pytorch" and artifact.facts:
        versions = lmdeploy.support(artifact.facts, ("pytorch",))
        if versions.pin is None:
            raise PlanError(f"the PyTorch engine does not serve {artifact.root}", hint="leave --engine out")
        return versions.pin, "pytorch"
    return pin, engine


def _ranks(artifact: Artifact, request: PlanRequest) -> int:
    ranks = request.tensor_parallel or artifact.tensor_parallel
    if artifact.layout == "workspace" and ranks != artifact.tensor_parallel:
        raise PlanError(
            f"the workspace is split for --tp {artifact.tensor_parallel}, not for --tp {ranks}",
            hint="leave --tp out, or modernize the workspace: an HF directory can be split anew",
        )
    if artifact.heads % ranks:
        raise PlanError(f"{artifact.heads} heads cannot be split over {ranks} GPUs", hint="take a divisor for --tp")
    # Key/value heads are split as far as there are enough, and repeated beyond.
    if max(artifact.kv_heads, ranks) % min(artifact.kv_heads, ranks):
        raise PlanError(
            f"{artifact.kv_heads} key/value heads cannot be split over {ranks} GPUs",
            hint="take a divisor or a multiple for --tp",
        )
    return ranks


def _gpu(request: PlanRequest, ranks: int) -> Gpu | None:
    """The one that is named, else the one with least to spare of those here that would share the model."""
    if request.gpu is not None:
        return find_gpu(request.gpu) if isinstance(request.gpu, str) else request.gpu
    if not request.here:
        return None
    if len(request.here) < ranks:
        raise PlanError(
            f"{ranks} GPUs are asked for, this machine shows {len(request.here)}",
            hint="see CUDA_VISIBLE_DEVICES, of a split GPU one slice is shown; or take a smaller --tp, or name a --gpu",
        )
    return min(request.here[:ranks], key=lambda gpu: gpu.usable_bytes)


def _as_measured(
    memory: Memory, artifact: Artifact, request: PlanRequest, run_by: tuple[lmdeploy.LmdeployEngine, int]
) -> Memory:
    """With the overhead that a smoke test found of this very server, where one did."""
    engine, ranks = run_by
    if memory.gpu is None:
        return memory
    server = (memory.gpu.name, memory.version, engine, shape_of(artifact), ranks)
    found = nearest(request.measured, server, memory.step_tokens)
    if found is None:
        return memory
    overhead = find_overhead(memory.version, artifact, ranks).scaled_to(
        found.before_pool_bytes - memory.weights_bytes,
        found.beside_pool_bytes - memory.weights_bytes,
        found.step_tokens,
        f"measured on {found.gpu} on {found.measured_on}, {_OWN}",
    )
    return dataclasses.replace(memory, overhead=overhead)


def _kv(artifact: Artifact, request: PlanRequest, version: str) -> tuple[KvPolicy, int]:
    policy = request.kv_policy or artifact.kv_policy
    number = lmdeploy.quant_policy(version, policy)
    if number is None:
        raise PlanError(
            f"LMDeploy {version} has no {policy} KV cache", hint="take --kv int8 or none, or modernize the workspace"
        )
    is_static = policy == "int8" and lmdeploy.has_static_int8(version)
    if is_static and not any(".past_kv_scale." in file.path for file in artifact.files):
        raise PlanError(
            f"LMDeploy {version} needs past_kv_scale files for an int8 KV cache, and the workspace has none",
            hint="run `lmdeploy lite kv_qparams` of that version, or modernize the workspace and use a newer one",
        )
    return policy, number


def _require_cache(artifact: Artifact, policy: KvPolicy, engine: lmdeploy.LmdeployEngine) -> None:
    """DeepSeek's sparse and compressed caches have a form of their own: "Sparse MLA does not support quant_policy"."""
    latent = artifact.attention.latent
    has_own_form = artifact.attention.compressed is not None or (latent is not None and latent.index_dim > 0)
    if policy != "none" and has_own_form and engine == "pytorch":
        raise PlanError(f"the cache of {artifact.architecture} cannot be quantized to {policy}", hint="leave --kv out")


def _reasoning_parser(request: PlanRequest, version: str) -> str | None:
    parser, known = request.reasoning_parser, lmdeploy.reasoning_parsers(version)
    if parser is None or parser in known:
        return parser
    if parser not in lmdeploy.REASONING_PARSERS:
        hint = f"take one of {', '.join(known or lmdeploy.REASONING_PARSERS)}"
        raise UsageError(f"LMDeploy has no reasoning parser {parser!r}", hint=hint)
    hint = f"take one of {', '.join(known)}" if known else "leave --reasoning-parser out, or modernize the workspace"
    raise PlanError(f"LMDeploy {version} has no reasoning parser {parser!r}", hint=hint)


def _require_sense(request: PlanRequest) -> None:
    for option, number in (
        ("--session-len", request.session_len),
        ("--max-batch-size", request.max_batch_size),
        ("--tp", request.tensor_parallel),
    ):
        if number is not None and number < 1:
            raise UsageError(f"{option} {number} is less than 1", hint="take a whole number from 1 on")


def _share(request: PlanRequest, version: str) -> float | None:
    """The share that was asked for. From 0.15.0 on, 1 or more kills the server; before, it meant blocks in some."""
    share = request.cache_max_entry_count
    if share is None:
        return None
    if lmdeploy.pool_meaning(version) == "sequences":
        if not 1 <= share < _MOST_SESSIONS or not share.is_integer():
            hint = f"in LMDeploy {version} it is a number of sessions, such as {_BATCH}"
            raise UsageError(f"cache_max_entry_count {share:g} is no number of sessions", hint=hint)
        return share
    if not 0 < share < 1:
        raise UsageError(
            f"cache_max_entry_count {share:g} is not between 0 and 1", hint="it is a share of memory, such as 0.5"
        )
    return share


def _sessions(artifact: Artifact, request: PlanRequest, memory: Memory) -> tuple[int, int]:
    wanted = request.session_len or min(artifact.session_len, _SESSION_LEN)
    batch = request.max_batch_size or _BATCH
    if request.max_batch_size is None:
        largest = memory.largest_batch(wanted)
        batch = batch if largest is None else max(1, min(batch, largest))
    if request.session_len is None and memory.gpu:
        longest = memory.largest_session_len(wanted, batch) or 0
        wanted = longest if longest >= min(_LEAST_SESSION_LEN, wanted) else wanted
    return wanted, batch


def _model_name(artifact: Artifact, request: PlanRequest, version: str) -> str:
    return template_name(artifact, version) or _clean_name(artifact, request)


def _clean_name(artifact: Artifact, request: PlanRequest) -> str:
    name = request.model_name or artifact.root.resolve().name
    return slug(name)


def _on_cpu(artifact: Artifact, request: PlanRequest) -> ServingPlan:
    """A preview: no VRAM, one conversation at a time, the cache never quantized."""
    if request.kv_policy not in (None, "none"):
        raise UsageError("the CPU engine does not quantize the KV cache", hint="leave --kv out, or --engine cpu")
    session_len = min(request.session_len or _SESSION_LEN, artifact.session_len)
    name = _clean_name(artifact, request)
    plan = ServingPlan(
        engine="cpu",
        lmdeploy=None,
        argv=(),
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
        alternatives=(),
        features=api_features(artifact, None, "cpu"),
    )
    return dataclasses.replace(plan, argv=plan.command(artifact)[0])
