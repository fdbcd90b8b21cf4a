"""Whether a server takes what its plan said, and which part of it was off."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone

from deploytk.artifact import Artifact
from deploytk.hardware.catalogue import MIB, Gpu
from deploytk.plan import MeasuredOverhead, PlanRequest, ServingPlan, extrapolation, plan_serving, shape_of, step_tokens
from deploytk.smoke.correctness import Finding

TOLERANCE_PCT = 2.0
"""How far a prediction may be off that rests on measurements of the same GPU, version and shape."""

CHECK = "VRAM as planned"


@dataclass(frozen=True, slots=True)
class PlannedVram:
    """What the plan of a model says about memory, on one of its GPUs."""

    weights_bytes: int
    kv_pool_bytes: int
    overhead_bytes: int
    kv_bytes_per_token: int
    session_len: int
    max_batch_size: int
    is_quantized: bool
    fp16_weights_bytes: int | None  # what the same model takes unquantized
    before_pool_bytes: int | None = None  # weights and what else is there when the pool is sized
    terms: str = ""  # the named terms of the overhead, in words
    source: str = ""  # whose figures the overhead rests on
    extrapolated: str = ""  # why they are not of the same GPU, version and shape; "" where they are


@dataclass(frozen=True, slots=True)
class Predicted:
    """What the plan said before, for one GPU."""

    weights_bytes: int
    kv_pool_bytes: int
    overhead_bytes: int
    total_bytes: int
    error_pct: float | None  # of the total, against what was measured
    before_pool_bytes: int | None = None
    terms: str = ""
    source: str = ""
    extrapolated: str = ""

    @property
    def term_mib(self) -> dict[str, float]:
        """The named terms of the overhead that are not 0, as the report has them in words."""
        found = re.findall(r"([a-z][a-z ]*) ([\d,]+)(?:, |$)", self.terms)
        return {name: float(size.replace(",", "")) for name, size in found}

    @classmethod
    def of(cls, planned: PlannedVram, used_bytes: int) -> Predicted:
        total = planned.weights_bytes + planned.kv_pool_bytes + planned.overhead_bytes
        return cls(
            weights_bytes=planned.weights_bytes,
            kv_pool_bytes=planned.kv_pool_bytes,
            overhead_bytes=planned.overhead_bytes,
            total_bytes=total,
            error_pct=(total / used_bytes - 1) * 100 if used_bytes > 0 else None,
            before_pool_bytes=planned.before_pool_bytes,
            terms=planned.terms,
            source=planned.source,
            extrapolated=planned.extrapolated,
        )


@dataclass(frozen=True, slots=True)
class Parts:
    """What was measured on one GPU, as far as the engine's log tells it apart; None where it does not."""

    used_bytes: int
    kv_pool_bytes: int | None
    before_pool_bytes: int | None
    where: str = ""  # " on GPU 1", of several


def check_prediction(predicted: Predicted, parts: Parts, error_pct: float, tolerance_pct: float | None) -> Finding:
    """A failure beyond the tolerance; by default only a warning where nothing of the kind was measured before."""
    limit = TOLERANCE_PCT if tolerance_pct is None else tolerance_pct
    said = f"{predicted.total_bytes / MIB:,.0f} MiB planned, {parts.used_bytes / MIB:,.0f} used{parts.where}"
    detail = f"{said} ({error_pct:+.1f} %, {limit:g} % allowed)"
    if abs(error_pct) <= limit:
        return Finding(CHECK, "pass", detail)
    is_certain = tolerance_pct is not None or not predicted.extrapolated
    why = f"; {predicted.extrapolated}" if predicted.extrapolated else ""
    return Finding(CHECK, "fail" if is_certain else "warn", f"{detail}: {_off(predicted, parts)}{why}")


def _off(predicted: Predicted, parts: Parts) -> str:
    """The part that is furthest from its prediction."""
    if parts.kv_pool_bytes is None:
        return "which part is off cannot be told, the engine's log does not say what its pool takes"
    planned = {"the KV pool": predicted.kv_pool_bytes}
    found = {"the KV pool": parts.kv_pool_bytes}
    if parts.before_pool_bytes is None or predicted.before_pool_bytes is None:
        planned["weights and overhead"] = predicted.weights_bytes + predicted.overhead_bytes
        found["weights and overhead"] = parts.used_bytes - parts.kv_pool_bytes
    else:
        planned[_BEFORE], found[_BEFORE] = predicted.before_pool_bytes, parts.before_pool_bytes
        planned[_AFTER] = predicted.total_bytes - predicted.kv_pool_bytes - predicted.before_pool_bytes
        found[_AFTER] = parts.used_bytes - parts.kv_pool_bytes - parts.before_pool_bytes
    worst = max(planned, key=lambda name: abs(planned[name] - found[name]))
    text = f"{worst}: {planned[worst] / MIB:,.0f} MiB planned, {found[worst] / MIB:,.0f} measured"
    return text if worst == "the KV pool" or not predicted.terms else f"{text} (planned: {predicted.terms})"


_BEFORE = "what is there before the KV pool (weights, context, unpacking, gaps, vocabulary, ranks)"
_AFTER = "what comes after the KV pool (warm-up, activations)"


def planned_vram(
    artifact: Artifact,
    plan: ServingPlan,
    gpu: Gpu | None = None,
    measured: tuple[MeasuredOverhead, ...] = (),
    version: str | None = None,
) -> PlannedVram | None:
    """What a plan says about memory on `gpu`, the one it is run on; None for the CPU engine's.

    A bundle can be planned for another GPU, or for none: its pool is a share of what is free here. `version` is that
    of the LMDeploy that really runs.
    """
    if plan.lmdeploy is None:
        return None
    here = plan_on(gpu, artifact, plan, measured) if gpu else plan
    vram, terms = here.vram, here.vram.overhead
    named = {name.removesuffix("_bytes"): getattr(terms, name) for name in terms.__dataclass_fields__}
    return PlannedVram(
        weights_bytes=vram.weights_bytes,
        kv_pool_bytes=vram.kv_pool_bytes,
        overhead_bytes=vram.overhead_bytes,
        kv_bytes_per_token=plan.kv_bytes_per_token,
        session_len=plan.session_len,
        max_batch_size=plan.max_batch_size,
        is_quantized=artifact.is_quantized,
        fp16_weights_bytes=2 * artifact.parameters // plan.tensor_parallel,
        before_pool_bytes=vram.weights_bytes + terms.before_pool_bytes,
        terms=", ".join(f"{name.replace('_', ' ')} {size / MIB:,.0f}" for name, size in named.items() if size),
        source=vram.overhead_source,
        extrapolated=extrapolation(artifact, here, version),
    )


def plan_on(gpu: Gpu, artifact: Artifact, plan: ServingPlan, measured: tuple[MeasuredOverhead, ...]) -> ServingPlan:
    """The same server on that GPU, with the same share of its memory."""
    request = PlanRequest(
        gpu=gpu,
        session_len=plan.session_len,
        max_batch_size=plan.max_batch_size,
        kv_policy=plan.kv_policy,
        tensor_parallel=plan.tensor_parallel,
        serving_engine=plan.engine if plan.engine == "pytorch" else None,
        cache_max_entry_count=plan.cache_max_entry_count,
        measured=measured,
        trust_remote_code=True,  # it runs already
    )
    return plan_serving(artifact, request)


def measured_overhead(
    artifact: Artifact, plan: ServingPlan, gpu: Gpu, version: str | None, parts: Parts
) -> MeasuredOverhead | None:
    """What this server adds to what is known; None where the engine's log does not tell its parts."""
    if parts.kv_pool_bytes is None or parts.before_pool_bytes is None or version is None:
        return None
    return MeasuredOverhead(
        gpu=gpu.name,
        lmdeploy=version,
        engine=plan.engine,
        shape=shape_of(artifact),
        ranks=plan.tensor_parallel,
        step_tokens=step_tokens(plan.session_len, plan.max_batch_size),
        before_pool_bytes=parts.before_pool_bytes,
        beside_pool_bytes=parts.used_bytes - parts.kv_pool_bytes,
        measured_on=datetime.now(timezone.utc).date().isoformat(),
    )
