"""Does the largest batch that a plan says to fit really fit? On GPUs of which only so much is free, and on a whole one.

    python benchmarks/gpu/border.py OUT ENVIRONMENT [GIB ...]    (GIB left free; 0: all of it; default 8 16 0)

Another process holds the rest. `plan` names the largest batch of 8192 tokens; a plan for it must fit, one for one
session more must not, and `smoke` of it must become ready and answer. ENVIRONMENT is sourced before LMDeploy. A line of
OUT/border.jsonl for each, as it comes.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serving import lmdeploy_program

CHECKOUT = Path(__file__).parents[2]
SESSION_LEN = 8192
GIB = 2**30

HOLD = """
import sys, torch
free = torch.cuda.mem_get_info()[0]
held = torch.empty(max(0, free - int(sys.argv[1])), dtype=torch.uint8, device="cuda")
print("held", flush=True)
sys.stdin.read()
"""


def environment(path: str, work: Path) -> dict[str, str]:
    """What that file exports, with an `lmdeploy` on the path."""
    shown = subprocess.run(["bash", "-c", f". {path} && env -0"], capture_output=True, text=True, check=True).stdout
    found = dict(entry.partition("=")[::2] for entry in shown.split("\0") if entry)
    found["PATH"] = f"{lmdeploy_program(work)}:{found['PATH']}"
    found["PYTHONPATH"] = f"{CHECKOUT / 'toolkit'}:{found.get('PYTHONPATH', '')}"
    return found | {"DEPLOYTK_DATA_DIR": str(work / "data"), "COLUMNS": "120"}


@contextlib.contextmanager
def only_free(gib: float) -> Iterator[None]:
    """Another process holds all but so much; with 0, nobody holds anything."""
    if not gib:
        yield
        return
    command = [sys.executable, "-c", HOLD, str(int(gib * GIB))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holding:
        assert holding.stdout is not None
        assert holding.stdout.readline() == "held\n"
        try:
            yield
        finally:
            holding.kill()


def deploytk(arguments: list[str], variables: dict[str, str], within_s: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploytk", *arguments]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=within_s)


def plan(model: Path, batch: int, variables: dict[str, str]) -> dict[str, Any]:
    sessions = ["--session-len", str(SESSION_LEN), "--max-batch-size", str(batch)]
    return json.loads(deploytk(["plan", str(model), "--json", *sessions], variables, 60).stdout)


def border(model: Path, gib: float, variables: dict[str, str], place: Path) -> dict[str, Any]:
    with only_free(gib):
        largest = plan(model, 1, variables)["largest_batch"]
        plans = {batch: plan(model, batch, variables) for batch in (largest, largest + 1)}
        report = place / "smoke.json"
        report.unlink(missing_ok=True)
        started = time.monotonic()
        sessions = ["--session-len", str(SESSION_LEN), "--max-batch-size", str(largest)]
        asked = ["--golden", str(CHECKOUT / "tests/models/dialogs.json"), "--requests", "12", "--output-tokens", "32"]
        done = deploytk(["smoke", str(model), *sessions, *asked, "-o", str(report)], variables, 150)
        found = json.loads(report.read_text()) if report.is_file() else {}
    vram, checks = found.get("vram") or {}, {one["check"]: one["status"] for one in found.get("correctness", ())}
    use = vram["ready_bytes"] - vram["baseline_bytes"] if vram else None
    return {
        "free_gib": gib or "all",
        "largest_batch": largest,
        "fits": {batch: one["fits"] for batch, one in plans.items()},
        "share": plans[largest]["cache_max_entry_count"],
        "smoke": done.returncode,
        "golden": checks.get("golden answers"),
        "planned_mib": vram["predicted"]["total_bytes"] // 2**20 if vram else None,
        "measured_mib": use and use // 2**20,
        "peak_mib": vram and (vram["peak_bytes"] - vram["baseline_bytes"]) // 2**20,
        "seconds": round(time.monotonic() - started, 1),
        "said": "" if found else (done.stdout + done.stderr)[-1500:],
    }


def main() -> None:
    out, sourced, *left = sys.argv[1:]
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        variables = environment(sourced, place)
        model = place / "model"
        grown = [sys.executable, str(CHECKOUT / "benchmarks/gpu/grown.py"), str(CHECKOUT / "tests/models/hf-fp16")]
        subprocess.run([*grown, str(model), os.environ.get("LAYERS", "6")], check=True, timeout=120)
        for gib in map(float, left or ("8", "16", "0")):
            try:
                row = border(model, gib, variables, place)
            except subprocess.TimeoutExpired as error:
                row = {"free_gib": gib, "said": f"no end within {error.timeout} s"}
            print(json.dumps(row), flush=True)
            with (Path(out) / "border.jsonl").open("a") as rows:
                rows.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
