"""One request, as it was sent and as its answer came: raw times, from which every figure is computed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from deploytk.smoke.oddity import oddity
from deploytk.smoke.received import Exchange, receive


@dataclass(frozen=True, slots=True)
class Record:
    """Times are `time.perf_counter_ns`. Definitions of the figures: docs/metrics.md; None where one is not defined."""

    prompt: str
    text: str
    error: str  # "" for a success
    status: int | None  # of HTTP, None when no answer came
    scheduled_ns: int  # when it was due; the time of sending in a closed loop
    sent_ns: int
    head_ns: int | None
    event_ns: tuple[int, ...]  # of every event with text
    output_ns: int | None  # of the first one that is no reasoning
    done_ns: int
    connect_ms: float | None
    input_tokens: int | None  # as the server counts
    output_tokens: int | None
    cached_tokens: int | None
    first_tokens: int  # in the first event, 1 when the server does not count per event
    finish_reason: str | None
    asked_tokens: int  # the most that were asked for
    is_exact: bool  # exactly as many were asked for

    @property
    def is_success(self) -> bool:
        return not self.error

    @property
    def dispatch_delay_ms(self) -> float:
        return (self.sent_ns - self.scheduled_ns) / 1e6

    @property
    def ttft_ms(self) -> float | None:
        return (self.event_ns[0] - self.sent_ns) / 1e6 if self.event_ns else None

    @property
    def ttft_sched_ms(self) -> float | None:
        return (self.event_ns[0] - self.scheduled_ns) / 1e6 if self.event_ns else None

    @property
    def ttfo_ms(self) -> float | None:
        return (self.output_ns - self.sent_ns) / 1e6 if self.output_ns else None

    @property
    def tpot_ms(self) -> float | None:
        if not self.output_tokens or self.output_tokens <= self.first_tokens or len(self.event_ns) < 2:
            return None
        return (self.event_ns[-1] - self.event_ns[0]) / 1e6 / (self.output_tokens - self.first_tokens)

    @property
    def ntpot_ms(self) -> float | None:
        return self.e2e_ms / self.output_tokens if self.output_tokens else None

    @property
    def e2e_ms(self) -> float:
        return (self.done_ns - self.sent_ns) / 1e6

    @property
    def e2e_content_ms(self) -> float | None:
        return (self.event_ns[-1] - self.sent_ns) / 1e6 if self.event_ns else None

    @property
    def chunk_gaps_ms(self) -> tuple[float, ...]:
        return tuple((b - a) / 1e6 for a, b in pairwise(self.event_ns))


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked, before anything came back."""

    prompt: str
    output_tokens: int
    is_exact: bool
    scheduled_ns: int | None = None  # None: as soon as possible


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came back, not yet taken apart: that waits until nothing is timed any more."""

    request: Request
    sent_ns: int
    exchange: Exchange | None
    error: str
    ended_ns: int
    connect_ms: float | None


def to_record(outcome: Outcome) -> Record:
    """The record of an outcome; a broken answer is a record with an error."""
    if outcome.exchange is None:
        return _failed(outcome, outcome.error)
    try:
        received = receive(outcome.exchange)
    except ConnectionError as broken:
        return _failed(outcome, str(broken))
    oddities = [oddity(event) for _, event in received.events]
    events = tuple(one for one, odd in zip(received.events, oddities, strict=True) if not odd)
    contents = [(when, *found) for when, event in events if (found := _content(event))[0]]
    counts: dict[str, Any] = next((e["usage"] for _, e in reversed(events) if _is_usage(e.get("usage"))), {})
    details = counts.get("prompt_tokens_details")
    reasons = [choice.get("finish_reason") for _, event in events for choice in _choices(event)]
    error = received.error or next(filter(None, oddities), "" if received.is_complete else "the answer broke off")
    request = outcome.request
    return Record(
        prompt=request.prompt,
        text=_whole("".join(text for _, text, _ in contents)),
        error=_whole(error) or ("" if contents else "the answer is empty"),
        status=received.status,
        scheduled_ns=request.scheduled_ns or received.sent_ns,
        sent_ns=received.sent_ns,
        head_ns=received.head_ns,
        event_ns=tuple(when for when, _, _ in contents),
        output_ns=next((when for when, _, is_reasoning in contents if not is_reasoning), None),
        done_ns=received.done_ns,
        connect_ms=outcome.connect_ms,
        input_tokens=_count(counts, "prompt_tokens"),
        output_tokens=_count(counts, "completion_tokens"),
        cached_tokens=_count(details, "cached_tokens") if isinstance(details, dict) else None,
        first_tokens=_first_tokens(events),
        finish_reason=next((reason for reason in reversed(reasons) if isinstance(reason, str)), None),
        asked_tokens=request.output_tokens,
        is_exact=request.is_exact,
    )


def _failed(outcome: Outcome, error: str) -> Record:
    request = outcome.request
    return Record(
        prompt=request.prompt,
        text="",
        error=error,
        status=None,
        scheduled_ns=request.scheduled_ns or outcome.sent_ns,
        sent_ns=outcome.sent_ns,
        head_ns=None,
        event_ns=(),
        output_ns=None,
        done_ns=outcome.ended_ns,
        connect_ms=outcome.connect_ms,
        input_tokens=None,
        output_tokens=None,
        cached_tokens=None,
        first_tokens=1,
        finish_reason=None,
        asked_tokens=request.output_tokens,
        is_exact=request.is_exact,
    )


def _choices(event: dict[str, Any]) -> list[dict[str, Any]]:
    choices = event.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _content(event: dict[str, Any]) -> tuple[str, bool]:
    """The text of an event, and whether it is reasoning; role events and empty deltas have none."""
    text, reasoning = "", ""
    for choice in _choices(event):
        part = choice.get("delta") or choice.get("message") or choice
        if isinstance(part, dict):
            text += part.get("content") or part.get("text") or ""
            reasoning += part.get("reasoning_content") or ""
    return (text, False) if text else (reasoning, True)


def _first_tokens(events: tuple[tuple[int, dict[str, Any]], ...]) -> int:
    """Tokens in the first event with text; servers with usage in every event tell, for others it is one."""
    for _, event in events:
        if _content(event)[0]:
            usage = event.get("usage")
            is_last = any(choice.get("finish_reason") for choice in _choices(event))
            return (_count(usage, "completion_tokens") or 1) if _is_usage(usage) and not is_last else 1
    return 1


def _whole(text: str) -> str:
    """JSON can hold halves of characters, which no file can."""
    return text.encode("utf-8", "replace").decode()


def _is_usage(value: object) -> bool:
    return isinstance(value, dict) and bool(value)


def _count(usage: Any, name: str) -> int | None:
    value = usage.get(name)
    return value if type(value) is int else None
