"""Stands for `lmdeploy serve api_server` in tests: the same routes and flat errors, tokens at a set speed, no model.

Speaks HTTP over asyncio streams with nothing else in between, so that a benchmark measures what is in front of it.
How it behaves comes from the environment (STUB_...) or, for one request, from fields that no engine knows.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from typing import Any

MODEL = os.environ.get("STUB_MODEL", "tiny")
LOAD_S = float(os.environ.get("STUB_LOAD_S", "0"))
TOKENS_PER_S = float(os.environ.get("STUB_TOKENS_PER_S", "0"))  # 0: as fast as it can
FIRST_TOKEN_S = float(os.environ.get("STUB_FIRST_TOKEN_S", "0"))
ONE_AT_A_TIME = bool(os.environ.get("STUB_ONE_AT_A_TIME"))  # as an engine whose batch is full
ADMIN = {"/update_weights", "/terminate", "/sleep", "/generate", "/abort_request"}

running = 0
cancelled = 0
SESSION_LEN = 200_000  # an engine ends an answer when its session is full
hangs = asyncio.Event()  # set: no more tokens for anybody, but the list of models as ever
turn = asyncio.Lock()


async def serve_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, path, _ = head.split("\r\n")[0].split(" ")
        lengths = [line.split(":")[1] for line in head.split("\r\n") if line.lower().startswith("content-length:")]
        body = await reader.readexactly(int(lengths[0]) if lengths else 0)
        await answer(method, path, body, reader, writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def answer(
    method: str, path: str, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    if path == "/v1/models":
        send_json(writer, 200, {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "lmdeploy"}]})
    elif path == "/metrics":
        send(
            writer,
            200,
            "text/plain",
            b"# TYPE lmdeploy:num_requests_running gauge\nlmdeploy:num_requests_running 0.0\n",
        )
    elif path == "/stub":
        send_json(writer, 200, {"running": running, "cancelled": cancelled, "pid": os.getpid()})
    elif path in ADMIN:
        send_json(writer, 200, {"admin": path})
    elif path in ("/v1/chat/completions", "/v1/completions"):
        await complete(path, json.loads(body), reader, writer)
    else:
        send_json(writer, 404, {"message": "Not Found", "type": "not_found", "code": 404, "object": "error"})


async def complete(
    path: str, fields: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    global running, cancelled
    if fields.get("stub_status"):
        flat = {"message": "stub says no", "type": "context_length_exceeded", "code": fields["stub_status"]}
        send_json(writer, fields["stub_status"], {**flat, "object": "error"})
        return
    running += 1
    gone = asyncio.ensure_future(reader.read(1))
    if fields.get("stub_hangs"):
        hangs.set()
    if ONE_AT_A_TIME:
        await turn.acquire()
    try:
        await asyncio.wait({gone}, timeout=fields.get("stub_first_token_s", FIRST_TOKEN_S))
        echoed = echo(fields) if "chat" in path else []
        count = len(echoed) or min(fields.get("max_tokens") or 16, SESSION_LEN)
        usage = {"prompt_tokens": 3, "completion_tokens": count, "total_tokens": count + 3}
        rate = float(fields.get("stub_tokens_per_s", TOKENS_PER_S))
        if fields.get("stream"):
            pieces = echoed or [token(at) for at in range(count)]
            await stream(path, fields, pieces, usage, rate, gone, writer)
        else:
            await asyncio.wait({gone}, timeout=3600 if hangs.is_set() else count / rate if rate else 0)
            text = "".join(token(at) for at in range(count))
            content = {"message": {"role": "assistant", "content": text}} if "chat" in path else {"text": text}
            choice = {"index": 0, "finish_reason": "length", **content}
            send_json(writer, 200, {"id": "stub", "model": MODEL, "choices": [choice], "usage": usage})
        cancelled += gone.done()
    except ConnectionError:
        cancelled += 1
    finally:
        running -= 1
        gone.cancel()
        if ONE_AT_A_TIME:
            turn.release()


async def stream(
    path: str,
    fields: dict[str, Any],
    pieces: list[str],
    usage: dict[str, int],
    rate: float,
    gone: asyncio.Future[bytes],
    writer: asyncio.StreamWriter,
) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n")
    writer.write(b"Transfer-Encoding: chunked\r\n\r\n" if fields.get("stub_chunks") else b"\r\n")
    writer = InChunks(writer) if fields.get("stub_chunks") else writer  # type: ignore[assignment]  # written to alike
    started = time.perf_counter()
    for at, piece in enumerate(pieces):
        if rate:
            await asyncio.sleep(max(0.0, started + at / rate - time.perf_counter()))
        if hangs.is_set():
            await asyncio.wait({gone})
        content = delta(piece) if "chat" in path else {"text": piece}
        send_event(writer, {"id": "stub", "model": MODEL, "choices": [{"index": 0, "finish_reason": None, **content}]})
        await writer.drain()
        if gone.done():
            return
    content = {"delta": {}} if "chat" in path else {"text": ""}
    why = "stop" if pieces[:1] != [token(0)] else "length"
    send_event(writer, {"id": "stub", "model": MODEL, "choices": [{"index": 0, "finish_reason": why, **content}]})
    if (fields.get("stream_options") or {}).get("include_usage"):
        send_event(writer, {"id": "stub", "model": MODEL, "choices": [], "usage": usage})
    writer.write(b"data: [DONE]\n\n")
    if isinstance(writer, InChunks):
        writer.end()


class InChunks:
    """A writer that puts what is written into chunks, whoever asked: uvicorn with httptools does."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.drain = writer.drain

    def write(self, data: bytes) -> None:
        self._writer.write(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self) -> None:
        self._writer.write(b"0\r\n\r\n")


def echo(fields: dict[str, Any]) -> list[str]:
    """The rest of a last message that begins with "echo ", in pieces of four letters; nothing for any other."""
    said = str(fields["messages"][-1].get("content") or "")
    return [said[at : at + 4] for at in range(5, len(said), 4)] if said.startswith("echo ") else []


def delta(piece: str) -> dict[str, Any]:
    """A piece of an answer; "hm" is what a model thinks, as a server with a parser for that parts it."""
    return {"delta": {"reasoning_content" if piece.startswith("hm") else "content": piece}}


def token(at: int) -> str:
    return f"t{at} "


def send_event(writer: asyncio.StreamWriter, content: dict[str, Any]) -> None:
    writer.write(b"data: " + json.dumps(content).encode() + b"\n\n")


def send_json(writer: asyncio.StreamWriter, status: int, content: dict[str, Any]) -> None:
    send(writer, status, "application/json", json.dumps(content).encode())


def send(writer: asyncio.StreamWriter, status: int, kind: str, body: bytes) -> None:
    head = f"HTTP/1.1 {status} STUB\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def main() -> None:
    port = int(sys.argv[len(sys.argv) - 1 - sys.argv[::-1].index("--server-port") + 1])
    if os.environ.get("STUB_SAYS"):
        say(os.environ["STUB_SAYS"])
    if os.environ.get("STUB_EXIT"):
        sys.exit(int(os.environ["STUB_EXIT"]))
    await asyncio.sleep(LOAD_S)
    server = await asyncio.start_server(serve_connection, "127.0.0.1", port, backlog=1024)
    say(f"stub pid {os.getpid()} port {port}")
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: os._exit(0))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
