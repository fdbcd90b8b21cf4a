"""Is what a server answers right, or at least language?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from deploytk.bundle import Golden

_SHORTEST_JUDGED = 24  # characters
_REPEATED_SHARE = 0.8  # of the text, taken by one period
_LONGEST_PERIOD = 32
_BROKEN_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Answer:
    prompt: str
    text: str
    golden: Golden | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check of correctness."""

    check: str
    status: Literal["pass", "fail", "not run"]
    detail: str


def check_answers(answers: Sequence[Answer]) -> tuple[Finding, ...]:
    """Empty, degenerate or wrong answers; golden ones must come word for word."""
    return (_not_empty(answers), _not_degenerate(answers), _golden(answers))


def _not_empty(answers: Sequence[Answer]) -> Finding:
    empty = [answer for answer in answers if not answer.text.strip()]
    if not answers or empty:
        detail = f"{len(empty)} of {len(answers)} answers are empty" if answers else "there was no answer at all"
        return Finding("answers are not empty", "fail", detail)
    return Finding("answers are not empty", "pass", f"{len(answers)} answers")


def _not_degenerate(answers: Sequence[Answer]) -> Finding:
    found = [(answer, why) for answer in answers if (why := degenerate(answer.text))]
    if found:
        answer, why = found[0]
        detail = f"{len(found)} of {len(answers)} answers are no language: {why}, in {answer.text[:60]!r}"
        return Finding("answers are language", "fail", detail)
    return Finding("answers are language", "pass", "no repetition, no broken characters")


def _golden(answers: Sequence[Answer]) -> Finding:
    judged = [(answer, answer.golden) for answer in answers if answer.golden]
    if not judged:
        return Finding("golden answers", "not run", "no golden answers are known; give some with --golden")
    wrong = [(answer, golden) for answer, golden in judged if answer.text.strip() != golden.answer.strip()]
    detail = f"{len(judged) - len(wrong)} of {len(judged)} right"
    if wrong:
        answer, golden = wrong[0]
        return Finding("golden answers", "fail", f"{detail}; expected {golden.answer[:60]!r}, got {answer.text[:60]!r}")
    return Finding("golden answers", "pass", detail)


def degenerate(text: str) -> str:
    """Why `text` cannot be an answer of a healthy model, "" when nothing speaks against it.

    Weights that were never read make a server repeat itself or emit fragments of characters.
    """
    stripped = text.strip()
    if len(stripped) < _SHORTEST_JUDGED:
        return ""
    if stripped.count("\ufffd") / len(stripped) > _BROKEN_SHARE:
        return "broken characters"
    period = _repeated_period(stripped)
    if period:
        return f"{period[:20]!r} again and again"
    words = stripped.split()
    if len(words) >= _SHORTEST_JUDGED:
        word, count = Counter(words).most_common(1)[0]
        if count / len(words) > _REPEATED_SHARE:
            return f"{word[:20]!r} again and again"
    return ""


def _repeated_period(text: str) -> str:
    """The shortest piece whose repetition makes up most of the text's end, "" when there is none."""
    for size in range(1, min(_LONGEST_PERIOD, len(text) // 4) + 1):
        piece = text[-size:]
        start = len(text)
        while start >= size and text[start - size : start] == piece:
            start -= size
        if len(text) - start > _REPEATED_SHARE * len(text):
            return piece
    return ""
