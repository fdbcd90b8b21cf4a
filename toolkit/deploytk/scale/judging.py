"""A new revision against the old one, both serving: measured in turns, judged as `bench --compare` judges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deploytk.base.progress import Progress, Silent
from deploytk.bench.compare import METRICS, Judgement, judge_rounds
from deploytk.bundle import Golden
from deploytk.serve import ServeOptions
from deploytk.smoke import Evidence
from deploytk.smoke.record import Record
from deploytk.smoke.run import gather
from deploytk.smoke.workload import Workload

ROUNDS = 5
"""As the gate of bench wants them for a change of 15 % (bench/compare.py)."""

WORKLOAD = Workload(requests=30, warmup_requests=2, output_tokens=64, has_self_check=False)


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found of a canary, and whether it may stay."""

    status: Judgement  # slower where anything is worse
    exit_code: int  # 0 promoted, 3 worse, 4 it cannot be told
    reasons: tuple[str, ...]
    ratios: tuple[tuple[str, float | None], ...]  # new / old of each metric; less is better

    @property
    def is_good(self) -> bool:
        return self.exit_code == 0


def judge_canary(
    old: str, new: str, golden: Sequence[Golden], key: str | None, progress: Progress, workload: Workload = WORKLOAD
) -> Judged:
    """Measures the servers at two addresses in turns; raises EndpointError where one of them does not answer."""
    options = ServeOptions(golden=tuple(golden), api_key=key, attach_within_s=60.0)
    plain = ServeOptions(api_key=key, attach_within_s=60.0)
    rounds: list[tuple[Evidence, Evidence]] = []
    for number in range(ROUNDS):
        progress.note(f"measuring the old and the new revision, round {number + 1} of {ROUNDS}")
        # In turns, and the first one in turns: what gets slower with time is nobody's fault.
        found = {
            url: gather(url, options if url == new else plain, workload, Silent())
            for url in ((old, new) if number % 2 else (new, old))
        }
        rounds.append((found[old], found[new]))
    return judged(rounds)


def judged(rounds: Sequence[tuple[Evidence, Evidence]]) -> Judged:
    """The verdict over all rounds: wrong answers and failures first, then time."""
    reasons = [*_wrong(rounds), *_failures(rounds)]
    judgements: list[Judgement] = []
    ratios: list[tuple[str, float | None]] = []
    for name, metric in METRICS.items():
        judgement, ratio, _, _ = judge_rounds([(_values(old, metric), _values(new, metric)) for old, new in rounds])
        judgements.append(judgement)
        ratios.append((name, ratio))
        if judgement == "slower":
            reasons.append(f"{name} is {ratio:.2f} times that of the old revision")
    if reasons:
        return Judged("slower", 3, tuple(reasons), tuple(ratios))
    if "inconclusive" in judgements:
        return Judged("inconclusive", 4, ("the times differ too much to tell",), tuple(ratios))
    return Judged("faster" if "faster" in judgements else "same", 0, (), tuple(ratios))


def _wrong(rounds: Sequence[tuple[Evidence, Evidence]]) -> list[str]:
    """Checks of answers that the new revision fails; the old one is what people have."""
    found = [finding for _, new in rounds for finding in new.findings if finding.status == "fail"]
    return list(dict.fromkeys(f"{finding.check}: {finding.detail}" for finding in found))


def _failures(rounds: Sequence[tuple[Evidence, Evidence]]) -> list[str]:
    old, new = ([record for pair in rounds for record in pair[side].records] for side in (0, 1))
    failed, before = (sum(not record.is_success for record in records) for records in (new, old))
    if failed * len(old) > before * len(new):
        return [f"{failed} of {len(new)} requests failed, {before} of {len(old)} with the old revision"]
    return []


def _values(evidence: Evidence, metric: Callable[[Record], float | None]) -> list[float]:
    return [value for record in evidence.records if record.is_success and (value := metric(record))]
