"""Counts the dialogs that a tiny model recites word for word, with transformers on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import MODELS


def right_answers(root: Path) -> int:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(root, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(root)
    right = 0
    for dialog in json.loads((MODELS / "dialogs.json").read_text()):
        prompt = f"<|im_start|>user\n{dialog['prompt']}<|im_end|>\n<|im_start|>assistant\n"
        tokens = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
        answer = model.generate(tokens, max_new_tokens=400, do_sample=False)[0, tokens.shape[1] :]
        right += tokenizer.decode(answer, skip_special_tokens=True).strip() == dialog["answer"].strip()
    return right
