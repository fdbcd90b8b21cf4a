"""A server that speaks the OpenAI protocol, sends what a test tells it to, and remembers when it did."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ports import free_port

MODEL = "truth"


@dataclass
class Behaviour:
    """How the server answers; faults are off by default."""

    answer: Callable[[str], str] = lambda prompt: f"You said: {prompt}"
    first_after_s: float = 0.0
    gap_s: float = 0.0
    tokens_per_event: int = 1
    has_usage: bool = True
    extra_tokens: int = 0  # that usage counts too many
    stops_after: int | None = None  # events, then the connection closes
    fails_every: int = 0  # every n-th request gets status 500
    trouble: str = "out of memory"  # what is said then
    is_chunked: bool = True
    has_role_event: bool = True
    models: Any = None  # what /v1/models answers instead
    counts: list[int] | None = None  # of prompts and answers, so far, as /metrics says them; None: there is none
    ready_after: int = 0  # requests for completions before that get status 503
    sent_ns: list[list[int]] = field(default_factory=list)  # per request, when each content event was written


class Server:
    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.url = ""
        self._count = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                size = int(head.partition("content-length:")[2].split("\r\n")[0] or 0)
                body = json.loads(await reader.readexactly(size)) if size else {}
                path = head.split(" ")[1]
                if not await self._answer(path, body, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        if path == "/v1/models":
            default = {"data": [{"id": MODEL}]}
            return self._plain(writer, 200, default if self.behaviour.models is None else self.behaviour.models)
        if path == "/metrics" and self.behaviour.counts is not None:
            return self._metrics(writer, *self.behaviour.counts)
        if path not in ("/v1/chat/completions", "/v1/completions"):
            return self._plain(writer, 404, {"error": {"message": "no such path"}})
        self._count += 1
        if self._count <= self.behaviour.ready_after:
            return self._plain(writer, 503, {"error": {"message": "loading"}})
        if self.behaviour.fails_every and self._count % self.behaviour.fails_every == 0:
            return self._plain(writer, 500, {"error": {"message": self.behaviour.trouble}})
        return await self._stream(path, body, writer)

    def _metrics(self, writer: asyncio.StreamWriter, prompt: int, generation: int) -> bool:
        text = f"lmdeploy:prompt_tokens_total {prompt}\nlmdeploy:generation_tokens_total {generation}\n".encode()
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text)
        return True

    def _plain(self, writer: asyncio.StreamWriter, status: int, value: Any) -> bool:
        content = json.dumps(value).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        writer.write(head.encode() + content)
        return True

    async def _stream(self, path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        behaviour, is_chat = self.behaviour, path.endswith("chat/completions")
        encoding = "Transfer-Encoding: chunked" if behaviour.is_chunked else "Connection: close"
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{encoding}\r\n\r\n".encode())

        def send(data: bytes) -> None:
            writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n" if behaviour.is_chunked else data)

        def event(value: dict[str, Any]) -> bytes:
            return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()

        if is_chat and behaviour.has_role_event:
            send(event({"choices": [{"delta": {"role": "assistant", "content": ""}}]}))
        prompt = body["messages"][-1]["content"] if is_chat else body["prompt"]
        text = behaviour.answer(prompt)
        size = behaviour.tokens_per_event  # every character is a token here
        pieces = [text[at : at + size] for at in range(0, len(text), size)][: body.get("max_tokens")]
        times: list[int] = []
        behaviour.sent_ns.append(times)
        await asyncio.sleep(behaviour.first_after_s)
        started = time.perf_counter()
        for number, piece in enumerate(pieces):
            await asyncio.sleep(max(0.0, started + number * behaviour.gap_s - time.perf_counter()))
            if number == behaviour.stops_after:
                return False
            send(event({"choices": [{"delta": {"content": piece}} if is_chat else {"text": piece}]}))
            times.append(time.perf_counter_ns())
            await writer.drain()
        send(event({"choices": [{"delta": {}, "finish_reason": "stop"}]}))
        if behaviour.counts:
            behaviour.counts[0] += len(prompt)
            behaviour.counts[1] += sum(map(len, pieces))
        if behaviour.has_usage:
            count = sum(map(len, pieces)) + behaviour.extra_tokens
            send(event({"choices": [], "usage": {"prompt_tokens": len(prompt), "completion_tokens": count}}))
        send(b"data: [DONE]\n\n")
        if behaviour.is_chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        return behaviour.is_chunked


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[Server]:
    """The server on a free port of loopback, in a thread."""
    server, loop, ready = Server(behaviour), asyncio.new_event_loop(), threading.Event()

    async def run(stop: asyncio.Event) -> None:
        listener = await asyncio.start_server(server.handle, "127.0.0.1", free_port())
        server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        ready.set()
        await stop.wait()
        listener.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(run(stop)), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
