"""VRAM of LMDeploy servers of public shapes: before the pool is sized, at the peak while loading, once one answers.

    python benchmarks/gpu/vram_cells.py GPUS MODELS OUT.jsonl CELL ...

GPUS are indexes ("0" or "0,1"), MODELS holds directories with random weights, a CELL is
MODEL:SESSION:BATCH:KV:TP:PREFILL, such as llama3-8b-awq:8192:8:none:1:8192. Run it where LMDeploy is, with nothing
else on those GPUs: one line of JSON for each cell.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pynvml

MIB = 2**20
READY_WITHIN_S = 110.0


@dataclass(frozen=True)
class Cell:
    model: str
    session_len: int
    batch: int
    kv: str
    tp: int
    prefill: int

    @classmethod
    def parse(cls, text: str) -> Cell:
        model, session, batch, kv, tp, prefill = text.split(":")
        return cls(model, int(session), int(batch), kv, int(tp), int(prefill))


class Gpus:
    """What is used on some GPUs, read as often as it changes."""

    def __init__(self, indexes: list[int]) -> None:
        pynvml.nvmlInit()
        self._handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in indexes]
        self._before = self._used()
        self.peak_mib = [0.0] * len(indexes)
        self._is_over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _used(self) -> list[float]:
        version = pynvml.nvmlMemory_v2
        return [pynvml.nvmlDeviceGetMemoryInfo(one, version=version).used / MIB for one in self._handles]

    def used_mib(self) -> list[float]:
        return [now - before for now, before in zip(self._used(), self._before, strict=True)]

    def _watch(self) -> None:
        while not self._is_over.wait(0.008):
            self.peak_mib = [max(pair) for pair in zip(self.peak_mib, self.used_mib(), strict=True)]

    def close(self) -> None:
        self._is_over.set()

    def free_mib(self) -> float:
        found = pynvml.nvmlDeviceGetMemoryInfo(self._handles[0], version=pynvml.nvmlMemory_v2)
        return (found.total - found.reserved) / MIB


def share_for(cell: Cell, directory: Path, free_mib: float) -> float:
    """A pool that holds the sessions of `cell` and some blocks more."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    bits = {"none": 16, "int8": 8, "int4": 4}[cell.kv]
    heads = max(config["num_key_value_heads"], cell.tp) // cell.tp
    token = config["num_hidden_layers"] * heads * 2 * (config["head_dim"] * bits // 8 + (0 if cell.kv == "none" else 4))
    needed = cell.batch * (-(-cell.session_len // 64) + 2) * 64 * token * 1.08 / MIB + 160
    weights = sum(file.stat().st_size for file in directory.glob("*.safetensors")) / MIB / cell.tp
    return round(max(needed / (free_mib - 1800 - 1.05 * weights), 0.002), 4)


def command(cell: Cell, directory: Path, share: float, port: int) -> list[str]:
    flags = {
        "--server-name": "127.0.0.1",
        "--server-port": port,
        "--backend": "turbomind",
        "--model-name": "m",
        "--session-len": cell.session_len,
        "--max-batch-size": cell.batch,
        "--cache-max-entry-count": share,
        "--quant-policy": {"none": 0, "int8": 8, "int4": 4}[cell.kv],
        "--max-prefill-token-num": cell.prefill,
        "--tp": cell.tp,
    }
    words = [str(word) for flag in flags.items() for word in flag]
    return [sys.executable, "-m", "lmdeploy", "serve", "api_server", str(directory), *words]


def complete(port: int, tokens: int) -> dict[str, Any]:
    body = {"model": "m", "prompt": "ab", "max_tokens": tokens, "ignore_eos": True, "temperature": 0}
    url, headers = f"http://127.0.0.1:{port}/v1/completions", {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def is_ready(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            complete(port, 2)
            return True
        time.sleep(0.2)
    return False


def measure(cell: Cell, gpus: list[int], models: Path, log: Path) -> dict[str, Any]:
    watched = Gpus(gpus[: cell.tp])
    directory = models / cell.model
    share = share_for(cell, directory, watched.free_mib())
    port = 20000 + os.getpid() % 20000
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus[: cell.tp])), "TM_LOG_LEVEL": "INFO"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(cell, directory, share, port), stdout=output, stderr=output, env=environment, start_new_session=True
        )
    try:
        found: dict[str, Any] = {**vars(cell), "share": share, "ready": is_ready(process, port)}
        if found["ready"]:
            found |= {"ready_mib": watched.used_mib(), "loading_peak_mib": watched.peak_mib}
            complete(port, min(cell.session_len - 8, 256))
            found["after_an_answer_mib"] = watched.used_mib()
    finally:
        watched.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)
    budget = re.search(r"Object cache budget: ([\d.]+) MB from free ([\d.]+) MB", log.read_text(errors="replace"))
    return found | ({"pool_mib": float(budget[1]), "free_before_pool_mib": float(budget[2])} if budget else {})


def main() -> None:
    gpus, models, out = [int(one) for one in sys.argv[1].split(",")], Path(sys.argv[2]), Path(sys.argv[3])
    for text in sys.argv[4:]:
        found = measure(Cell.parse(text), gpus, models, out.with_suffix(f".{text.replace(':', '_')}.log"))
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
        print(json.dumps(found), flush=True)
        time.sleep(1)


if __name__ == "__main__":
    main()
