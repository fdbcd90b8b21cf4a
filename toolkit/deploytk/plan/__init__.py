"""Stage 2: Artifact + wishes -> ServingPlan."""

from deploytk.plan.remote_code import require_trust, require_trust_here
from deploytk.plan.serving import plan_serving
from deploytk.plan.value import MODEL_AT, PORT, Alternative, PlanRequest, ServingEngine, ServingPlan

__all__ = [
    "MODEL_AT",
    "PORT",
    "Alternative",
    "PlanRequest",
    "ServingEngine",
    "ServingPlan",
    "plan_serving",
    "require_trust",
    "require_trust_here",
]
