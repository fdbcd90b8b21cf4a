"""LMDeploy's auto_awq by itself, with the windows that `deploytk quantize` makes: the measure of what that adds.

python benchmarks/gpu/auto_awq.py MODEL OUT SAMPLES SEQLEN [TEXTS [DEVICE]]      prints a line of JSON at its end
"""

from __future__ import annotations

import importlib.util
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lmdeploy.lite.apis import calibrate
from lmdeploy.lite.apis.auto_awq import auto_awq
from transformers import AutoTokenizer

PACKAGE = Path(__file__).parents[2] / "toolkit" / "deploytk" / "quantize"


def main() -> None:
    started = time.monotonic()
    model, out, samples, seqlen = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    texts = Path(sys.argv[5]) if len(sys.argv) > 5 else PACKAGE / "data" / "calibration.jsonl"
    device = sys.argv[6] if len(sys.argv) > 6 else "cuda"
    records = [json.loads(line) for line in texts.read_text("utf-8").splitlines()]
    windows = _maker().make_windows(records, AutoTokenizer.from_pretrained(model), seqlen, samples)
    loaders = [torch.tensor([window]) for window in windows]
    calibrate.get_calib_loaders = lambda *_, **__: loaders
    auto_awq(model, work_dir=out, calib_samples=len(windows), calib_seqlen=seqlen, dtype="float16", device=device)
    used = {
        "windows": len(windows),
        "seconds": round(time.monotonic() - started, 2),
        "peak_ram_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "peak_reserved_bytes": torch.cuda.max_memory_reserved() if torch.cuda.is_available() else None,
    }
    print(json.dumps(used), flush=True)


def _maker() -> Any:
    spec = importlib.util.spec_from_file_location("windows", PACKAGE / "engines" / "windows.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
