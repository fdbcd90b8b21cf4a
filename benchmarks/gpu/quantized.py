"""A 7B shape from fp16 to W4A16: LMDeploy's auto_awq by itself, `deploytk quantize` on the same texts, a smoke test.

    python3 benchmarks/gpu/quantized.py OUT ENVIRONMENT [SECONDS]

ENVIRONMENT is sourced before every step: a file that puts LMDeploy and what it needs on the path. OUT gets
quantized.json, rewritten after every step (time, RAM of the process, memory of the GPU as the driver tells it), reports
and one log. Every step has a time limit; SECONDS (540) is that of all. The last step quantizes the tiny model that
recites: its eight dialogs have to come word for word.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import serving

CHECKOUT = Path(__file__).resolve().parents[2]
SAMPLES, SEQLEN = "32", "2048"


class Steps:
    """What was measured so far, written down after every step; one that fails does not end the others."""

    def __init__(self, out: Path, environment: str, seconds: float) -> None:
        self.out, self.environment, self.deadline = out, environment, time.monotonic() + seconds
        self.log = out / "log.txt"
        self.result: dict[str, Any] = {"gpu": _smi("name,driver_version,memory.total"), "steps": {}}

    def run(self, name: str, most_s: float, words: Sequence[str], read: Callable[[], dict[str, Any]] = dict) -> bool:
        left = min(most_s, self.deadline - time.monotonic())
        found: dict[str, Any] = {"command": " ".join(words[:8])}
        if left < 15:
            self.result["steps"][name] = {"not run": "no time was left"}
            return False
        with _Watched() as watched:
            started = time.monotonic()
            try:
                serving.shell(self.environment, words, self.log, left, PYTHONUNBUFFERED="1")
                found["ok"] = True
            except RuntimeError as error:
                found |= {"ok": False, "error": str(error)[-1500:]}
            found["wall_s"] = round(time.monotonic() - started, 2)
        found["gpu_mib_at_most"] = watched.peak
        if found["ok"]:
            found |= read()
        self.result["steps"][name] = found
        self.write()
        print(name, found, flush=True)
        return bool(found["ok"])

    def write(self) -> None:
        (self.out / "quantized.json").write_text(json.dumps(self.result, indent=1, ensure_ascii=False) + "\n")


class _Watched:
    """The most that is in use on the first GPU, above what was when it began, by asking the driver twice a second."""

    def __init__(self) -> None:
        self.peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> _Watched:
        self._before = _used_mib()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            self.peak = max(self.peak, _used_mib() - self._before)


def main() -> None:
    out, environment = Path(sys.argv[1]), sys.argv[2]
    out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    steps = Steps(out, environment, float(sys.argv[3]) if len(sys.argv) > 3 else 540)
    work = Path(tempfile.mkdtemp(prefix="quantized-"))
    program = serving.lmdeploy_program(work)
    try:
        _seven_billion(steps, work, program)
        _tiny(steps, work, program)
    except Exception as error:  # noqa: BLE001 (what was measured until here is the result)
        steps.result["error"] = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    finally:
        steps.write()
        shutil.rmtree(work, ignore_errors=True)


def _seven_billion(steps: Steps, work: Path, program: Path) -> None:
    here, dense, own, by_tool = Path(__file__).parent, work / "dense", work / "own", work / "by-tool"
    if not steps.run("make", 100, ["python3", str(here / "dense_7b.py"), str(dense)]):
        return
    alone = ["python3", str(here / "auto_awq.py"), str(dense), str(by_tool), SAMPLES, SEQLEN]
    steps.run("auto_awq", 220, alone, lambda: {"said": _last_json(steps.log), "bytes": _size(by_tool)})
    shutil.rmtree(by_tool, ignore_errors=True)
    said = steps.out / "quantize.json"
    words = ["quantize", str(dense), "-o", str(own), "--samples", SAMPLES, "--seqlen", SEQLEN, "--no-measure", "--json"]
    if steps.run(
        "deploytk quantize", 220, _deploytk(words, said, program), lambda: {"said": json.loads(said.read_text())}
    ):
        report = steps.out / "smoke.json"
        words = [
            "smoke",
            str(own),
            "--engine",
            "turbomind",
            "--session-len",
            "2048",
            "--requests",
            "8",
            "-o",
            str(report),
        ]
        steps.run("smoke", 110, _deploytk(words, steps.out / "smoke.txt", program), lambda: _verdict(report))
    shutil.rmtree(dense, ignore_errors=True)
    _compare(steps.result)


def _tiny(steps: Steps, work: Path, program: Path) -> None:
    dialogs, said = str(CHECKOUT / "tests" / "models" / "dialogs.json"), steps.out / "tiny-quantize.json"
    model, own = str(CHECKOUT / "tests" / "models" / "hf-fp16"), work / "tiny"
    words = ["quantize", model, "-o", str(own), "--golden", dialogs, "--samples", "32", "--seqlen", "512", "--json"]
    if steps.run("tiny: quantize", 90, _deploytk(words, said, program), lambda: {"said": json.loads(said.read_text())}):
        report = steps.out / "tiny-smoke.json"
        words = ["smoke", str(own), "--engine", "turbomind", "--golden", dialogs, "--requests", "8", "-o", str(report)]
        steps.run("tiny: smoke", 80, _deploytk(words, steps.out / "tiny-smoke.txt", program), lambda: _verdict(report))


def _deploytk(words: Sequence[str], stdout: Path, program: Path) -> list[str]:
    """With LMDeploy as a program on the path, which a directory of packages alone does not bring."""
    path = f'export PYTHONPATH="{CHECKOUT / "toolkit"}:$PYTHONPATH" PATH="{program}:$PATH"'
    script = f'{path}; exec python3 -m deploytk "$@" > "$0"'
    return ["bash", "-c", script, str(stdout), *words]


def _verdict(report: Path) -> dict[str, Any]:
    found = json.loads(report.read_text())
    checks = [one["status"] for one in found.get("correctness") or []]
    return {
        "verdict": found["verdict"],
        "vram": found.get("vram"),
        "answers_right": [checks.count("pass"), len(checks)],
    }


def _compare(result: dict[str, Any]) -> None:
    """What deploytk adds to the tool, as a share of the tool's time; both in this run."""
    alone, own = (result["steps"].get(name, {}) for name in ("auto_awq", "deploytk quantize"))
    if alone.get("ok") and own.get("ok"):
        result["added_percent"] = round(100 * (own["wall_s"] / alone["wall_s"] - 1), 2)


def _last_json(log: Path) -> Any:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("{")]
    return json.loads(lines[-1])


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _used_mib() -> int:
    return int(_smi("memory.used").splitlines()[0].split()[0])


def _smi(what: str) -> str:
    words = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
