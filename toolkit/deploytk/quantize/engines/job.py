"""A job as deploytk writes it, done: windows of tokens, then the quantizer; what came of it goes into a file."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from .windows import EndlessTemplateError, NoWindowError, make_windows


def main(path: Path) -> None:
    job = json.loads(path.read_text(encoding="utf-8"))
    result = Path(job["result"])
    try:
        done = _do(job)
    except NoWindowError as error:
        done = {"error": str(error), "kind": "texts"}
    except EndlessTemplateError as error:
        done = {"error": str(error), "kind": "template"}
    except Exception as error:  # noqa: BLE001 (whatever a quantizer raises is told to the parent, and shown in the log)
        import traceback

        traceback.print_exc()
        done = {"error": f"{type(error).__name__}: {error}"[:1000], "kind": "tool"}
    result.write_text(json.dumps(done), encoding="utf-8")
    sys.exit(1 if "error" in done else 0)


def _do(job: dict[str, Any]) -> dict[str, Any]:
    started = time.monotonic()
    windows = _windows(job) if job["texts"] else []
    if job["method"] == "autoround":
        from .tuned import quantize
    else:
        from .activation_aware import quantize
    prepared_s = time.monotonic() - started
    quantize(job, windows)
    return {
        "windows": len(windows),
        "tokens": sum(map(len, windows)),
        "prepared_s": round(prepared_s, 3),
        "seconds": round(time.monotonic() - started, 3),
        "peak_ram_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "peak_gpu_bytes": _peak_gpu_bytes(),
    }


def _windows(job: dict[str, Any]) -> list[list[int]]:
    from transformers import AutoTokenizer

    trusts = job["trust_remote_code"]
    tokenizer = AutoTokenizer.from_pretrained(job["model"], local_files_only=True, trust_remote_code=trusts)
    lines = Path(job["texts"]).read_text(encoding="utf-8").splitlines()
    return make_windows([json.loads(line) for line in lines], tokenizer, job["seqlen"], job["samples"])


def _peak_gpu_bytes() -> int | None:
    """What torch had reserved at most, without the context of CUDA itself."""
    import torch

    return int(torch.cuda.max_memory_reserved()) if torch.cuda.is_available() else None
