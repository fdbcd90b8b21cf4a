"""What would fit where a plan does not."""

from __future__ import annotations

import dataclasses
import itertools
import shlex
from collections.abc import Callable, Iterator

from deploytk import lmdeploy
from deploytk.artifact import Artifact, KvPolicy
from deploytk.base.errors import PlanError
from deploytk.hardware.catalogue import larger_gpus
from deploytk.plan.value import Alternative, PlanRequest, ServingPlan

_LEAST_TOKENS = 256  # shorter sessions are no answer
_MOST_GPUS = 8
_GROUP = 128
_W4A16 = ("4-bit weights (W4A16)", "deploytk quantize MODEL -o DIR")
_POLICIES: tuple[KvPolicy, ...] = ("int8", "int4")

Planner = Callable[[Artifact, PlanRequest], ServingPlan]


def find_alternatives(
    artifact: Artifact, request: PlanRequest, plan: ServingPlan, again: Planner
) -> Iterator[Alternative]:
    """A few changes, one at a time, each of which makes the plan fit; `again` plans with the change."""
    sessions = dataclasses.replace(request, session_len=plan.session_len, max_batch_size=plan.max_batch_size)
    four_bits: list[Try] = [(_W4A16, sessions, quantized) for quantized in _four_bits(artifact)]
    kinds: list[list[Try]] = [
        [(*_shorter(plan, sessions), artifact)],
        [(*_fewer(plan, sessions), artifact)],
        *([(*cache, artifact)] for cache in _smaller_cache(plan, sessions)),
        [(*more, artifact) for more in _more_gpus(artifact, plan, sessions)],
        four_bits,
        [(*larger, artifact) for larger in _larger_gpus(plan, sessions)],
    ]
    for tries in kinds:
        found = (alternative for one in tries if (alternative := _if_it_fits(*one, again)))
        yield from itertools.islice(found, 1)


Words = tuple[str, str]  # what changes, and what to type for it
Change = tuple[Words, PlanRequest | None]
Try = tuple[Words, PlanRequest | None, Artifact]


def _shorter(plan: ServingPlan, sessions: PlanRequest) -> Change:
    tokens = plan.largest_session_len or 0
    is_useful = _LEAST_TOKENS <= tokens < plan.session_len
    changed = dataclasses.replace(sessions, session_len=tokens) if is_useful else None
    return ("shorter sessions", f"--session-len {tokens}"), changed


def _fewer(plan: ServingPlan, sessions: PlanRequest) -> Change:
    batch = plan.largest_batch or 0
    changed = dataclasses.replace(sessions, max_batch_size=batch) if 0 < batch < plan.max_batch_size else None
    return ("fewer sessions at once", f"--max-batch-size {batch}"), changed


def _smaller_cache(plan: ServingPlan, sessions: PlanRequest) -> Iterator[Change]:
    int8, int4 = (dataclasses.replace(sessions, kv_policy=policy) for policy in _POLICIES)
    yield ("KV cache in int8", "--kv int8"), int8 if plan.kv_policy == "none" else None
    yield ("KV cache in int4", "--kv int4"), int4 if plan.kv_policy != "int4" else None


def _more_gpus(artifact: Artifact, plan: ServingPlan, sessions: PlanRequest) -> Iterator[Change]:
    """Two, then four ... of the same; a workspace is split already."""
    ranks = plan.tensor_parallel * 2
    while artifact.layout == "huggingface" and ranks <= _MOST_GPUS:
        yield (f"{ranks} of these GPUs", f"--tp {ranks}"), dataclasses.replace(sessions, tensor_parallel=ranks)
        ranks *= 2


def _four_bits(artifact: Artifact) -> Iterator[Artifact]:
    """The same model as `deploytk quantize` would make it, where that is served and its sizes are those of groups."""
    inputs = (artifact.hidden_size, artifact.intermediate_size, artifact.heads * artifact.head_dim)
    if artifact.facts is None or artifact.is_quantized or any(size % _GROUP for size in inputs):
        return
    awq = lmdeploy.QuantizationFacts(method="awq", bits=4, group_size=_GROUP, version="gemm")
    facts = dataclasses.replace(artifact.facts, quantization=awq)
    versions = lmdeploy.support(facts)
    if versions.pin is None:
        return
    sums = artifact.tensors
    scales = sums.linear_bytes // 2 // _GROUP
    tensors = dataclasses.replace(sums, linear_bytes=sums.linear_bytes // 4, scales=scales, scale_bytes=scales * 5 // 2)
    yield dataclasses.replace(
        artifact, weight_format="awq", weight_bits=4, group_size=_GROUP, facts=facts, lmdeploy=versions, tensors=tensors
    )


def _larger_gpus(plan: ServingPlan, sessions: PlanRequest) -> Iterator[Change]:
    for gpu in larger_gpus(plan.gpu) if plan.gpu else ():
        yield ("a larger GPU", f"--gpu {shlex.quote(gpu)}"), dataclasses.replace(sessions, gpu=gpu)


def _if_it_fits(words: Words, changed: PlanRequest | None, artifact: Artifact, again: Planner) -> Alternative | None:
    if changed is None:
        return None
    try:
        plan = again(artifact, changed)
    except PlanError:  # heads that cannot be split so, a cache that the version has not
        return None
    if not plan.fits:
        return None
    return Alternative(*words, plan.max_batch_size, plan.session_len, plan.kv_capacity_tokens)
