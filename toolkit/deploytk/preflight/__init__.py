"""Starts an app as its hub will, and finds what would keep it queueing; waits for one that is hosted."""

from deploytk.preflight.check import PreflightOptions, is_model, preflight, require_passed
from deploytk.preflight.hosted import await_app
from deploytk.preflight.value import Finding, Preflight

__all__ = ["Finding", "Preflight", "PreflightOptions", "await_app", "is_model", "preflight", "require_passed"]
