"""Shows the values of the stages to a person, on stdout."""

from deploytk.display.image import show_image
from deploytk.display.machine import show_checkup, show_demo, show_endpoint
from deploytk.display.measure import show_bench, show_comparison, show_report
from deploytk.display.model import (
    show_artifact,
    show_bundle,
    show_calibration,
    show_exported,
    show_fields,
    show_json,
    show_modernized,
    show_plan,
)
from deploytk.display.quantized import show_quantized
from deploytk.display.release import show_preflight, show_release, show_release_plan
from deploytk.display.scale import show_scaled
from deploytk.display.signing import show_verification
from deploytk.display.workflow import show_summary

__all__ = [
    "show_artifact",
    "show_bench",
    "show_bundle",
    "show_calibration",
    "show_checkup",
    "show_comparison",
    "show_demo",
    "show_endpoint",
    "show_exported",
    "show_fields",
    "show_image",
    "show_json",
    "show_modernized",
    "show_plan",
    "show_preflight",
    "show_quantized",
    "show_release",
    "show_release_plan",
    "show_report",
    "show_scaled",
    "show_summary",
    "show_verification",
]
