"""A 7B workspace made by real LMDeploy 0.7.3 is modernized and served by a current one: wall time and peak memory.

python3 benchmarks/gpu/modernized_7b.py OUT CURRENT_ENVIRONMENT LEGACY_ENVIRONMENT SCRIPTS [SECONDS]

SCRIPTS holds make_7b.py (writes a random checkpoint of InternLM-Chat-7B's shape) and for_old_lmdeploy.py (lets an old
LMDeploy read what transformers 5 wrote). Weights are random: the modernized model has to be the quantized one bit for
bit, and to serve. OUT gets result.json, rewritten after every step, and a log per step.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import serving


class Steps:
    """The steps so far, each with its seconds, written down as they end."""

    def __init__(self, out: Path, seconds: float) -> None:
        self.out, self.deadline = out, time.monotonic() + seconds
        self.result: dict[str, Any] = {"gpu": serving.gpu(), "steps": {}}

    def run(self, name: str, step: Callable[[float], dict[str, object]]) -> None:
        left = self.deadline - time.monotonic()
        if left < 10:
            raise RuntimeError(f"no time left for {name}")
        started = time.monotonic()
        found = step(left)
        self.result["steps"][name] = {"seconds": round(time.monotonic() - started, 1), **found}
        self.write()
        print(name, self.result["steps"][name], flush=True)

    def write(self) -> None:
        (self.out / "result.json").write_text(json.dumps(self.result, indent=2, ensure_ascii=False) + "\n")


def main() -> None:
    out, current, legacy, scripts = Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4])
    out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a limit from outside must not leave servers behind
    steps = Steps(out, float(sys.argv[5]) if len(sys.argv) > 5 else 470)
    work = Path("/tmp") / f"modernized-7b-{time.time_ns()}"
    work.mkdir()
    dense, awq, workspace, modern = (work / name for name in ("dense", "awq", "workspace", "modern"))

    def command(name: str, environment: str, *words: str) -> None:
        def step(left: float) -> dict[str, object]:
            serving.shell(environment, words, out / f"{name}.log", left)
            return {}

        steps.run(name, step)

    lmdeploy = ("python3", "-m", "lmdeploy")
    quantize = ("lite", "auto_awq", str(dense), "--work-dir", str(awq), "--calib-samples", "0", "--dtype", "float16")
    old = work / "for-old"
    convert = ("convert", "internlm-chat-7b", str(old), "--model-format", "awq", "--group-size", "128")
    convert += ("--chat-template", "base", "--dst-path", str(workspace))
    try:
        command("make", current, "python3", str(scripts / "make_7b.py"), str(dense))
        command("quantize", current, *lmdeploy, *quantize)
        shutil.rmtree(dense)
        before = _digests(awq)
        old.mkdir()
        for path in awq.iterdir():  # the weights are linked, what is rewritten is copied
            (os.link if path.suffix == ".safetensors" else shutil.copyfile)(path, old / path.name)
        command("rewrite", "", "python3", str(scripts / "for_old_lmdeploy.py"), str(old))
        command("convert", legacy, *lmdeploy, *convert)
        steps.run("modernize", lambda left: _modernize(workspace, modern, out, left))
        steps.run("compare", lambda _: _compare(before, _digests(modern)))
        for kv, policy in (("none", "0"), ("int8", "8"), ("int4", "4")):
            steps.run(f"serve-kv-{kv}", lambda _, kv=kv, policy=policy: _serve(modern, policy, current, out, kv))
        steps.run("serve-original", lambda _: _serve(awq, "0", current, out, "original"))
    except Exception as error:  # noqa: BLE001 (what was measured until here is the result)
        steps.result["error"] = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    finally:
        steps.write()
        shutil.rmtree(work, ignore_errors=True)


def _modernize(workspace: Path, modern: Path, out: Path, left: float) -> dict[str, object]:
    """Wall time and peak memory of the whole process, as GNU time would tell them, and the speed of `cp` beside it."""
    os.sync()
    size = sum(path.stat().st_size for path in workspace.rglob("*") if path.is_file())
    copy_s = serving.shell("", ["cp", "-r", str(workspace), str(workspace) + "-copy"], out / "cp.log", left)
    shutil.rmtree(str(workspace) + "-copy")
    os.sync()
    code = (
        "import json, resource, subprocess, sys; code = subprocess.run(sys.argv[2:]).returncode;"
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss;"
        "open(sys.argv[1], 'w').write(json.dumps({'code': code, 'peak_rss_mib': peak / 1024}))"
    )
    report = out / "modernize-usage.json"
    words = [sys.executable, "-c", code, str(report)]
    words += [sys.executable, "-m", "deploytk", "modernize", str(workspace), "-o", str(modern), "--json"]
    wall_s = serving.shell("", words, out / "modernize.log", left)
    usage = json.loads(report.read_text())
    if usage["code"]:
        raise RuntimeError((out / "modernize.log").read_text()[-600:])
    return {
        "wall_s": round(wall_s, 2), "cp_s": round(copy_s, 2), "bytes": size, "peak_rss_mib": usage["peak_rss_mib"],
        "files": sorted(path.name for path in modern.iterdir()),
    }  # fmt: skip


def _digests(model: Path) -> dict[str, str]:
    """Tensor name -> SHA-256 of its type, shape and bytes."""
    found = {}
    for path in sorted(model.glob("*.safetensors")):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            for name, entry in header.items():
                if name != "__metadata__":
                    begin, end = entry["data_offsets"]
                    file.seek(8 + length + begin)
                    digest = hashlib.sha256(f"{entry['dtype']} {entry['shape']}".encode())
                    digest.update(file.read(end - begin))
                    found[name] = digest.hexdigest()
    return found


def _compare(before: dict[str, str], after: dict[str, str]) -> dict[str, object]:
    different = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return {"tensors": len(before), "equal": len(before) - len(different), "different": different[:10]}


def _serve(model: Path, policy: str, environment: str, out: Path, name: str) -> dict[str, object]:
    log = out / f"serve-{name}.log"
    flags = ["--quant-policy", policy, "--session-len", "512", "--max-batch-size", "1"]
    flags += ["--cache-max-entry-count", "0.05"]
    with serving.serving(environment, model, flags, log) as url:
        texts = [serving.complete(url, prompt, 24) for prompt in ("Hello", "Hello", "one two three")]
    return {"texts": texts, "turbomind": serving.is_turbomind(log)}


if __name__ == "__main__":
    main()
