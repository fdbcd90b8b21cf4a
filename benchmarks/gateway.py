"""What the gateway costs: the engine stub alone against the stub behind the app, in turn, in one run.

    python -m benchmarks.gateway

Time to first token with one stream, beside a relay that hands the bytes on without a look at them; tokens per second
with 64 streams of 100 tokens/s each (2 cores shared by client, gateway and stub); resident memory of the app without
and with its chat page.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from apps import STUB, App, make_app, running_app, wait_for
from ports import free_port

from benchmarks.floors import HAS_UVLOOP, relay
from benchmarks.timing import IS_SHORT, report

STREAMS, TOKENS, RATE = (8, 30, 100) if IS_SHORT else (64, 300, 100)
ROUNDS, REQUESTS = (1, 4) if IS_SHORT else (5, 40)
ASKED_TTFT_MS, ASKED_SHARE, ASKED_MIB, ASKED_MIB_WITH_PAGE = 0.3, 0.9, 150, 400


async def stream(port: int, tokens: int, rate: float) -> tuple[float, int]:
    """Seconds to the first token, and how many tokens came."""
    body = {"model": "tiny", "prompt": "x", "stream": True, "max_tokens": tokens, "stub_tokens_per_s": rate}
    content = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    started = time.perf_counter()
    writer.write(head.encode() + content)
    first, events = 0.0, 0
    while data := await reader.read(65536):
        if not first and b"data: " in data:
            first = time.perf_counter() - started
        events += data.count(b'"text": "t')
    writer.close()
    return first, events


async def ttft_ms(port: int, requests: int) -> list[float]:
    return [(await stream(port, 2, 0))[0] * 1000 for _ in range(requests)]


async def tokens_per_s(port: int) -> float:
    started = time.perf_counter()
    results = await asyncio.gather(*(stream(port, TOKENS, RATE) for _ in range(STREAMS)))
    assert sum(count for _, count in results) == STREAMS * TOKENS, "tokens were lost"
    return STREAMS * TOKENS / (time.perf_counter() - started)


@contextlib.contextmanager
def stub() -> Iterator[int]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-S", str(STUB), "--server-port", str(port)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield port
    finally:
        process.kill()
        process.wait()


def rss_mib(app: App) -> float:
    pages = int(Path(f"/proc/{app.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory_with_page(place: Path) -> float:
    with running_app(make_app(place, "gradio"), place / "log") as app:
        app.wait("ready")
        wait_for(lambda: app.state["page"], 60)
        app.get("/")
        return rss_mib(app)


def main() -> int:
    with tempfile.TemporaryDirectory() as directory, stub() as alone, contextlib.ExitStack() as stack:
        place = Path(directory)
        (place / "api").mkdir()
        (place / "gradio").mkdir()
        bundle = make_app(place / "api")
        with running_app(bundle, place / "log", {"DEPLOYTK_MAX_RUNNING": "256"}) as app:
            app.wait("ready")
            behind = int(app.url.rpartition(":")[2])
            ports = {"alone": alone, "behind": behind}
            floors = {"relay": stack.enter_context(relay(alone))}
            if HAS_UVLOOP:
                floors["relay on uvloop"] = stack.enter_context(relay(alone, "--uvloop"))
            first: dict[str, list[float]] = {name: [] for name in (*ports, *floors)}
            speed: dict[str, list[float]] = {name: [] for name in ports}
            for port in (*ports.values(), *floors.values()):
                asyncio.run(ttft_ms(port, 20))
            for _ in range(ROUNDS):
                for name, port in {**ports, **floors}.items():
                    first[name] += asyncio.run(ttft_ms(port, REQUESTS))
            for _ in range(min(ROUNDS, 3)):
                for name, port in ports.items():
                    speed[name].append(asyncio.run(tokens_per_s(port)))
            memory = rss_mib(app)
        with_page = 0.0 if IS_SHORT else memory_with_page(place / "gradio")
    added_ms, *floors_ms = (
        statistics.median(first[name]) - statistics.median(first["alone"]) for name in ("behind", *floors)
    )
    share = statistics.median(speed["behind"]) / statistics.median(speed["alone"])
    report(
        app_runs_on="uvloop" if HAS_UVLOOP else "asyncio",  # as uvicorn chooses; bundles bring no uvloop
        ttft_alone_ms=round(statistics.median(first["alone"]), 2),
        ttft_behind_ms=round(statistics.median(first["behind"]), 2),
        ttft_added_ms=round(added_ms, 2),
        floors={name: round(floor_ms, 2) for name, floor_ms in zip(floors, floors_ms, strict=True)},
        tokens_per_s_alone=round(statistics.median(speed["alone"])),
        tokens_per_s_behind=round(statistics.median(speed["behind"])),
        share=round(share, 3),
        memory_mib=round(memory),
        memory_with_page_mib=round(with_page),
        streams=STREAMS,
        asked={
            "ttft_added_ms": ASKED_TTFT_MS,
            "share": ASKED_SHARE,
            "memory_mib": ASKED_MIB,
            "with_page": ASKED_MIB_WITH_PAGE,
        },
    )
    good = added_ms <= ASKED_TTFT_MS and share >= ASKED_SHARE and memory <= ASKED_MIB
    return 0 if IS_SHORT or (good and with_page <= ASKED_MIB_WITH_PAGE) else 1


if __name__ == "__main__":
    sys.exit(main())
