"""Measures the client itself against a server in this process that knows when it sent what."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

from deploytk.base.event_loop import run
from deploytk.smoke.client import Connection
from deploytk.smoke.record import Outcome, Record, Request, to_record
from deploytk.smoke.statistics import percentile

_PACED_EVENTS = 20
_GAP_S = 0.01
_MOST_STREAMS = 64
_FAST_EVENTS = 10_000
_EVENTS_PER_WRITE = 50
_EVENT = b'data: {"id":"x","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
_END = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":%d}}\n\ndata: [DONE]\n\n'
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True, slots=True)
class ClientCheck:
    """What the client can do on this machine, now."""

    capacity_events_s: float  # streamed events per second of its processor time
    ttft_error_ms: float  # median: how late a first event is seen
    gap_error_p99_ms: float  # how far gaps between events are off


def check_client(streams: int) -> ClientCheck:
    """Read `streams` paced answers and a fast one; takes about half a second."""
    with _stub() as stub:
        return run(_check(stub, min(streams, _MOST_STREAMS)), is_timed=True)


async def _check(stub: _Stub, streams: int) -> ClientCheck:
    connections = [Connection(stub.url) for _ in range(streams)]
    try:
        return await _checked(stub, connections)
    finally:
        for connection in connections:
            connection.close()


async def _checked(stub: _Stub, connections: Sequence[Connection]) -> ClientCheck:
    for connection in connections:
        await connection.open()
    records = await asyncio.gather(*(_ask(one, f"paced {number}") for number, one in enumerate(connections)))
    late_ms, errors_ms = [], []
    for number, record in enumerate(records):
        sent = stub.sent_ns[number]
        late_ms.append((record.event_ns[0] - sent[0]) / 1e6)
        true_gaps = ((b - a) / 1e6 for a, b in pairwise(sent))
        errors_ms += [abs(seen - true) for seen, true in zip(record.chunk_gaps_ms, true_gaps, strict=True)]
    started = time.thread_time()
    fast = await _ask(connections[0], "fast")
    capacity = len(fast.event_ns) / max(time.thread_time() - started, 1e-6)
    return ClientCheck(capacity, statistics.median(late_ms), percentile(sorted(errors_ms), 99))


async def _ask(connection: Connection, prompt: str) -> Record:
    exchange = await connection.post("/v1/completions", {"prompt": prompt}, 30)
    return to_record(Outcome(Request(prompt, 0, is_exact=False), exchange.sent_ns, exchange, "", 0, None))


class _Stub:
    def __init__(self) -> None:
        self.url = ""
        self.sent_ns: dict[int, list[int]] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                body = await reader.readexactly(size)
                writer.write(_HEAD)
                if b"fast" in body:
                    await self._send_fast(writer)
                else:
                    await self._send_paced(writer, int(body.split(b"paced ")[1].split(b'"')[0]))
                writer.write(b"0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client or the check is done
        finally:
            writer.close()

    async def _send_fast(self, writer: asyncio.StreamWriter) -> None:
        block = _chunk(_EVENT) * _EVENTS_PER_WRITE
        for _ in range(_FAST_EVENTS // _EVENTS_PER_WRITE):
            writer.write(block)
            await writer.drain()
        writer.write(_chunk(_END % _FAST_EVENTS))

    async def _send_paced(self, writer: asyncio.StreamWriter, number: int) -> None:
        times = self.sent_ns[number] = []
        start = time.perf_counter() + 0.02
        for count in range(_PACED_EVENTS):
            await asyncio.sleep(start + count * _GAP_S - time.perf_counter())
            times.append(time.perf_counter_ns())
            writer.write(_chunk(_EVENT))
        writer.write(_chunk(_END % _PACED_EVENTS))


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@contextmanager
def _stub() -> Iterator[_Stub]:
    stub, loop, ready = _Stub(), asyncio.new_event_loop(), threading.Event()
    stop = asyncio.Event()

    async def run() -> None:
        listener = await asyncio.start_server(stub.serve, "127.0.0.1", 0)
        stub.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        ready.set()
        await stop.wait()
        listener.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), name="self-check", daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield stub
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
