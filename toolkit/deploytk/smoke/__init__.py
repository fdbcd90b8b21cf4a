"""Stage 8: Endpoint -> Measurement -> Report."""

from deploytk.smoke.budget import Budget, make_budget, read_budget
from deploytk.smoke.judge import Evidence, judge
from deploytk.smoke.keep import keep
from deploytk.smoke.measure import INTERRUPTED, Measurement, measure
from deploytk.smoke.raw import read_raw, write_raw
from deploytk.smoke.render import markdown, write_report
from deploytk.smoke.report import Report
from deploytk.smoke.run import gather, smoke
from deploytk.smoke.statistics import CERTIFIED_FROM
from deploytk.smoke.workload import Workload

__all__ = [
    "CERTIFIED_FROM",
    "INTERRUPTED",
    "Budget",
    "Evidence",
    "Measurement",
    "Report",
    "Workload",
    "gather",
    "judge",
    "keep",
    "make_budget",
    "markdown",
    "measure",
    "read_budget",
    "read_raw",
    "smoke",
    "write_raw",
    "write_report",
]
