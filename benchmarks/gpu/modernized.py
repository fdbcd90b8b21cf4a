"""Modernized legacy workspaces on a GPU: LMDeploy's TurboMind recites from them with every kind of KV cache.

python3 benchmarks/gpu/modernized.py OUT ENVIRONMENT [SECONDS]

OUT gets result.json (rewritten after every server) and a log per server; ENVIRONMENT is sourced before LMDeploy.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import serving

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "tests" / "models"
# Written here: InternLM with biases of values and output that cancel each other, and without the second (see
# reciting_internlm). The latter must not recite.
INTERNLM = {"internlm-0.4.2-awq": True, "internlm-one-bias": False}
KV = {"none": "0", "int8": "8", "int4": "4"}
RUNS = (
    *((workspace, kv) for workspace in ("workspace-0.4.2-awq", "workspace-0.7.3-awq") for kv in KV),
    *((workspace, "none") for workspace in INTERNLM),
    *(("workspace-0.9.2-awq", kv) for kv in KV),
)


def main() -> None:
    out, environment = Path(sys.argv[1]), sys.argv[2]
    deadline = time.monotonic() + float(sys.argv[3] if len(sys.argv) > 3 else 460)
    out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a limit from outside must not leave servers behind
    work = Path("/tmp") / f"modernized-{time.time_ns()}"
    dialogs = json.loads((MODELS / "dialogs.json").read_text(encoding="utf-8"))
    runs: list[dict[str, object]] = []
    results = {"gpu": serving.gpu(), "lmdeploy": environment, "of": len(dialogs), "runs": runs}
    # What matters most comes first: the last ones are skipped when time runs out.
    for workspace, kv in RUNS:
        run: dict[str, object] = {"workspace": workspace, "kv": kv}
        runs.append(run)
        if time.monotonic() > deadline - 60:
            run["skipped"] = "no time left"
        else:
            try:
                model = work / workspace
                if not model.exists():
                    source = MODELS / workspace
                    if workspace in INTERNLM:
                        source = _internlm(work / f"{workspace}-source", cancels=INTERNLM[workspace])
                    _modernize(source, model, out / f"{workspace}.modernize.json")
                run |= _serve(model, KV[kv], environment, out / f"{workspace}-kv-{kv}.log", dialogs)
            except Exception as error:  # noqa: BLE001 (the other runs go on, this one is reported)
                run["error"] = f"{type(error).__name__}: {error}"
                traceback.print_exc()
        (out / "result.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print({key: value for key, value in run.items() if key != "answers"}, flush=True)
    shutil.rmtree(work, ignore_errors=True)


def _internlm(root: Path, *, cancels: bool) -> Path:
    sys.path.insert(0, str(ROOT / "tests"))
    from legacy_workspace import reciting_internlm

    return reciting_internlm(MODELS / "hf-awq", root, cancels=cancels)


def _modernize(workspace: Path, model: Path, report: Path) -> None:
    model.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "deploytk", "--quiet", "modernize", str(workspace), "-o", str(model), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    report.write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(done.stderr[-600:])


def _serve(model: Path, policy: str, environment: str, log: Path, dialogs: list[dict[str, str]]) -> dict[str, object]:
    flags = ["--quant-policy", policy, "--session-len", "2048", "--max-batch-size", "4"]
    flags += ["--cache-max-entry-count", "0.05"]
    started = time.monotonic()
    with serving.serving(environment, model, flags, log) as url:
        ready_s = time.monotonic() - started
        right, answers = serving.right_answers(url, dialogs)
    return {"right": right, "ready_s": round(ready_s, 1), "turbomind": serving.is_turbomind(log), "answers": answers}


if __name__ == "__main__":
    main()
