"""LMDeploy's own auto_awq, called as its command line calls it, but with windows of ours instead of a hub's data."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch


def quantize(job: dict[str, Any], windows: Sequence[Sequence[int]]) -> None:
    """Write the quantized model to job["output"]; without windows nothing is calibrated and nothing smoothed."""
    calibration: Any = importlib.import_module("lmdeploy.lite.apis.calibrate")
    tool: Any = importlib.import_module("lmdeploy.lite.apis.auto_awq")
    loaders = [torch.tensor([window]) for window in windows]
    calibration.get_calib_loaders = lambda *_, **__: loaders
    output = Path(job["output"])
    if windows:
        _keep_calibration(tool, calibration, output / "calibrated")
    wanted = {
        "work_dir": str(output),
        "calib_samples": len(windows),
        "calib_seqlen": job["seqlen"],
        "search_scale": job["search_scale"],
        "device": job["device"],
        "dtype": "float16",  # a bf16 run writes scales that other readers refuse
        "trust_remote_code": job["trust_remote_code"],
    }
    known = inspect.signature(tool.auto_awq).parameters
    tool.auto_awq(job["model"], **{name: value for name, value in wanted.items() if name in known})


def _keep_calibration(tool: Any, calibration: Any, mark: Path) -> None:
    """A run that was killed after the calibration goes on there: what it found lies in inputs_stats.pth."""
    real = tool.calibrate

    def calibrate(model: str, *more: Any, **options: Any) -> Any:
        if not mark.exists() or not hasattr(tool, "load_model_and_tokenizer"):
            mark.unlink(missing_ok=True)
            found = real(model, *more, **options)
            mark.touch()
            return found
        sys.stdout.write("calibration kept\n")  # deploytk reads it
        sys.stdout.flush()
        kept = {name: options[name] for name in ("dtype", "trust_remote_code") if name in options}
        arch, vl_model, loaded, tokenizer, kind, place = tool.load_model_and_tokenizer(
            model, work_dir=str(mark.parent), **kept
        )
        if kind == "MixtralForCausalLM":
            calibration.update_moe_mapping(loaded, kind)
        return arch, vl_model, loaded, tokenizer, place

    tool.calibrate = calibrate
