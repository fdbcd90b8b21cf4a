"""Asks a server the requests of a workload, and keeps what came when."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from deploytk.base.event_loop import run
from deploytk.base.net import ask
from deploytk.base.progress import Progress
from deploytk.bundle import Golden
from deploytk.serve import Endpoint
from deploytk.smoke.client import Connection
from deploytk.smoke.correctness import Answer, Finding, check_answers, check_counts, check_repeats
from deploytk.smoke.counters import Counters, read_counters
from deploytk.smoke.received import Exchange
from deploytk.smoke.record import Outcome, Record, Request, to_record
from deploytk.smoke.selfcheck import ClientCheck, check_client
from deploytk.smoke.statistics import percentile
from deploytk.smoke.workload import Workload

INTERRUPTED = "all requests sent"
"""The check that a signal leaves undone."""

_GOLDEN_TOKENS = 1024
_MOST_WARM_CONNECTIONS = 64
_COUNTERS_WITHIN_S = 1.0
_LAG_EVERY_S = 0.005
_BYTES_PER_TOKEN = 4096  # an event of one token takes some hundred
_BYTES_ASIDE = 2**18
_LEAD_S = 0.02  # before the first request of an open loop is due


@dataclass(frozen=True, slots=True)
class Measurement:
    endpoint: Endpoint
    workload: Workload
    records: tuple[Record, ...]  # in the order in which they were due
    findings: tuple[Finding, ...]
    counted: Counters | None  # what the server counted meanwhile; None when it does not
    client_cpu_share: float  # of one core, while measuring
    client: ClientCheck | None  # None without a self-check
    has_ended_early: bool  # the time limit came before the last request
    lag_p99_ms: float | None  # how late the client was woken while measuring; None without a self-check


def measure(
    endpoint: Endpoint,
    workload: Workload,
    golden: tuple[Golden, ...],
    progress: Progress,
    *,
    keeps_interrupted: bool = False,
) -> Measurement:
    """Golden prompts and warm-up first, then the timed requests; one that fails is recorded, not raised.

    With `keeps_interrupted` a signal ends it with what was measured until then, and a finding that says so.
    """
    client = check_client(workload.concurrency) if workload.has_self_check else None
    asking = _Asking(endpoint, workload, progress)
    try:
        return run(asking.measure(golden, client), is_timed=True)
    except KeyboardInterrupt:
        if not keeps_interrupted or not asking.outcomes:
            raise
        return asking.so_far(client)


class _Asking:
    """One run of a workload."""

    def __init__(self, endpoint: Endpoint, workload: Workload, progress: Progress) -> None:
        self._endpoint = endpoint
        self._workload = workload
        self._progress = progress
        self._connections: list[Connection] = []  # all that were ever made
        self._idle: list[Connection] = []  # those of them that no request uses
        self._deadline = time.monotonic() + workload.total_within_s
        self._characters = 0  # of a prompt of `input_tokens`
        self._lags_ms: list[float] = []
        self._cpu, self._started = 0.0, 0.0
        self.outcomes: dict[int, Outcome] = {}  # of the timed requests, as they end

    async def measure(self, golden: tuple[Golden, ...], client: ClientCheck | None) -> Measurement:
        try:
            answers = await self._ask_golden(golden)
            await self._fit_length()
            repeats = await self._warm_up()
            before = await self._counters()
            self._cpu, self._started = time.thread_time(), time.monotonic()
            with self._progress.task("requests", self._workload.requests, "steps") as advance, _undisturbed():
                run = self._closed_loop if self._workload.rate is None else self._open_loop
                watching = asyncio.ensure_future(self._watch_lag())
                try:
                    outcomes = await run(advance)
                finally:
                    watching.cancel()
            share = self._client_share()
            # Only now, when nothing is timed any more, are the answers taken apart.
            records = tuple(to_record(outcome) for outcome in outcomes)
            counted = await self._counted(before, records)
        finally:
            for connection in self._connections:  # a request may yet end, and give its own back, after a signal
                connection.close()
        good = [record for record in records if record.is_success]
        answers += [Answer(record.prompt, record.text) for record in good]
        findings = (*check_answers(answers), *check_counts(good, counted), *check_repeats(repeats))
        has_ended_early = len(records) < self._workload.requests
        lag_ms = percentile(sorted(self._lags_ms), 99) if self._lags_ms and client else None
        return Measurement(
            self._endpoint, self._workload, records, findings, counted, share, client, has_ended_early, lag_ms
        )

    def so_far(self, client: ClientCheck | None) -> Measurement:
        """What an interrupted run has measured; what the server counted is for all of it, and left out."""
        records = tuple(to_record(self.outcomes[number]) for number in sorted(self.outcomes))
        good = [record for record in records if record.is_success]
        said = f"ended by a signal after {len(records)} of {self._workload.requests} requests"
        findings = (
            Finding(INTERRUPTED, "not run", said),
            *check_answers([Answer(record.prompt, record.text) for record in good]),
        )
        share = self._client_share()
        return Measurement(self._endpoint, self._workload, records, findings, None, share, client, True, None)

    def _client_share(self) -> float:
        return (time.thread_time() - self._cpu) / max(time.monotonic() - self._started, 1e-9)

    async def _watch_lag(self) -> None:
        """Wake up again and again, and note how late: events that come meanwhile are stamped as late."""
        while True:
            due = time.perf_counter() + _LAG_EVERY_S
            await asyncio.sleep(_LAG_EVERY_S)
            self._lags_ms.append((time.perf_counter() - due) * 1000)

    async def _ask_golden(self, golden: tuple[Golden, ...]) -> list[Answer]:
        answers = []
        with self._progress.task("golden answers", len(golden), "steps") as advance:
            for one in golden:
                request = Request(one.prompt, _GOLDEN_TOKENS, is_exact=False)
                record = to_record(await self._ask(request, is_raw=one.is_raw))
                answers.append(Answer(one.prompt, record.text, one))
                advance(1)
        return answers

    async def _fit_length(self) -> None:
        """Find how many characters of our text are `input_tokens`, by the server's own count."""
        wanted = self._workload.input_tokens
        self._characters = wanted or 0  # no token is shorter than a letter: never too long for the server
        for number in range(3 if wanted else 0):
            prompt = self._workload.prompt(number, "fit", self._characters)
            record = to_record(await self._ask(Request(prompt, 1, is_exact=False), is_raw=True))
            if not record.input_tokens or record.input_tokens == wanted:
                return
            self._characters = max(1, round(self._characters * (wanted or 0) / record.input_tokens))

    async def _warm_up(self) -> tuple[str, ...]:
        """Requests like the timed ones; returns the answers to one that was asked twice."""
        count = self._workload.warmup_requests
        if self._workload.rate is None and self._workload.concurrency > 1 and count:
            count = max(count, self._workload.concurrency)
        numbers = [max(0, number - 1) for number in range(count)]  # the first one twice
        first = [await self._ask(self._request(number, "warm-up")) for number in numbers[:2]]
        limit = asyncio.Semaphore(max(1, min(self._workload.concurrency, _MOST_WARM_CONNECTIONS)))

        async def ask(number: int) -> None:
            async with limit:
                await self._ask(self._request(number, "warm-up"))

        await asyncio.gather(*(ask(number) for number in numbers[2:]))
        return tuple(record.text for record in map(to_record, first) if record.is_success)

    async def _closed_loop(self, advance: Callable[[int], None]) -> list[Outcome]:
        """As many requests under way as the concurrency says, until all are done."""
        numbers = iter(range(self._workload.requests))
        await self._open_connections(min(self._workload.concurrency, self._workload.requests))

        async def work() -> None:
            for number in numbers:
                if time.monotonic() > self._deadline:
                    return
                self.outcomes[number] = await self._ask(self._request(number, "request"))
                advance(1)

        await asyncio.gather(*(work() for _ in range(self._workload.concurrency)))
        return [self.outcomes[number] for number in sorted(self.outcomes)]

    async def _open_loop(self, advance: Callable[[int], None]) -> list[Outcome]:
        """Every request at its time, whatever became of those before."""
        schedule = self._workload.schedule()
        await self._open_connections(min(_MOST_WARM_CONNECTIONS, self._workload.requests))
        start = time.perf_counter_ns() + int(_LEAD_S * 1e9)
        tasks: list[asyncio.Task[Outcome]] = []
        try:
            for number, at_s in enumerate(schedule):
                due_ns = start + int(at_s * 1e9)
                await asyncio.sleep((due_ns - time.perf_counter_ns()) / 1e9)
                if time.monotonic() > self._deadline:
                    break
                tasks.append(asyncio.ensure_future(self._ask_due(number, due_ns, advance)))
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:  # before their connections are closed, which no server did
                task.cancel()

    async def _ask_due(self, number: int, due_ns: int, advance: Callable[[int], None]) -> Outcome:
        outcome = self.outcomes[number] = await self._ask(self._request(number, "request", due_ns))
        advance(1)
        return outcome

    def _request(self, number: int, purpose: str, scheduled_ns: int | None = None) -> Request:
        prompt = self._workload.prompt(number, purpose, self._characters)
        return Request(prompt, self._workload.output_tokens, self._workload.ignores_end, scheduled_ns)

    async def _ask(self, request: Request, *, is_raw: bool | None = None) -> Outcome:
        workload = self._workload
        is_raw = workload.is_raw if is_raw is None else is_raw
        body = workload.body(
            self._endpoint.model,
            request.prompt,
            is_raw=is_raw,
            output_tokens=request.output_tokens,
            ignores_end=request.is_exact,
        )
        path = "/v1/completions" if is_raw else "/v1/chat/completions"
        largest_bytes = _BYTES_ASIDE + _BYTES_PER_TOKEN * request.output_tokens
        within_s = min(workload.request_within_s, self._deadline - time.monotonic())
        if within_s <= 0:
            now = time.perf_counter_ns()
            return Outcome(request, now, None, f"no time is left of {workload.total_within_s:g} s", now, None)
        return await self._exchange(request, lambda wire: wire.post(path, body, within_s, largest_bytes))

    async def _exchange(self, request: Request, ask: Callable[[Connection], Awaitable[Exchange]]) -> Outcome:
        connection = self._idle.pop() if self._idle else self._connection()
        before = connection.connect_ms
        exchange, error = None, ""
        asked_ns = time.perf_counter_ns()
        try:
            exchange = await ask(connection)
        except (OSError, ValueError) as problem:
            error = str(problem) or type(problem).__name__
        connect_ms = connection.connect_ms if connection.connect_ms != before else None
        self._idle.append(connection)
        sent_ns = exchange.sent_ns if exchange else asked_ns
        return Outcome(request, sent_ns, exchange, error, time.perf_counter_ns(), connect_ms)

    async def _open_connections(self, count: int) -> None:
        self._idle += [self._connection() for _ in range(count - len(self._idle))]
        # What goes wrong is said by the request that needs the connection; no other one is left half open then.
        await asyncio.gather(*(connection.open() for connection in self._idle), return_exceptions=True)

    def _connection(self) -> Connection:
        self._connections.append(Connection(self._endpoint.url, self._endpoint.key))
        return self._connections[-1]

    async def _counters(self) -> Counters | None:
        url = f"{self._endpoint.url}/metrics"
        try:
            page = await asyncio.to_thread(ask, url, _COUNTERS_WITHIN_S * 5, key=self._endpoint.key)
        except OSError:
            return None
        return read_counters(page.body.decode("utf-8", "replace")) if page.status == 200 else None

    async def _counted(self, before: Counters | None, records: tuple[Record, ...]) -> Counters | None:
        """What the server counted since; its counters may come a moment after the answer."""
        if before is None:
            return None
        expected = sum(record.output_tokens or 0 for record in records)
        deadline = time.monotonic() + _COUNTERS_WITHIN_S
        while True:
            now = await self._counters()
            counted = now.since(before) if now else None
            if counted is None or counted.generation >= expected or time.monotonic() > deadline:
                return counted
            await asyncio.sleep(0.1)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No garbage collection while something is timed."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
