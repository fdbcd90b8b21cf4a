"""A new revision against the old one, both serving: measured in turns until the verdict can be told (sequential.py)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from deploytk.base.progress import Progress, Silent
from deploytk.bench.compare import LEAST_EFFECT, METRICS, Judgement
from deploytk.bundle import Golden
from deploytk.scale.sequential import (
    CONFIDENCE,
    LOOKS,
    UNNOTICED_MS,
    Compared,
    compare_failures,
    compare_metric,
)
from deploytk.serve import ServeOptions
from deploytk.smoke import Evidence
from deploytk.smoke.memory import LEAK
from deploytk.smoke.record import Record
from deploytk.smoke.run import gather
from deploytk.smoke.workload import Workload

WORKLOAD = Workload(requests=30, warmup_requests=2, output_tokens=64, has_self_check=False)

_OLD = "times that of the old revision"

Round = tuple[Evidence, Evidence]
"""Of the old revision, and of the new one."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found of a canary, and whether it may stay."""

    status: Judgement  # slower where anything is worse
    exit_code: int  # 0 promoted, 3 worse, 4 it cannot be told
    reasons: tuple[str, ...]
    rounds: int = 0
    metrics: tuple[Compared, ...] = ()

    @property
    def is_good(self) -> bool:
        return self.exit_code == 0


@dataclass(frozen=True, slots=True)
class Revisions:
    """Two servers, and what they are asked."""

    old: str
    new: str
    golden: tuple[Golden, ...] = ()
    key: str | None = field(default=None, repr=False)
    workload: Workload = WORKLOAD

    def measured(self, number: int) -> Round:
        """A round; raises EndpointError where one of them does not answer."""
        plain = ServeOptions(api_key=self.key, attach_within_s=60.0)
        options = {self.old: plain, self.new: replace(plain, golden=self.golden)}
        # Other prompts in every round: of those before, one replica's cache knows more than each of many.
        workload = replace(self.workload, seed=number)
        # Who is first takes turns: what gets slower with time is nobody's fault.
        order = (self.old, self.new) if number % 2 else (self.new, self.old)
        found = {url: gather(url, options[url], workload, Silent()) for url in order}
        return found[self.old], found[self.new]


def judge_canary(
    measure: Callable[[int], Round], within_s: float, progress: Progress, clock: Callable[[], float] = time.monotonic
) -> Judged:
    """Measures round after round until the verdict can be told, at most until the last one or until the time is up."""
    progress.note(_plan(within_s))
    began, rounds = clock(), list[Round]()
    while True:
        progress.note(f"measuring the old and the new revision, round {len(rounds) + 1}")
        rounds.append(measure(len(rounds)))
        is_last = len(rounds) == LOOKS[-1] or clock() - began >= within_s
        found = judged(rounds) if is_last or len(rounds) in LOOKS else judged_by_answers(rounds)
        if is_last or found.status != "inconclusive":
            return found


def judged(rounds: Sequence[Round]) -> Judged:
    """The verdict of a look: by answers, and by times."""
    answers = judged_by_answers(rounds)
    metrics = tuple(
        compare_metric(name, [(_values(old, of), _values(new, of)) for old, new in rounds])
        for name, of in METRICS.items()
    )
    slower = [
        f"{one.metric} is {one.ratio:.2f} times that of the old revision" for one in metrics if _is(one, "slower")
    ]
    if slower or answers.status == "slower":
        return Judged("slower", 3, (*answers.reasons, *slower), len(rounds), metrics)
    unclear = (*answers.reasons, *(_doubt(one) for one in metrics if _is(one, "inconclusive")))
    if unclear:
        return Judged("inconclusive", 4, unclear, len(rounds), metrics)
    status: Judgement = "faster" if any(_is(one, "faster") for one in metrics) else "same"
    return Judged(status, 0, (), len(rounds), metrics)


def judged_by_answers(rounds: Sequence[Round]) -> Judged:
    """What needs no look: a wrong answer or many failures end it after any round; nothing is good by that alone."""
    wrong = _wrong(rounds)
    more, words = _failures(rounds)
    if wrong or more == "slower":
        return Judged("slower", 3, (*wrong, *words), len(rounds))
    return Judged("inconclusive", 4, tuple(f"{line}: too few to tell" for line in words), len(rounds))


def _plan(within_s: float) -> str:
    looks = f"{', '.join(map(str, LOOKS[:-1]))} and {LOOKS[-1]}"
    free = ", ".join(f"{name} at least {ms:g} ms" for name, ms in UNNOTICED_MS.items())
    return (
        f"judging after {looks} rounds, no round begins after {within_s / 60:g} min; worse is {LEAST_EFFECT - 1:.0%} "
        f"more time ({free}), each look has an interval of {CONFIDENCE:.2%}, all together 95 %"
    )


def _is(found: Compared, judgement: Judgement) -> bool:
    return found.judgement == judgement


def _doubt(found: Compared) -> str:
    if found.low is None:
        return f"{found.metric} cannot be told: too little was measured"
    return (
        f"{found.metric} cannot be told: {found.ratio:.2f} {_OLD}, somewhere from {found.low:.2f} to {found.high:.2f}; "
        f"below {found.limit:.2f} is no worse"
    )


def _wrong(rounds: Sequence[Round]) -> list[str]:
    """Checks that the new revision fails and the old one does not: that one is what people have."""
    before = {finding.check for old, _ in rounds for finding in old.findings if finding.status == "fail"}
    # What grew is all that this machine's GPUs hold, replicas of others among it.
    before.add(LEAK)
    found = [finding for _, new in rounds for finding in new.findings if finding.status == "fail"]
    return list(dict.fromkeys(f"{one.check}: {one.detail}" for one in found if one.check not in before))


def _failures(rounds: Sequence[Round]) -> tuple[Judgement, tuple[str, ...]]:
    old, new = ([record for pair in rounds for record in pair[side].records] for side in (0, 1))
    failed, before = (sum(not record.is_success for record in records) for records in (new, old))
    found = compare_failures(failed, len(new), before, len(old))
    words = f"{failed} of {len(new)} requests failed, {before} of {len(old)} with the old revision"
    return found, () if found == "same" else (words,)


def _values(evidence: Evidence, metric: Callable[[Record], float | None]) -> list[float]:
    return [value for record in evidence.records if record.is_success and (value := metric(record))]
