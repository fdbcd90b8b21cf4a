"""What each way to 4 bits costs, on the CPU: the tiny model that recites, LMDeploy's auto_awq and AutoRound.

    python -m benchmarks.quantize [ITERATIONS [ROUNDS]]

Every round calibrates all of them with the same windows, other ones in every round; the first way is `auto_awq` by
itself, called as its command line does, beside the same through `deploytk quantize`. Perplexity, divergence (KL) and
agreement are measured on two texts that nobody was calibrated with: what the model really knows, its own dialogs, and
a text that it does not know. Ends with 1 when AutoRound diverges more than auto_awq does on the dialogs, by the mean
of the rounds, or when deploytk made other weights than auto_awq by itself. Needs the environments of both quantizers,
which the first run makes (a package index).
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from safetensors.numpy import load_file

from benchmarks import ROOT, timing
from deploytk.artifact import QuantizationCost, read_artifact
from deploytk.base.progress import Silent
from deploytk.bundle import read_golden
from deploytk.quantize import QuantizeOptions, find_tool, quantize
from deploytk.quantize.calibration import calibration_texts, measured_text, read_texts
from deploytk.quantize.cost import measure_cost

MODEL, DIALOGS = ROOT / "tests" / "models" / "hf-fp16", ROOT / "tests" / "models" / "dialogs.json"
COPIES = 40  # of the dialogs: a window of 2048 tokens
SAMPLES, SEQLEN = 8, 256
LEAST_CHARACTERS = 12_000  # of a round's texts: the tiny tokenizer has about four characters to a token


@dataclass(frozen=True)
class Made:
    path: Path
    seconds: float
    costs: dict[str, QuantizationCost]  # by the text that it was measured on


def main() -> int:
    given = [int(word) for word in timing.words()]
    iterations, rounds = (1, 1) if timing.IS_SHORT else (*given, *(50, 3)[len(given) :])[:2]
    found: dict[str, list[Made]] = {}
    differing = 0
    with tempfile.TemporaryDirectory() as work:
        for number in range(rounds):
            made = _round(Path(work) / str(number), iterations, number)
            differing += not _are_equal(made["auto_awq by itself"].path, made["deploytk quantize, awq"].path)
            for name, one in made.items():
                found.setdefault(name, []).append(one)
    tuned, awq = (found[name] for name in (f"AutoRound, {iterations} iterations", "deploytk quantize, awq"))
    ratios = [_kl(a) / _kl(b) for a, b in zip(tuned, awq, strict=True)]
    timing.report(
        model="tests/models/hf-fp16",
        calibrated_with=f"{SAMPLES} windows of {SEQLEN} tokens, other ones in every round",
        rounds=rounds,
        ways={name: _figures(made) for name, made in found.items()},
        autoround_kl_of_awq={"by_round": [round(one, 4) for one in ratios], "mean": round(mean(ratios), 4)},
        rounds_with_other_weights_than_auto_awq_by_itself=differing,
    )
    return int(differing > 0 or (mean(map(_kl, tuned)) > mean(map(_kl, awq)) and not timing.IS_SHORT))


def _round(work: Path, iterations: int, seed: int) -> dict[str, Made]:
    """All ways with the same texts."""
    work.mkdir()
    texts, known = work / "texts.jsonl", work / "dialogs.jsonl"
    texts.write_text("".join(f"{record}\n" for record in _drawn(seed)), encoding="utf-8")
    known.write_text("".join(_chats()) * COPIES, encoding="utf-8")
    measured = {"its dialogs": str(known)} | ({} if timing.IS_SHORT else {"a text it does not know": ""})
    base = QuantizeOptions(
        calibration=str(texts),
        samples=SAMPLES,
        seqlen=SEQLEN,
        iterations=iterations,
        device="cpu",
        golden=read_golden(DIALOGS),
        measures=False,
    )
    ways = {
        "deploytk quantize, awq": base,
        "the same, --search-scale": replace(base, search_scale=True),
        "the same, --calib none": replace(base, calibration="none"),
        f"AutoRound, {iterations} iterations": replace(base, method="autoround"),
    }
    if timing.IS_SHORT or seed:  # a search takes as long as all the others
        ways = {name: options for name, options in ways.items() if not options.search_scale}
    made = {"auto_awq by itself": _by_itself(work, texts, measured)}
    _say(seed, made)
    for number, (name, options) in enumerate(ways.items()):
        started = time.monotonic()
        path = work / f"made-{number}"
        quantize(read_artifact(MODEL), path, options, Silent())
        made[name] = Made(path, time.monotonic() - started, _costs(path, options, measured, work))
        _say(seed, made)
    return made


def _say(seed: int, made: dict[str, Made]) -> None:
    """The newest as a line of JSON: of a run that is ended is kept what it had measured."""
    name, one = list(made.items())[-1]
    costs = {text: asdict(cost) for text, cost in one.costs.items()}
    line = {"round": seed + 1, "way": name, "seconds": round(one.seconds, 1), **costs}
    print(json.dumps(line, ensure_ascii=False), file=sys.stderr, flush=True)


def _by_itself(work: Path, texts: Path, measured: dict[str, str]) -> Made:
    """LMDeploy's own function on the same windows, in its own environment."""
    path = work / "by-itself"
    script = ROOT / "benchmarks" / "gpu" / "auto_awq.py"
    tool = find_tool("awq", None, Silent())
    command = [str(tool.python), str(script), str(MODEL), str(path), str(SAMPLES), str(SEQLEN), str(texts), "cpu"]
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    seconds = time.monotonic() - started
    return Made(path, seconds, _costs(path, QuantizeOptions(golden=read_golden(DIALOGS)), measured, work))


def _costs(path: Path, options: QuantizeOptions, measured: dict[str, str], work: Path) -> dict[str, QuantizationCost]:
    tool = find_tool("awq", None, Silent())
    found = {}
    for name, text in measured.items():
        texts = read_texts(Path(text), "dialogs") if text else measured_text(None)
        cost, why_not = measure_cost(read_artifact(MODEL), path, texts, options, (tool, "cpu", work), Silent())
        if cost is None:
            raise RuntimeError(f"{path} was not measured: {why_not}")
        found[name] = cost
    return found


def _drawn(seed: int) -> Sequence[str]:
    """Texts of deploytk in another order for every seed, as many as make the windows."""
    texts = calibration_texts(None)
    assert texts is not None
    records = list(texts.records)
    random.Random(seed).shuffle(records)
    drawn: list[str] = []
    while sum(map(len, drawn)) < LEAST_CHARACTERS:
        drawn.append(records[len(drawn)])
    return drawn


def _chats() -> list[str]:
    dialogs = json.loads(DIALOGS.read_text(encoding="utf-8"))
    turns = [[("user", one["prompt"]), ("assistant", one["answer"])] for one in dialogs]
    chats = [{"messages": [{"role": role, "content": content} for role, content in chat]} for chat in turns]
    return [json.dumps(chat, ensure_ascii=False) + "\n" for chat in chats]


def _are_equal(one: Path, other: Path) -> bool:
    first, second = (load_file(next(path.glob("*.safetensors"))) for path in (one, other))
    return first.keys() == second.keys() and all((first[name] == second[name]).all() for name in first)


def _kl(made: Made) -> float:
    return made.costs["its dialogs"].kl_mean


def _figures(made: Sequence[Made]) -> dict[str, Any]:
    """The mean of the rounds, and every round of what is compared."""
    figures: dict[str, Any] = {"seconds": [round(one.seconds, 1) for one in made]}
    for text in made[0].costs:
        costs = [one.costs[text] for one in made]
        figures[f"on {text}"] = {
            "perplexity_before": round(mean(one.perplexity_before for one in costs), 4),
            "perplexity_after": round(mean(one.perplexity_after for one in costs), 4),
            "kl_mean": round(mean(one.kl_mean for one in costs), 6),
            "kl_by_round": [one.kl_mean for one in costs],
            "top1_agreement": round(mean(one.top1_agreement for one in costs), 4),
            "golden_after": [f"{one.golden_after}/{one.golden}" for one in costs],
        }
    return figures


if __name__ == "__main__":
    sys.exit(main())
