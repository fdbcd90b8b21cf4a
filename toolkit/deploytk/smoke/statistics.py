"""Percentiles that say how far they can be believed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Samples for a percentile at 99 % confidence: MLPerf Inference, early stopping.
_CERTIFIED_FROM = {"p50": 11, "p75": 24, "p90": 64, "p95": 130, "p99": 662}


@dataclass(frozen=True, slots=True)
class Summary:
    """A distribution; None where there are no samples, never 0."""

    n: int
    mean: float | None
    sd: float | None
    min: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    max: float | None
    uncertified: tuple[str, ...]  # percentiles with too few samples to be believed


def summarize(values: Sequence[float]) -> Summary:
    """Mean, deviation and percentiles (linear interpolation, Hyndman-Fan 7) of the values that are there."""
    ordered = sorted(values)
    uncertified = tuple(name for name, least in _CERTIFIED_FROM.items() if len(ordered) < least and name != "p75")
    if not ordered:
        return Summary(0, None, None, None, None, None, None, None, None, uncertified)
    p50, p90, p95, p99 = (percentile(ordered, share) for share in (50, 90, 95, 99))
    deviation = statistics.stdev(ordered) if len(ordered) > 1 else None
    mean, low, high = statistics.fmean(ordered), ordered[0], ordered[-1]
    return Summary(len(ordered), mean, deviation, low, p50, p90, p95, p99, high, uncertified)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The `share` percent point of values in ascending order."""
    place = (len(ordered) - 1) * share / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
