"""Clients that go on asking while something is broken, and what became of every request."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import threading
import time
from dataclasses import dataclass, field

import httpx

BODY = {"prompt": "1 2 3", "max_tokens": 8, "temperature": 0}
_STREAM_EVERY = 8


@dataclass
class Outcome:
    """Of one spell of load."""

    whole: list[float] = field(default_factory=list)  # seconds of each answer that came whole
    streams: int = 0
    failed: list[str] = field(default_factory=list)  # of answers that come whole
    broken: list[str] = field(default_factory=list)  # of streams
    ends: list[float] = field(default_factory=list)  # when answers came, by the clock
    seconds: float = 0.0

    @property
    def requests(self) -> int:
        return len(self.whole) + len(self.failed)

    @property
    def longest_gap_s(self) -> float:
        """The longest time in which nobody got an answer."""
        ends = sorted(self.ends)
        return max((b - a for a, b in itertools.pairwise(ends)), default=self.seconds)

    def line(self) -> str:
        times = sorted(self.whole)
        p50, p99 = (times[int(len(times) * share)] if times else 0.0 for share in (0.5, 0.99))
        return (
            f"{len(self.failed)} of {self.requests} failed, streams {len(self.broken)} of {self.streams} broken; "
            f"p50 {p50:.2f} s, p99 {p99:.2f} s, longest {max(times, default=0.0):.1f} s; "
            f"longest time without an answer {self.longest_gap_s:.1f} s; {self.requests / self.seconds:.1f} requests/s"
        )


class Load:
    """`clients` of them, one request after the other, until it is stopped."""

    def __init__(self, url: str, clients: int, model: str) -> None:
        self._url, self._clients, self._model = url, clients, model
        self._is_over = threading.Event()
        self.outcome = Outcome()

    def __enter__(self) -> Load:
        self._started = time.monotonic()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join()
        self.outcome.seconds = time.monotonic() - self._started

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=120, trust_env=False, limits=limits) as client:
            await asyncio.gather(*(self._ask_on(client, number) for number in range(self._clients)))

    async def _ask_on(self, client: httpx.AsyncClient, number: int) -> None:
        while not self._is_over.is_set():
            number += 1
            if number % _STREAM_EVERY:
                await self._ask(client)
            else:
                await self._stream(client)

    async def _ask(self, client: httpx.AsyncClient) -> None:
        started = time.monotonic()
        try:
            answer = await client.post(f"{self._url}/v1/completions", json={**BODY, "model": self._model})
            problem = "" if answer.status_code == 200 else f"{answer.status_code} {answer.text[:120]}"
        except httpx.HTTPError as error:
            problem = type(error).__name__
        self._note(problem, started)

    def _note(self, problem: str, started: float) -> None:
        now = time.monotonic()
        if problem:
            self.outcome.failed.append(f"after {now - self._started:.1f} s: {problem}")
        else:
            self.outcome.whole.append(now - started)
            self.outcome.ends.append(now)

    async def _stream(self, client: httpx.AsyncClient) -> None:
        self.outcome.streams += 1
        body = {**BODY, "model": self._model, "stream": True}
        last = ""
        try:
            async with client.stream("POST", f"{self._url}/v1/completions", json=body) as answer:
                async for line in answer.aiter_lines():
                    last = line or last
            problem = "" if last == "data: [DONE]" else f"{answer.status_code}, ends with {last[:80]}"
        except httpx.HTTPError as error:
            problem = type(error).__name__
        if problem:
            self.outcome.broken.append(problem)


def latency_ms(url: str, times: int) -> float:
    """The median of a request that no engine works for, one after the other."""
    found = []
    with httpx.Client(trust_env=False, timeout=30) as client:
        client.get(f"{url}/v1/models")
        for _ in range(times):
            started = time.perf_counter()
            client.get(f"{url}/v1/models").raise_for_status()
            found.append(time.perf_counter() - started)
    return statistics.median(found) * 1000
