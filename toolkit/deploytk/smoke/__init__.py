"""Stage 8: Endpoint -> Measurement -> Report."""

from deploytk.smoke.budget import Budget, make_budget, read_budget
from deploytk.smoke.measure import Measurement, Workload, measure
from deploytk.smoke.render import markdown, write_report
from deploytk.smoke.report import Report, judge
from deploytk.smoke.run import smoke

__all__ = [
    "Budget",
    "Measurement",
    "Report",
    "Workload",
    "judge",
    "make_budget",
    "markdown",
    "measure",
    "read_budget",
    "smoke",
    "write_report",
]
