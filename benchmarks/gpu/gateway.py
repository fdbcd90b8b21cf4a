"""The app of a bundle with real LMDeploy on a GPU: right answers through the gateway, and what it costs under load.

    python benchmarks/gpu/gateway.py MODEL [--streams 32] [--tokens 256] [--dialogs DIALOGS [--page]] [-o OUT]

Needs `lmdeploy` on the path and a GPU. With --dialogs every answer must be the golden one, whole and streamed, through
plain HTTP and, where it is installed, through the openai client; with --page (needs gradio) also through
gradio_client. The load runs in turn against the engine alone (its own port on loopback) and
against the gateway in front of it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "toolkit"), str(ROOT / "benchmarks")]

import httpx  # noqa: E402
from timing import machine  # noqa: E402

from deploytk.base.progress import Silent  # noqa: E402
from deploytk.plan import PlanRequest  # noqa: E402
from deploytk.serve import Endpoint, ServeOptions, open_endpoint  # noqa: E402


def right_answers(endpoint: Endpoint, dialogs: list[dict[str, str]]) -> dict[str, int]:
    found = {"whole": 0, "streamed": 0}
    for dialog in dialogs:
        body = {"model": endpoint.model, "messages": [{"role": "user", "content": dialog["prompt"]}]}
        body |= {"temperature": 0, "max_tokens": 512}
        whole = httpx.post(f"{endpoint.url}/v1/chat/completions", json=body, timeout=120, trust_env=False).json()
        found["whole"] += whole["choices"][0]["message"]["content"] == dialog["answer"]
        found["streamed"] += _streamed(endpoint, body) == dialog["answer"]
    try:
        from openai import OpenAI
    except ImportError:
        return found
    with httpx.Client(trust_env=False) as http:
        client = OpenAI(base_url=f"{endpoint.url}/v1", api_key="none", http_client=http)
        answers = [
            client.chat.completions.create(
                model=endpoint.model, messages=[{"role": "user", "content": dialog["prompt"]}], temperature=0
            ).choices[0].message.content
            for dialog in dialogs
        ]  # fmt: skip
    found["openai"] = sum(answer == dialog["answer"] for answer, dialog in zip(answers, dialogs, strict=True))
    return found


def _streamed(endpoint: Endpoint, body: dict[str, Any]) -> str:
    text = ""
    url = f"{endpoint.url}/v1/chat/completions"
    with httpx.stream("POST", url, json={**body, "stream": True}, timeout=120, trust_env=False) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                choices = json.loads(line[6:])["choices"]
                text += "".join(choice["delta"].get("content") or "" for choice in choices)
    return text


def right_answers_of_gradio(endpoint: Endpoint, dialogs: list[dict[str, str]]) -> int:
    """Answers as gradio_client gets them from `/chat`."""
    from gradio_client import Client

    client = Client(endpoint.url, verbose=False)
    greedy = {"temperature": 0, "top_p": 1, "api_name": "/chat"}
    return sum(client.predict(dialog["prompt"], **greedy) == dialog["answer"] for dialog in dialogs)


async def stream(port: int, model: str, tokens: int) -> tuple[float, int]:
    """Seconds to the first token, and the tokens that the server counted."""
    body = {"model": model, "prompt": "Tell me a story.", "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    content = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    started = time.perf_counter()
    writer.write(head.encode() + content)
    first, received = 0.0, b""
    while data := await reader.read(65536):
        received += data
        if not first and b'"text":' in received:
            first = time.perf_counter() - started
    writer.close()
    counts = re.findall(rb'"completion_tokens":\s*(\d+)', received)
    if b"data: [DONE]" not in received or not counts:
        raise RuntimeError(f"a stream was cut: {received[-300:]!r}")
    return first, int(counts[-1])


async def load(port: int, model: str, streams: int, tokens: int) -> tuple[float, float]:
    """Tokens per second over all streams, and the median time to the first token in ms."""
    started = time.perf_counter()
    results = await asyncio.gather(*(stream(port, model, tokens) for _ in range(streams)))
    wall_s = time.perf_counter() - started
    return sum(count for _, count in results) / wall_s, statistics.median(first for first, _ in results) * 1000


def engine_port(endpoint: Endpoint) -> int:
    """Where the engine of the app listens on loopback: the last --server-port on the command line of its child."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == endpoint.pid:
                words = stat.with_name("cmdline").read_bytes().decode().split("\0")
                return int(words[len(words) - words[::-1].index("--server-port")])
    raise RuntimeError("the app has no engine")


def compare(endpoint: Endpoint, streams: int, tokens: int, rounds: int) -> dict[str, dict[str, float]]:
    ports = {"engine": engine_port(endpoint), "gateway": int(endpoint.url.rpartition(":")[2])}
    speeds: dict[str, list[float]] = {name: [] for name in ports}
    firsts: dict[str, list[float]] = {name: [] for name in ports}
    single: dict[str, list[float]] = {name: [] for name in ports}
    for port in ports.values():
        asyncio.run(load(port, endpoint.model, streams, 16))
    for _ in range(rounds):
        for name, port in ports.items():
            speed, first = asyncio.run(load(port, endpoint.model, streams, tokens))
            speeds[name].append(speed)
            firsts[name].append(first)
            single[name] += [asyncio.run(load(port, endpoint.model, 1, 2))[1] for _ in range(10)]
    return {
        name: {
            "tokens_per_s": round(statistics.median(speeds[name]), 1),
            "ttft_ms": round(statistics.median(firsts[name]), 2),
            "ttft_one_stream_ms": round(statistics.median(single[name]), 2),
        }
        for name in ports
    }


def gpu() -> str:
    if not shutil.which("nvidia-smi"):
        return "none"
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--session-len", type=int, default=1024)
    parser.add_argument("--dialogs", type=Path)
    parser.add_argument("--page", action="store_true", help="with the chat page; needs gradio")
    parser.add_argument("--output", "-o", type=Path)
    options = parser.parse_args()
    request = PlanRequest(session_len=options.session_len, max_batch_size=options.streams)
    kind = "gradio" if options.page else "api"
    serve = ServeOptions(engine="turbomind", app=kind, request=request)
    with open_endpoint(options.model, serve, Silent()) as endpoint:
        dialogs = json.loads(options.dialogs.read_text(encoding="utf-8")) if options.dialogs else []
        answers = right_answers(endpoint, dialogs) if dialogs else {}
        if options.page and dialogs:
            answers["page"] = right_answers_of_gradio(endpoint, dialogs)
        load_figures = compare(endpoint, options.streams, options.tokens, options.rounds)
        engine = endpoint.engine
    figures = {
        "machine": machine(),
        "gpu": gpu(),
        "model": Path(options.model).name,
        "serving_engine": engine,
        "right_answers": {name: f"{count} of {len(dialogs)}" for name, count in answers.items()},
        "streams": options.streams,
        "tokens": options.tokens,
        **load_figures,
        "share": round(load_figures["gateway"]["tokens_per_s"] / load_figures["engine"]["tokens_per_s"], 3),
    }
    text = json.dumps(figures, indent=2, ensure_ascii=False)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    return 0 if all(count == len(dialogs) for count in answers.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
