"""Simulated canaries: the times of two revisions whose truth is known, with the noise of a place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple, cast

import numpy as np

from deploytk.base.progress import Silent
from deploytk.scale.judging import Judged, Round, judge_canary
from deploytk.smoke import Evidence


@dataclass(frozen=True)
class Noise:
    """Of a time: its middle in ms, and how it varies between requests and between rounds (lognormal)."""

    middle_ms: float
    requests: float
    rounds: float


BUSY = (Noise(30.0, 0.5, 0.17), Noise(10.0, 0.03, 0.003))
"""As a run of benchmarks/scale_canary.py on two cores with a load of 13: a first token that is Ray's way alone, and an
engine that keeps time. The ratios of its twelve rounds were 0.6 to 1.5, their deviation 0.29."""

RAY = (Noise(20.0, 0.35, 0.12), Noise(10.0, 0.03, 0.003))
"""The same way with fewer neighbours: assumed, half of that variance."""

GPU = (Noise(300.0, 0.15, 0.03), Noise(12.0, 0.05, 0.02))
"""Hundreds of ms to the first token, as of a large model with long prompts: assumed."""


class Answer(NamedTuple):
    """What is asked of a record."""

    ttft_ms: float
    tpot_ms: float
    is_success: bool = True


def evidence(random: np.random.Generator, noises: tuple[Noise, Noise], factors: tuple[float, float]) -> Evidence:
    times = [
        noise.middle_ms * factor * math.exp(random.normal(0, noise.rounds)) * random.lognormal(0, noise.requests, 30)
        for noise, factor in zip(noises, factors, strict=True)
    ]
    times[0][random.random(30) < 0.05] *= 1.5
    return cast("Evidence", SimpleNamespace(records=[*map(Answer, *(one.tolist() for one in times))], findings=()))


def tried(seed: int, noises: tuple[Noise, Noise], ttft: float = 1.0, tpot: float = 1.0) -> Judged:
    """A canary whose times are so many times those of the old revision."""
    random = np.random.default_rng(seed)

    def measure(_: int) -> Round:
        return evidence(random, noises, (1.0, 1.0)), evidence(random, noises, (ttft, tpot))

    return judge_canary(measure, math.inf, Silent(), lambda: 0.0)
