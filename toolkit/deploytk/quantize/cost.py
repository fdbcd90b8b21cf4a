"""What 4 bits cost a model: measured before and after by a process that has torch, and judged."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import deploytk
from deploytk.artifact import Artifact, QuantizationCost
from deploytk.base.errors import QuantizeError
from deploytk.base.import_path import python_environment
from deploytk.base.processes import running, tail
from deploytk.base.progress import Progress
from deploytk.quantize.calibration import Texts
from deploytk.quantize.tools import Tool
from deploytk.quantize.value import Device, QuantizeOptions

WINDOW_TOKENS = 2048
MOST_WINDOWS = 8
_WITHIN_S = 4 * 3600.0  # on the CPU a window of a large model takes minutes


def measure_cost(
    before: Artifact,
    after: Path,
    text: Texts,
    options: QuantizeOptions,
    where: tuple[Tool, Device, Path],
    progress: Progress,
) -> tuple[QuantizationCost | None, str]:
    """Perplexity, divergence, agreement and right answers; None, with the reason, where they cannot be measured.

    Raises QuantizeError when the model after it computes no numbers.
    """
    tool, device, work = where
    window = min(WINDOW_TOKENS, before.session_len)
    texts, job, result, log = (work / name for name in ("text.jsonl", "cost.json", "cost-result.json", "cost-log.txt"))
    texts.write_text("".join(f"{record}\n" for record in text.records), encoding="utf-8")
    golden = [{"prompt": one.prompt, "answer": one.answer, "raw": one.is_raw} for one in options.golden]
    wanted = {
        "before": str(before.root.resolve()),
        "after": str(after.resolve()),
        "texts": str(texts),
        "window_tokens": window,
        "most_windows": MOST_WINDOWS,
        "golden": golden,
        "device": device,
        "scratch": str(work / "logits"),
        "result": str(result),
    }
    job.write_text(json.dumps(wanted), encoding="utf-8")
    python = _python(tool, device)
    empty = work / "empty"
    empty.mkdir(exist_ok=True)
    argv = [str(python), "-m", "deploytk.quantize.measuring", str(job)]
    result.unlink(missing_ok=True)
    progress.note("measuring what it cost: perplexity, divergence and answers, before and after")
    with running(argv, cwd=empty, environment=_environment(python), log=log) as process:
        try:
            process.wait(_WITHIN_S)
        except subprocess.TimeoutExpired:
            return None, f"it took longer than {_WITHIN_S / 3600:.0f} hours"
    (work / "logits").unlink(missing_ok=True)
    try:
        found = json.loads(result.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None, f"the process that measures ended with code {process.returncode}: {tail(log).strip()[-300:]}"
    if "error" in found:
        return None, str(found["error"])
    if not math.isfinite(found["perplexity_before"]):
        return None, f"perplexity of the model in 16 bits is {found['perplexity_before']}, no number"
    if not all(math.isfinite(found[name]) for name in ("perplexity_after", "kl_mean")):
        raise QuantizeError(
            f"what the quantizer wrote computes no numbers: its perplexity is {found['perplexity_after']}",
            hint="keep the model in 16 bits, or try other texts with --calib, or another --method",
        )
    cost = QuantizationCost(
        text=text.name,
        digest=text.digest,
        windows=int(found["windows"]),
        window_tokens=window,
        perplexity_before=round(found["perplexity_before"], 4),
        perplexity_after=round(found["perplexity_after"], 4),
        kl_mean=round(found["kl_mean"], 6),
        top1_agreement=round(found["top1_agreement"], 5),
        golden=int(found["golden"]),
        golden_before=int(found["golden_before"]),
        golden_after=int(found["golden_after"]),
    )
    return cost, ""


def _python(tool: Tool, device: Device) -> Path:
    """This Python where it has torch and transformers and no GPU is needed; else the tool's, which has all."""
    has_both = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
    return Path(sys.executable) if device == "cpu" and has_both else tool.python


def _environment(python: Path) -> dict[str, str]:
    """With deploytk on the path of imports, and behind all that another Python has, what deploytk needs."""
    given = [entry for entry in python_environment().get("PYTHONPATH", "").split(os.pathsep) if entry]
    ours = [str(Path(deploytk.__file__).resolve().parents[1])]
    if python != Path(sys.executable):
        ours += [entry for entry in sys.path if entry.endswith("site-packages")]
    path = os.pathsep.join(dict.fromkeys([*given, *ours]))
    return python_environment(PYTHONPATH=path, HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
