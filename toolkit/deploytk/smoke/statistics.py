"""Percentiles that say how far they can be believed, and ratios that do."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CERTIFIED_FROM = {"p50": 11, "p90": 64, "p95": 130, "p99": 662}
"""Samples for a percentile at 99 % confidence: MLPerf Inference, early stopping."""

_DOUBT = 0.01
_RESAMPLES = 1000


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
    ci95_p50: tuple[float, float] | None  # of the median, whatever the distribution
    certified: dict[str, float | None]  # what the true percentile does not exceed, at 99 % confidence
    uncertified: tuple[str, ...]  # percentiles with too few samples to be believed


def summarize(values: Sequence[float]) -> Summary:
    """Mean, deviation and percentiles (linear interpolation, Hyndman-Fan 7) of the values that are there."""
    ordered = sorted(values)
    uncertified = tuple(name for name, least in CERTIFIED_FROM.items() if len(ordered) < least)
    certified = {name: certified_percentile(ordered, float(name[1:])) for name in ("p90", "p95", "p99")}
    if not ordered:
        return Summary(0, None, None, None, None, None, None, None, None, None, certified, uncertified)
    p50, p90, p95, p99 = (percentile(ordered, share) for share in (50, 90, 95, 99))
    deviation = statistics.stdev(ordered) if len(ordered) > 1 else None
    mean, low, high = statistics.fmean(ordered), ordered[0], ordered[-1]
    interval = _median_interval(ordered)
    return Summary(len(ordered), mean, deviation, low, p50, p90, p95, p99, high, interval, certified, uncertified)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The `share` percent point of values in ascending order."""
    place = (len(ordered) - 1) * share / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def certified_percentile(ordered: Sequence[float], share: float) -> float | None:
    """What the true percentile does not exceed at 99 % confidence; None with too few samples.

    If at most t of n samples lay above the true percentile with a probability of 1 % or less, the sample with t
    above it is such a bound; t is at least 1. Source: MLPerf Inference, docs/early_stopping.md.
    """
    above = -1
    chance = 0.0
    for count in range(len(ordered) + 1):
        chance += binomial(len(ordered), count, 1 - share / 100)
        if chance > _DOUBT:
            break
        above = count
    return ordered[len(ordered) - above - 1] if above >= 1 else None


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """The confidence interval of the mean of few repetitions (Student's t), None for less than two."""
    if len(values) < 2:
        return None
    half = student_t(len(values) - 1, confidence) * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return mean - half, mean + half


def student_t(freedom: int, confidence: float) -> float:
    """Within so many deviations Student's t lies, on both sides together, with that probability."""
    low, high = 0.0, 1.0
    while _within_t(freedom, high) < confidence:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within_t(freedom, middle) < confidence else (low, middle)
    return high


def median_ratio(rounds: Sequence[tuple[Sequence[float], Sequence[float]]], seed: int = 0) -> Ratio:
    """How B's median compares with A's, from interleaved rounds of (values of A, values of B).

    The ratio is taken within each round, where both met the same machine, and averaged over rounds; its interval
    comes from drawing rounds, and requests within them, again and again (bootstrap, 95 %).
    """
    import numpy

    random = numpy.random.default_rng(seed)
    drawn = numpy.empty((len(rounds), _RESAMPLES))
    points = []
    for row, pair in enumerate(rounds):
        a, b = (numpy.asarray(values, dtype=float) for values in pair)
        points.append(math.log(float(numpy.median(b)) / float(numpy.median(a))))
        draws = [values[random.integers(0, len(values), (_RESAMPLES, len(values)))] for values in (a, b)]
        medians = [numpy.median(draw, axis=1) for draw in draws]
        drawn[row] = numpy.log(medians[1] / medians[0])
    chosen = random.integers(0, len(rounds), (len(rounds), _RESAMPLES))
    means = numpy.take_along_axis(drawn, chosen, axis=0).mean(axis=0)
    low, high = (math.exp(float(numpy.percentile(means, share))) for share in (2.5, 97.5))
    return Ratio(math.exp(statistics.fmean(points)), low, high)


@dataclass(frozen=True, slots=True)
class Ratio:
    """B / A, and where it lies with 95 % confidence."""

    value: float
    low: float
    high: float


def _within_t(freedom: int, deviations: float) -> float:
    """P(|t| <= deviations). Source: Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan(deviations / math.sqrt(freedom))
    is_odd = freedom % 2
    term = total = math.cos(angle) if is_odd else 1.0
    for step in range(2 + is_odd, freedom - 1, 2):
        term *= (step - 1) / step * math.cos(angle) ** 2
        total += term
    if not is_odd:
        return math.sin(angle) * total
    return 2 / math.pi * (angle + (math.sin(angle) * total if freedom > 1 else 0.0))


def _median_interval(ordered: Sequence[float]) -> tuple[float, float] | None:
    """The order statistics between which the true median lies in 95 of 100 cases; None for less than six values."""
    count, below = len(ordered), 0.0
    for place in range(count // 2):
        below += binomial(count, place, 0.5)
        if below > 0.025:
            return (ordered[place - 1], ordered[count - place]) if place else None
    return None


def binomial(n: int, k: int, p: float) -> float:
    """P(k of n), each with probability p."""
    if n == 0:
        return 1.0
    logarithm = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(logarithm + k * math.log(p) + (n - k) * math.log(1 - p))
