"""What each way to 4 bits costs, on the CPU: the tiny model that recites, LMDeploy's auto_awq and AutoRound.

    python -m benchmarks.quantize [ITERATIONS]

All are calibrated with the texts of deploytk. Perplexity, divergence (KL) and agreement are measured on what the model
really knows, its own dialogs; AutoRound must not diverge more than auto_awq does. Ends with 1 when it does. Needs the
environments of both quantizers, which the first run makes (a package index).
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks import ROOT, timing
from deploytk.artifact import read_artifact
from deploytk.base.progress import Silent
from deploytk.bundle import read_golden
from deploytk.quantize import Quantized, QuantizeOptions, quantize

MODEL, DIALOGS = ROOT / "tests" / "models" / "hf-fp16", ROOT / "tests" / "models" / "dialogs.json"
COPIES = 40  # of the dialogs: a window of 2048 tokens


def main() -> int:
    iterations = int(timing.words()[0]) if timing.words() else (1 if timing.IS_SHORT else 50)
    made: dict[str, Quantized] = {}
    with tempfile.TemporaryDirectory() as work:
        text = Path(work) / "dialogs.jsonl"
        text.write_text("".join(_chats()) * COPIES, encoding="utf-8")
        base = QuantizeOptions(
            samples=8, seqlen=256, iterations=iterations, measured_text=str(text), golden=read_golden(DIALOGS)
        )
        ways = {
            "auto_awq, without texts": replace(base, calibration="none"),
            "auto_awq": base,
            f"AutoRound, {iterations} iterations": replace(base, method="autoround"),
        }
        print(f"{'':28} {'perplexity':>20} {'KL, nats':>10} {'same token':>11} {'dialogs':>8} {'seconds':>8}")
        for number, (name, options) in enumerate(ways.items()):
            made[name] = quantize(read_artifact(MODEL), Path(work) / f"made-{number}", options, Silent())
            print(_row(name, made[name]), flush=True)
    awq, tuned = (cost.kl_mean for one in list(made.values())[1:] if (cost := one.quantized_by.cost))
    print(f"AutoRound's divergence is {tuned / awq:.2f} of auto_awq's")
    return int(tuned > awq and not timing.IS_SHORT)


def _chats() -> list[str]:
    dialogs = json.loads(DIALOGS.read_text(encoding="utf-8"))
    turns = [[("user", one["prompt"]), ("assistant", one["answer"])] for one in dialogs]
    chats = [{"messages": [{"role": role, "content": content} for role, content in chat]} for chat in turns]
    return [json.dumps(chat, ensure_ascii=False) + "\n" for chat in chats]


def _row(name: str, made: Quantized) -> str:
    cost = made.quantized_by.cost
    if cost is None:
        return f"{name:28} not measured: {made.notes}"
    change = f"{cost.perplexity_before:.4f} -> {cost.perplexity_after:.4f}"
    answers = f"{cost.golden_after}/{cost.golden}"
    same = f"{cost.top1_agreement:.2%}"
    return f"{name:28} {change:>20} {cost.kl_mean:10.5f} {same:>11} {answers:>8} {made.seconds.tool:8.1f}"


if __name__ == "__main__":
    sys.exit(main())
