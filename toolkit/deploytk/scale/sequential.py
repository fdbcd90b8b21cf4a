"""How long to go on measuring a canary: looks that are counted before, so that looking again is no second chance.

Rounds are measured in turns, and a look judges by all rounds so far. Four looks share the doubt of one test
(Bonferroni): each has an interval of 98.75 % (Student's t over the rounds), so that together they hold with 95 %.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from deploytk.bench.compare import LEAST_EFFECT, Judgement, Rounds
from deploytk.smoke.statistics import binomial, mean_interval

LOOKS = (5, 10, 15, 20)
"""Rounds after which is judged; after the last one nothing more is measured."""

CONFIDENCE = 1 - 0.05 / len(LOOKS)

UNNOTICED_MS = {"ttft_ms": 10.0}
"""What is no change, however many per cent: less than a screen of 60 Hz needs for a picture, 17 ms. From 100 ms on 10 %
are more. Every token pays the time per token, so that there is no such thing for it."""

_LEAST_ROUNDS = 3
_FAILURE_DOUBT = 0.025 / LOOKS[-1]


@dataclass(frozen=True, slots=True)
class Compared:
    """One metric after so many rounds: the new revision's against the old one's."""

    metric: str
    ratio: float | None  # new / old, less is better; None without values
    low: float | None  # where it lies, with CONFIDENCE
    high: float | None
    limit: float  # the ratio from which on it is worse
    judgement: Judgement


def compare_metric(metric: str, rounds: Rounds) -> Compared:
    """Slower is over the limit and beyond doubt over 1; the same, or faster, is beyond doubt below the limit."""
    whole = [(statistics.median(old), statistics.median(new)) for old, new in rounds if old and new]
    if not whole:
        return Compared(metric, None, None, None, LEAST_EFFECT, "inconclusive")
    limit = max(LEAST_EFFECT, 1 + UNNOTICED_MS.get(metric, 0.0) / statistics.median(old for old, _ in whole))
    logarithms = [math.log(new / old) for old, new in whole]
    ratio = math.exp(statistics.fmean(logarithms))
    interval = mean_interval(logarithms, CONFIDENCE) if len(whole) >= _LEAST_ROUNDS else None
    if interval is None:
        return Compared(metric, ratio, None, None, limit, "inconclusive")
    low, high = map(math.exp, interval)
    return Compared(metric, ratio, low, high, limit, _judgement(ratio, low, high, limit))


def compare_failures(failed: int, of: int, before: int, of_before: int) -> Judgement:
    """Whether a greater share failed than before; slower beyond doubt (binomial), whichever round it is asked after."""
    if failed * of_before <= before * of:
        return "same"
    share, both = of / (of + of_before), failed + before
    chance = math.fsum(binomial(both, count, share) for count in range(failed, both + 1))
    return "slower" if chance <= _FAILURE_DOUBT else "inconclusive"


def _judgement(ratio: float, low: float, high: float, limit: float) -> Judgement:
    if ratio > limit and low > 1:
        return "slower"
    if high >= limit:
        return "inconclusive"
    return "faster" if ratio < 1 / limit and high < 1 else "same"
