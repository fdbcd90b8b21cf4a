"""What the measuring client costs and how true it is, against httpx and aiohttp reading the same streams, in one run.

    python -m benchmarks.client_overhead [ROUNDS]      needs httpx and aiohttp; uvloop where it is there

A server in a process of its own sends events on a schedule and keeps when it sent each (one clock for both processes).
Cost: processor time of the client per event, reading and parsing, of 4 streams of 5000 events as fast as they come, and
of 50 streams of 100 events at 50/s, where each event is a read of its own. Truth: 200 streams of 100 events at 50/s,
when each event was stamped against when it was sent. Floors: the same streams, of which only the bytes are counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

from benchmarks.floors import HAS_UVLOOP, count_in_protocols, count_in_selector, on_uvloop
from benchmarks.timing import IS_SHORT, report, rounds_of
from deploytk.base.progress import Silent
from deploytk.serve import Endpoint
from deploytk.smoke import Measurement, Workload, measure
from deploytk.smoke.client import Connection
from deploytk.smoke.received import receive

EVENTS, RATE = (20 if IS_SHORT else 100), 50.0
FAST_EVENTS, FAST_STREAMS = (500 if IS_SHORT else 5000), 4
TRUE_STREAMS = 20 if IS_SHORT else 200
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Server:
    """Streams of events, each at its time: one loop over all of them."""

    def __init__(self, stamps: Path) -> None:
        self.stamps = stamps
        self.sent: dict[str, list[int]] = {}
        self.due: list[tuple[float, int, str, asyncio.StreamWriter, int]] = []
        self.count = 0

    async def run(self) -> None:
        listener = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        print(listener.sockets[0].getsockname()[1], flush=True)
        while True:
            while self.due and self.due[0][0] <= time.perf_counter():
                self.send(*heapq.heappop(self.due))
            wait = self.due[0][0] - time.perf_counter() if self.due else 0.001
            await asyncio.sleep(min(max(wait, 0), 0.001))

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                size = int(head.partition("content-length:")[2].split("\r\n")[0] or 0)
                body = json.loads(await reader.readexactly(size)) if size else {}
                if "get /stamps" in head:
                    self.stamps.write_text(json.dumps(self.sent))
                    self.sent = {}
                if not size:
                    writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                    continue
                key = body["messages"][0]["content"]
                self.sent[key] = []
                writer.write(HEAD)
                self.count += 1
                if body["max_tokens"] == FAST_EVENTS:
                    await self.send_fast(writer)
                    continue
                # Streams do not tick together: 0.1 ms apart.
                first = time.perf_counter() + 0.05 + self.count % 200 / 10_000
                heapq.heappush(self.due, (first, self.count, key, writer, 0))

    async def send_fast(self, writer: asyncio.StreamWriter) -> None:
        for _ in range(FAST_EVENTS // 50):
            writer.write(b"".join(event(number) for number in range(50)))
            await writer.drain()
        writer.write(end(FAST_EVENTS))

    def send(self, when: float, stream: int, key: str, writer: asyncio.StreamWriter, number: int) -> None:
        if number == EVENTS:
            writer.write(end(EVENTS))
            return
        self.sent[key].append(time.perf_counter_ns())
        writer.write(event(number))
        heapq.heappush(self.due, (when + 1 / RATE, stream, key, writer, number + 1))


def event(number: int) -> bytes:
    choice = {"index": 0, "delta": {"content": f" word{number}"}, "finish_reason": None}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "truth"}
    return chunk({**head, "choices": [choice]})


def end(events: int) -> bytes:
    usage = {"prompt_tokens": 1, "completion_tokens": events}
    return chunk({"choices": [], "usage": usage}) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def chunk(event: dict[str, object]) -> bytes:
    data = b"data: " + json.dumps(event).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


@contextlib.contextmanager
def server() -> Iterator[tuple[str, Callable[[], dict[str, list[int]]]]]:
    """The URL, and a function that gives the stamps since it was last asked."""
    import httpx

    with tempfile.TemporaryDirectory() as directory:
        stamps = Path(directory) / "stamps.json"
        command = [
            sys.executable,
            "-m",
            "benchmarks.client_overhead",
            "--server",
            str(stamps),
            *(["--short"] if IS_SHORT else []),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout
            url = f"http://127.0.0.1:{child.stdout.readline().strip()}"

            def read() -> dict[str, list[int]]:
                httpx.get(f"{url}/stamps", trust_env=False)
                found: dict[str, list[int]] = json.loads(stamps.read_text())
                return found

            try:
                yield url, read
            finally:
                child.kill()


def body(number: int, events: int) -> dict[str, object]:
    messages = [{"role": "user", "content": f"question {number}"}]
    return {"model": "truth", "messages": messages, "stream": True, "max_tokens": events}


def measured(url: str, streams: int, events: int) -> Measurement:
    workload = Workload(requests=streams, warmup_requests=0, output_tokens=events, concurrency=streams)
    endpoint = Endpoint(url, "truth", None, None, None, None)
    return measure(endpoint, workload, (), Silent())


async def with_ours(url: str, streams: int, events: int) -> int:
    """Reading and parsing alone, as the others do it."""

    async def read(number: int) -> int:
        connection = Connection(url)
        received = receive(await connection.post("/v1/chat/completions", body(number, events), 60))
        connection.close()
        return sum(bool(event["choices"]) for _, event in received.events)

    return sum(await asyncio.gather(*(read(number) for number in range(streams))))


async def with_httpx(url: str, streams: int, events: int) -> int:
    import httpx

    async def read(client: httpx.AsyncClient, number: int) -> int:
        count = 0
        async with client.stream("POST", f"{url}/v1/chat/completions", json=body(number, events)) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    event = json.loads(line[6:])
                    time.perf_counter_ns()
                    count += bool(event["choices"])
        return count

    limits = httpx.Limits(max_connections=streams)
    async with httpx.AsyncClient(limits=limits, trust_env=False, timeout=60) as client:
        return sum(await asyncio.gather(*(read(client, number) for number in range(streams))))


async def with_aiohttp(url: str, streams: int, events: int) -> int:
    import aiohttp

    async def read(session: aiohttp.ClientSession, number: int) -> int:
        count = 0
        async with session.post(f"{url}/v1/chat/completions", json=body(number, events)) as answer:
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    event = json.loads(line[6:])
                    time.perf_counter_ns()
                    count += bool(event["choices"])
        return count

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=streams)) as session:
        return sum(await asyncio.gather(*(read(session, number) for number in range(streams))))


def bare(url: str, streams: int, events: int, count: Callable[[int, list[bytes]], int]) -> int:
    """Bytes alone are counted, which says how many events there were."""
    bodies = [json.dumps(body(number, events)).encode() for number in range(streams)]
    requests = [b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(one), one) for one in bodies]
    whole = len(HEAD) + sum(len(event(number % 50 if events == FAST_EVENTS else number)) for number in range(events))
    return events * count(int(url.rpartition(":")[2]), requests) // (whole + len(end(events)))


def cost(url: str, rounds: int, streams: int, events: int) -> dict[str, float]:
    """Microseconds of processor time per event, the median of `rounds`, in turn."""
    readers: dict[str, Callable[[], int]] = {
        "deploytk": lambda: asyncio.run(with_ours(url, streams, events)),
        "httpx": lambda: asyncio.run(with_httpx(url, streams, events)),
        "aiohttp": lambda: asyncio.run(with_aiohttp(url, streams, events)),
        "floor: asyncio": lambda: bare(url, streams, events, lambda *all: asyncio.run(count_in_protocols(*all))),
        "floor: select and recv": lambda: bare(url, streams, events, count_in_selector),
    }
    if HAS_UVLOOP:
        readers |= {
            "deploytk on uvloop": lambda: on_uvloop(with_ours(url, streams, events)),
            "aiohttp on uvloop": lambda: on_uvloop(with_aiohttp(url, streams, events)),
            "floor: uvloop": lambda: bare(url, streams, events, lambda *all: on_uvloop(count_in_protocols(*all))),
        }
    found: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(rounds + 1):  # the first one warms up
        for name, read in readers.items():
            started = time.process_time()
            count = read()
            if count != streams * events:
                raise RuntimeError(f"{name} read {count} events of {streams * events}")
            found[name].append((time.process_time() - started) / count * 1e6)
    return {name: round(statistics.median(values[1:]), 1) for name, values in found.items()}


def truth(url: str, stamps: Callable[[], dict[str, list[int]]]) -> dict[str, object]:
    """How late first events were seen, and how wrong gaps were, with 200 streams."""
    stamps()
    measurement = measured(url, TRUE_STREAMS, EVENTS)
    records = measurement.records
    sent = stamps()
    late = [(record.event_ns[0] - sent[record.prompt][0]) / 1e6 for record in records]
    errors = []
    for record in records:
        true_gaps = ((b - a) / 1e6 for a, b in pairwise(sent[record.prompt]))
        errors += [abs(seen - true) for seen, true in zip(record.chunk_gaps_ms, true_gaps, strict=True)]
    check, lag_ms = measurement.client, measurement.lag_p99_ms or 0.0
    doubts = check is None or check.ttft_error_ms > 5 or check.gap_error_p99_ms > 3 or lag_ms > 3
    return {
        "streams": TRUE_STREAMS,
        "events": sum(len(record.event_ns) for record in records),
        "ttft_error_median_ms": round(statistics.median(late), 2),
        "gap_error_p99_ms": round(statistics.quantiles(errors, n=100)[98], 2),
        "lag_p99_ms": round(lag_ms, 2),
        "self_check": "inconclusive" if doubts else "conclusive",
    }


def main() -> None:
    if sys.argv[1:2] == ["--server"]:
        asyncio.run(Server(Path(sys.argv[2])).run())
        return
    rounds = rounds_of(5)
    with server() as (url, stamps):
        fast, paced = cost(url, rounds, FAST_STREAMS, FAST_EVENTS), cost(url, rounds, 50, EVENTS)
        report(
            claim="at most 15 µs per event; TTFT error at most 5 ms at the median, gap error p99 at most 3 ms",
            rounds=rounds,
            microseconds_per_event=fast,
            microseconds_per_event_paced=paced,
            truth=[truth(url, stamps) for _ in range(min(rounds, 3))],
        )


if __name__ == "__main__":
    main()
