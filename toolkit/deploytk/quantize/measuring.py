"""Measures what 4 bits cost: `python -m deploytk.quantize.measuring JOB.json`, a process with torch and transformers.

One model after the other is in memory; of the first its logits are kept in a file.
"""

from __future__ import annotations

import gc
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deploytk.artifact import read_artifact
from deploytk.base.errors import DeployError
from deploytk.cpu_engine.load import LoadedModel, load_model
from deploytk.quantize.engines.windows import EndlessTemplateError, NoWindowError, make_windows, rendered

_ROWS = 256  # of logits that are looked at together
_SPARE_TOKENS = 8  # an answer may go on for so long before it is wrong


def main(path: Path) -> int:
    job = json.loads(path.read_text(encoding="utf-8"))
    try:
        found = _measured(job)
    except (DeployError, NoWindowError, EndlessTemplateError) as error:
        found = {"error": str(error)}
    except (RuntimeError, ValueError, MemoryError) as error:  # torch: no memory, a shape that no class expects
        found = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
    Path(job["result"]).write_text(json.dumps(found), encoding="utf-8")
    return 1 if "error" in found else 0


def _measured(job: dict[str, Any]) -> dict[str, Any]:
    records = [json.loads(line) for line in Path(job["texts"]).read_text(encoding="utf-8").splitlines()]
    before = load_model(read_artifact(Path(job["before"])), job["device"])
    windows = make_windows(records, before.tokenizer, job["window_tokens"], job["most_windows"])
    right_before = _right(before, job["golden"])
    kept = np.memmap(
        job["scratch"], np.float16, "w+", shape=(len(windows), job["window_tokens"], before.model.config.vocab_size)
    )
    for place, window in enumerate(windows):
        for rows, logits in _logits(before, window):
            kept[place, rows] = logits[:, : kept.shape[2]].to(torch.float16).cpu().numpy()
    del before
    gc.collect()
    after = load_model(read_artifact(Path(job["after"])), job["device"])
    sums = _Sums()
    for place, window in enumerate(windows):
        for rows, logits in _logits(after, window):
            reference = torch.from_numpy(np.array(kept[place, rows])).to(logits.device)
            sums.add(reference, logits[:, : kept.shape[2]], window[rows.start + 1 : rows.stop + 1])
    return {
        "windows": len(windows),
        **sums.figures(),
        "golden": len(job["golden"]),
        "golden_before": right_before,
        "golden_after": _right(after, job["golden"]),
    }


def _logits(loaded: LoadedModel, window: Sequence[int]) -> Iterator[tuple[slice, torch.Tensor]]:
    """Those of a window, a few rows at a time."""
    with torch.inference_mode():
        found = loaded.model(torch.tensor([window], device=loaded.model.device), use_cache=False).logits[0]
    for start in range(0, len(window), _ROWS):
        rows = slice(start, min(start + _ROWS, len(window)))
        yield rows, found[rows].float()


class _Sums:
    """Over all places of all windows that have a next token."""

    def __init__(self) -> None:
        self.places = 0
        self.loss_before = self.loss_after = self.divergence = 0.0
        self.agreed = 0

    def add(self, before: torch.Tensor, after: torch.Tensor, following: Sequence[int]) -> None:
        """Logits of both for some rows, and the tokens that follow them: the last row of a window has none."""
        count = len(following)
        first, second = (torch.log_softmax(one[:count].float(), -1) for one in (before, after))
        tokens = torch.tensor(following, device=after.device).unsqueeze(1)
        self.places += count
        self.loss_before -= float(first.gather(1, tokens).double().sum())
        self.loss_after -= float(second.gather(1, tokens).double().sum())
        # Rounded to halves the least likely logits are -inf: they weigh nothing, and are no number.
        terms = torch.where(first.exp() > 0, first.exp() * (first - second), torch.zeros_like(first))
        self.divergence += float(terms.double().sum())
        self.agreed += int((first.argmax(-1) == second.argmax(-1)).sum())

    def figures(self) -> dict[str, float]:
        return {
            "perplexity_before": _exp(self.loss_before / self.places),
            "perplexity_after": _exp(self.loss_after / self.places),
            "kl_mean": self.divergence / self.places if self.divergence > 0 or math.isnan(self.divergence) else 0.0,
            "top1_agreement": self.agreed / self.places,
        }


def _exp(loss: float) -> float:
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def _right(loaded: LoadedModel, golden: Sequence[dict[str, Any]]) -> int:
    """How many prompts are answered as they should, greedily."""
    return sum(_answer(loaded, one) == one["answer"].strip() for one in golden)


def _answer(loaded: LoadedModel, one: dict[str, Any]) -> str:
    tokenizer, prompt = loaded.tokenizer, one["prompt"]
    if not one["raw"]:
        chat = [{"role": "user", "content": prompt}]
        prompt = rendered(tokenizer, chat, add_generation_prompt=True)
    ids = torch.tensor([tokenizer(prompt, add_special_tokens=one["raw"])["input_ids"]], device=loaded.model.device)
    most = len(tokenizer(one["answer"], add_special_tokens=False)["input_ids"]) + _SPARE_TOKENS
    with torch.inference_mode():
        found = loaded.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=most,
            do_sample=False,
            eos_token_id=sorted(loaded.end_ids),
            pad_token_id=tokenizer.pad_token_id or 0,
        )
    return str(tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True)).strip()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
