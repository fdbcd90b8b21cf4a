"""From `deploytk serve` to the first answer, against loading torch and the model alone, in turn, in one run.

    python -m benchmarks.serve_start

Both end when the model has given one token. The peer is one process that imports torch and transformers, loads the
same model and generates; `serve` also renders a bundle, starts the app and waits until it says that it is ready.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
from ports import free_port

from benchmarks.timing import IS_SHORT, Run, interleaved, median_s, report, run_process

MODEL = Path(__file__).parents[1] / "tests" / "models" / "hf-fp16"
ASKED_RATIO = 1.5
ROUNDS = 1 if IS_SHORT else 5
ALONE = """
import sys, torch, transformers
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
model.generate(**tokenizer("1", return_tensors="pt"), max_new_tokens=1, do_sample=False)
"""


def serve(app: str) -> Run:
    port = free_port()
    command = [sys.executable, "-m", "deploytk", "serve", str(MODEL), "--engine", "cpu", "--app", app]
    started = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ}
    )
    body = {"model": MODEL.name, "messages": [{"role": "user", "content": "2+2="}], "max_tokens": 1}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
        while not _is_answered(client, body):
            if time.perf_counter() - started > 120 or process.poll() is not None:
                raise RuntimeError("serve does not answer")
            time.sleep(0.02)
    wall_s = time.perf_counter() - started
    process.terminate()  # SIGINT is ignored by what a shell runs in the background
    process.wait(60)  # an app may drain for 30
    return Run(wall_s, 0)


def _is_answered(client: httpx.Client, body: dict[str, object]) -> bool:
    try:
        return client.post("/v1/chat/completions", json=body).status_code == 200
    except httpx.TransportError:
        return False


def main() -> int:
    candidates = {
        "alone": lambda: run_process([sys.executable, "-c", ALONE, str(MODEL)]),
        "serve_api": lambda: serve("api"),
    }
    if not IS_SHORT:
        candidates["serve_page"] = lambda: serve("gradio")
    runs = interleaved(candidates, ROUNDS)
    seconds = {name: round(median_s(of), 2) for name, of in runs.items()}
    ratios = {name: round(seconds[name] / seconds["alone"], 2) for name in candidates if name != "alone"}
    report(seconds=seconds, ratios=ratios, asked_ratio=ASKED_RATIO, rounds=ROUNDS)
    return 0 if IS_SHORT or max(ratios.values()) <= ASKED_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
