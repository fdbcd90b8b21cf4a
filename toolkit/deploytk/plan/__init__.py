"""Stage 2: Artifact + wishes -> ServingPlan."""

from deploytk.plan.measured import MeasuredOverhead, shape_of
from deploytk.plan.memory import step_tokens
from deploytk.plan.remote_code import (
    code_that_runs,
    refuse_code,
    require_trust,
    require_trust_here,
    require_trusted_plan,
)
from deploytk.plan.serving import extrapolation, plan_serving
from deploytk.plan.speed import DecodeBound
from deploytk.plan.value import MODEL_AT, PORT, Alternative, PlanRequest, ServingPlan

__all__ = [
    "MODEL_AT",
    "PORT",
    "Alternative",
    "DecodeBound",
    "MeasuredOverhead",
    "PlanRequest",
    "ServingEngine",
    "ServingPlan",
    "code_that_runs",
    "extrapolation",
    "plan_serving",
    "refuse_code",
    "require_trust",
    "require_trust_here",
    "require_trusted_plan",
    "shape_of",
    "step_tokens",
]
