"""Asks a server the requests of a workload, one after the other, and keeps what came when."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from deploytk.bundle import Golden
from deploytk.preview import Endpoint
from deploytk.progress import Progress
from deploytk.smoke.client import Connection, Received
from deploytk.smoke.correctness import Answer, Finding, check_answers

_PROMPTS = (
    "Tell me a short story about a lighthouse.",
    "Explain in a few sentences why the sky is blue.",
    "请用几句话介绍一下你自己。",
    "What is the capital of France, and what is it known for?",
)


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked: closed loop, one stream, greedy."""

    requests: int = 30
    warmup_requests: int = 3
    output_tokens: int = 128
    request_within_s: float = 120.0
    total_within_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Record:
    """One request, timed; None where a figure is not defined. Definitions: docs/metrics.md."""

    prompt: str
    text: str
    is_success: bool
    error: str
    ttft_ms: float | None  # first content event - send
    tpot_ms: float | None  # (last - first content event) / (output tokens - 1)
    e2e_ms: float | None  # end of the answer - send
    chunk_gaps_ms: tuple[float, ...]  # between content events
    prompt_tokens: int | None  # as the server counts
    output_tokens: int | None
    events: int  # with content
    sent_ns: int
    done_ns: int
    finish_reason: str | None


@dataclass(frozen=True, slots=True)
class Measurement:
    endpoint: Endpoint
    workload: Workload
    records: tuple[Record, ...]
    findings: tuple[Finding, ...]
    window_s: float  # from the first send to the last byte
    client_cpu_share: float  # of one core, while measuring
    has_ended_early: bool  # the time limit came before the last request


def measure(endpoint: Endpoint, workload: Workload, golden: tuple[Golden, ...], progress: Progress) -> Measurement:
    """Golden prompts first, then the timed requests; a request that fails is recorded, not raised."""
    return asyncio.run(_measure(endpoint, workload, golden, progress))


async def _measure(
    endpoint: Endpoint, workload: Workload, golden: tuple[Golden, ...], progress: Progress
) -> Measurement:
    connection = Connection(endpoint.url)
    deadline = time.monotonic() + workload.total_within_s
    answers = []
    try:
        with progress.task("golden answers", len(golden), "steps") as advance:
            for one in golden:
                record = await _ask(connection, endpoint.model, one.prompt, workload, golden=one)
                answers.append(Answer(one.prompt, record.text, one))
                advance(1)
        for number in range(workload.warmup_requests):
            await _ask(connection, endpoint.model, _prompt(number, "warm-up"), workload)
        records: list[Record] = []
        cpu, started = time.process_time(), time.monotonic()
        with progress.task("requests", workload.requests, "steps") as advance:
            for number in range(workload.requests):
                if time.monotonic() > deadline:
                    break
                records.append(await _ask(connection, endpoint.model, _prompt(number, "request"), workload))
                advance(1)
        wall_s = max(time.monotonic() - started, 1e-9)
        share = (time.process_time() - cpu) / wall_s
    finally:
        await connection.close()
    answers += [Answer(record.prompt, record.text) for record in records if record.is_success]
    window_s = (records[-1].done_ns - records[0].sent_ns) / 1e9 if records else 0.0
    has_ended_early = len(records) < workload.requests
    return Measurement(endpoint, workload, tuple(records), check_answers(answers), window_s, share, has_ended_early)


def _prompt(number: int, purpose: str) -> str:
    """One of the prompts, with a number in front, so that no prefix cache answers for it."""
    return f"({purpose} {number}) {_PROMPTS[number % len(_PROMPTS)]}"


async def _ask(
    connection: Connection, model: str, prompt: str, workload: Workload, golden: Golden | None = None
) -> Record:
    body: dict[str, Any] = {
        "model": model,
        "temperature": 0,
        "top_k": 1,
        "max_tokens": 1024 if golden else workload.output_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    is_raw = golden is not None and golden.is_raw
    path = "/v1/completions" if is_raw else "/v1/chat/completions"
    body |= {"prompt": prompt} if is_raw else {"messages": [{"role": "user", "content": prompt}]}
    sent_ns = time.perf_counter_ns()
    try:
        received = await asyncio.wait_for(connection.post(path, body), workload.request_within_s)
    except asyncio.TimeoutError:
        await connection.close()
        return _failed(prompt, sent_ns, f"no end within {workload.request_within_s:.0f} s")
    except (OSError, ValueError) as error:
        await connection.close()
        return _failed(prompt, sent_ns, str(error) or type(error).__name__)
    return to_record(prompt, received)


def to_record(prompt: str, received: Received) -> Record:
    """The figures of one answer, as defined in docs/metrics.md."""
    contents = [(when, text) for when, event in received.events if (text := _content(event))]
    usage: dict[str, Any] = next((event["usage"] for _, event in reversed(received.events) if event.get("usage")), {})
    output_tokens = usage.get("completion_tokens")
    reasons = [c.get("finish_reason") for _, event in received.events for c in event.get("choices") or []]
    finish_reason = next((reason for reason in reversed(reasons) if reason), None)
    error = received.error or ("" if received.is_complete else "the answer broke off")
    is_success = not error and bool(contents)
    first, last = (contents[0][0], contents[-1][0]) if contents else (None, None)
    times = [when for when, _ in contents]
    tpot = None
    if first and last and output_tokens and output_tokens > 1 and len(contents) > 1:
        tpot = (last - first) / 1e6 / (output_tokens - 1)
    return Record(
        prompt=prompt,
        text="".join(text for _, text in contents),
        is_success=is_success,
        error=error or ("" if contents else "the answer is empty"),
        ttft_ms=(first - received.sent_ns) / 1e6 if first else None,
        tpot_ms=tpot,
        e2e_ms=(received.done_ns - received.sent_ns) / 1e6,
        chunk_gaps_ms=tuple((b - a) / 1e6 for a, b in pairwise(times)),
        prompt_tokens=usage.get("prompt_tokens"),
        output_tokens=output_tokens,
        events=len(contents),
        sent_ns=received.sent_ns,
        done_ns=received.done_ns,
        finish_reason=finish_reason,
    )


def _content(event: dict[str, Any]) -> str:
    """The text of an event: first token is first text, whatever role or empty events come before."""
    parts = []
    for choice in event.get("choices") or []:
        delta = choice.get("delta") or choice.get("message") or choice
        parts.append(delta.get("content") or delta.get("reasoning_content") or delta.get("text") or "")
    return "".join(parts)


def _failed(prompt: str, sent_ns: int, error: str) -> Record:
    now = time.perf_counter_ns()
    return Record(prompt, "", False, error, None, None, None, (), None, None, 0, sent_ns, now, None)
