"""Is what a server answers right, or at least language?"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Literal

from deploytk.bundle import Golden
from deploytk.smoke.counters import Counters
from deploytk.smoke.record import Record

_SHORTEST_JUDGED = 24  # characters
_REPEATED_SHARE = 0.8  # of the text, taken by one period
_LONGEST_PERIOD = 32
_BROKEN_SHARE = 0.1
_MOST_SCRIPTS = 4
_SCRIPT_CHANGES = 0.25  # per letter; real texts that mix two scripts stay far below
_LEAST_WORDS = 100  # before the share of common ones means something
_COMMON_SHARE = 0.04
_SLACK_TOKENS = 2  # per answer: some servers count the end token
_SCRIPTS = ("LATIN", "CJK", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "HIRAGANA", "KATAKANA", "HANGUL", "THAI")

# The words and characters of which every text in that language is full.
_COMMON_WORDS = frozenset(
    "the of and to a in is it that for on with as are this be or at by an i you we he she they not from was have can "
    "your de la le les et un une des que en est pour du el los las y es se por der die das und ist ein eine zu den mit "
    "nicht von il di e che per non o os uma para com do da na в и не на что с я он это как по к".split()
)
_COMMON_CJK = frozenset(
    "的一是不了在有我人这中大为上个国以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而"
)


@dataclass(frozen=True, slots=True)
class Answer:
    prompt: str
    text: str
    golden: Golden | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check of correctness."""

    check: str
    status: Literal["pass", "fail", "warn", "not run"]  # a warning fails nothing
    detail: str


def check_answers(answers: Sequence[Answer]) -> tuple[Finding, ...]:
    """Empty, degenerate or wrong answers; golden ones must come word for word."""
    return (_not_empty(answers), _not_degenerate(answers), _golden(answers))


def check_counts(records: Sequence[Record], counted: Counters | None) -> tuple[Finding, ...]:
    """Whether `usage` can be true: against the events, what was asked for, and what the server itself counts."""
    known = [record for record in records if record.output_tokens is not None]
    if not known:
        return (Finding("token counts", "not run", "the server sends no usage"),)
    wrong = [(record, why) for record in known if (why := _miscounted(record))]
    if wrong:
        detail = f"{len(wrong)} of {len(known)} answers: {wrong[0][1]}"
        return (Finding("token counts", "fail", detail),)
    claimed = sum(record.output_tokens or 0 for record in known)
    detail = f"{claimed} tokens in {sum(len(record.event_ns) for record in known)} events"
    if counted is None:
        return (Finding("token counts", "pass", detail),)
    detail += f", {counted.generation} by the server's own counter"
    if counted.generation < claimed - _SLACK_TOKENS * len(records):
        return (Finding("token counts", "fail", detail),)
    is_more = counted.generation > claimed + _SLACK_TOKENS * len(records)
    return (Finding("token counts", "warn" if is_more else "pass", detail + ": another client?" * is_more),)


def _miscounted(record: Record) -> str:
    tokens, events = record.output_tokens or 0, len(record.event_ns)
    if tokens < events:
        return f"usage says {tokens} tokens, {events} pieces of text came"
    if events > 1 and record.first_tokens + events - 1 > tokens:
        return f"the first piece is said to hold {record.first_tokens} of {tokens} tokens, and {events - 1} more came"
    if tokens > record.asked_tokens + _SLACK_TOKENS:
        return f"usage says {tokens} tokens, at most {record.asked_tokens} were asked for"
    if record.is_exact and tokens < record.asked_tokens:
        return f"{tokens} tokens came, {record.asked_tokens} were asked for whatever comes"
    return ""


def check_repeats(answers: Sequence[str]) -> tuple[Finding, ...]:
    """Whether the same prompt, decoded greedily, got the same answer."""
    if len(answers) < 2:
        return ()
    is_same = answers[0] == answers[1]
    detail = "the same prompt gave the same answer" if is_same else "the same prompt gave two different answers"
    return (Finding("repeatable", "pass" if is_same else "warn", detail),)


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
    # Golden answers that come word for word prove more than any statistics of words.
    is_proven = any(answer.golden and answer.text.strip() == answer.golden.answer.strip() for answer in answers)
    share = None if is_proven else _common_share("\n".join(answer.text for answer in answers))
    if share is not None and share < _COMMON_SHARE:
        # Code and lists of names have few of them too, so this alone fails nothing.
        detail = f"{share:.1%} of the words are common ones of any language known here, in {answers[0].text[:60]!r}"
        return Finding("answers are language", "warn", detail)
    return Finding("answers are language", "pass", "no repetition, no broken or mixed characters")


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

    Weights that were never read make a server repeat itself, or emit fragments of all scripts.
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
    return _mixed_scripts(stripped)


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


def _mixed_scripts(text: str) -> str:
    """Random tokens of a large vocabulary change their script from fragment to fragment."""
    scripts = [script for letter in text if (script := _script(letter))]
    if len(scripts) < _SHORTEST_JUDGED:
        return ""
    changes = sum(a != b for a, b in pairwise(scripts)) / len(scripts)
    # Japanese mixes three scripts by itself.
    is_japanese = scripts.count("HIRAGANA") > 0.1 * len(scripts)
    if len(set(scripts)) >= _MOST_SCRIPTS + is_japanese or (changes > _SCRIPT_CHANGES and not is_japanese):
        return f"{len(set(scripts))} scripts mixed"
    return ""


@cache
def _script(letter: str) -> str:
    if not letter.isalpha():
        return ""
    name = unicodedata.name(letter, "")
    return next((script for script in _SCRIPTS if name.startswith(script)), "")


def _common_share(text: str) -> float | None:
    """Common words of the languages known here among all words; None where the text is too short or in others."""
    scripts = Counter(_script(letter) for letter in text)
    del scripts[""]
    main = scripts.most_common(1)[0][0] if scripts else ""
    if main == "CJK":
        letters = [letter for letter in text if _script(letter) == "CJK"]
        common = sum(letter in _COMMON_CJK for letter in letters)
    elif main in ("LATIN", "CYRILLIC"):
        letters = re.findall(r"[^\W\d_]+", text.lower())
        common = sum(word in _COMMON_WORDS for word in letters)
    else:
        return None
    return common / len(letters) if len(letters) >= _LEAST_WORDS else None
