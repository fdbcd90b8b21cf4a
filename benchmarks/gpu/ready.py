"""From nothing to the first answer on a GPU: `serve` and `smoke`, against LMDeploy's own server with the same flags.

    python benchmarks/gpu/ready.py MODEL [ROUNDS] [-o OUT]

Needs `lmdeploy` on the path. All in turn, after one warm-up of each: then files are in memory. `serve` renders a
bundle, starts the app, and the app starts the engine; its figure ends with the first answer that the app passes on,
LMDeploy's with the first of its own. `smoke` says itself when its app was ready (`load_s`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from serving import gpu

ASKED_RATIO = 1.05
START_S = 240
APP_PORT, ENGINE_PORT = 17860, 23390


def first_answer_s(command: Sequence[str], port: int, model: str) -> float:
    """Seconds from the start of `command` to its first answer; it is ended then."""
    body = {"model": model, "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    started = time.monotonic()
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            while not _is_answered(request):
                if server.poll() is not None or time.monotonic() - started > START_S:
                    log.seek(0)
                    raise RuntimeError(f"no answer: {log.read().decode(errors='replace')[-1500:]}")
                time.sleep(0.02)
            return time.monotonic() - started
        finally:
            server.terminate()
            _wait_for_its_end(server)


def _wait_for_its_end(server: subprocess.Popen[bytes]) -> None:
    """Of all that it started too, and until the driver has its memory back: the next one shall find a quiet machine."""
    try:
        server.wait(60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
    query = ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"]
    end = time.monotonic() + 30
    while subprocess.run(query, capture_output=True, check=True).stdout.strip() and time.monotonic() < end:
        time.sleep(0.2)
    time.sleep(1)


def _is_answered(request: urllib.request.Request) -> bool:
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return bool(json.load(response)["choices"])
    except (OSError, ValueError):
        return False


def ready_of_smoke_s(model: Path, options: Sequence[str]) -> float:
    command = [sys.executable, "-m", "deploytk", "smoke", str(model), *options, "--requests", "1"]
    done = subprocess.run([*command, "--output-tokens", "1", "--json"], capture_output=True, timeout=START_S)
    return float(json.loads(done.stdout)["load_s"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="ready.py", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    parser.add_argument("-o", "--output", type=Path, default=Path("ready.json"))
    wanted = parser.parse_args()
    options = ["--engine", "turbomind"]
    plan: dict[str, Any] = json.loads(
        subprocess.run(
            [sys.executable, "-m", "deploytk", "plan", str(wanted.model), "--json"], capture_output=True, check=True
        ).stdout
    )
    alone = [*plan["argv"]]
    alone[alone.index("--server-port") + 1] = str(ENGINE_PORT)
    serve = [sys.executable, "-m", "deploytk", "serve", str(wanted.model), *options, "--app", "api"]
    runs: dict[str, Callable[[], float]] = {
        "lmdeploy": lambda: first_answer_s(alone, ENGINE_PORT, plan["model_name"]),
        "serve": lambda: first_answer_s([*serve, "--port", str(APP_PORT)], APP_PORT, plan["model_name"]),
        "smoke": lambda: ready_of_smoke_s(wanted.model, options),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(wanted.rounds + 1):
        for name, run in runs.items():
            took_s = round(run(), 2)
            print(f"{name}: {took_s} s{'' if round_ else ', a warm-up'}", flush=True)
            seconds[name] += [took_s] if round_ else []
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {name: round(medians[name] / medians["lmdeploy"], 3) for name in ("serve", "smoke")}
    found = {"gpu": gpu(), "lmdeploy": plan["lmdeploy"], "model": wanted.model.name, "argv": alone}
    found |= {"seconds": seconds, "medians": medians, "ratios": ratios, "asked_ratio": ASKED_RATIO}
    wanted.output.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps({"medians": medians, "ratios": ratios}))
    return 0 if max(ratios.values()) <= ASKED_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
