"""Greedy tokens of the TurboMind of 2023 for a workspace, without torch: what a modernized directory has to answer.

    python3.11 old_turbomind.py LIB WEIGHTS PROMPTS.json OUT.json

LIB holds `_turbomind` of the wheel of LMDeploy 0.1.0 or 0.2.6 (lmdeploy/lib), WEIGHTS is triton_models/weights. PROMPTS
is a list of {"ids": [...], "new": N}. Needs numpy, a GPU, and on LD_LIBRARY_PATH cuBLAS and the runtime of CUDA 11,
cuRAND 10 and NCCL 2. Source of the calls: lmdeploy/turbomind/turbomind.py at v0.1.0 and v0.2.6.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np


def requests(prompts: list[dict[str, Any]]) -> list[dict[str, np.ndarray[Any, Any]]]:
    """The tensors of each prompt, as a batch of one, decoded greedily."""
    return [
        {
            "input_ids": np.array([prompt["ids"]], np.int32),
            "input_lengths": np.array([len(prompt["ids"])], np.int32),
            "request_output_len": np.array([prompt["new"]], np.uint32),
            "runtime_top_k": np.array([1], np.uint32),
            "runtime_top_p": np.array([1.0], np.float32),
            "temperature": np.array([1.0], np.float32),
            "repetition_penalty": np.array([1.0], np.float32),
            "step": np.array([0], np.int32),
            "START": np.array([1], np.int32),
            "END": np.array([1], np.int32),
            "STOP": np.array([0], np.int32),
            "CORRID": np.array([number], np.uint64),
            "random_seed": np.array([0], np.uint64),
        }
        for number, prompt in enumerate(prompts, 1)
    ]


def main(library: str, weights: str, prompts: str, out: str) -> None:
    sys.path.insert(0, library)
    turbomind: Any = importlib.import_module("_turbomind")
    settings = (Path(weights) / "config.ini").read_text(encoding="utf-8")
    kind = re.search(r"weight_type = (\w+)", settings)
    model = turbomind.AbstractTransformerModel.create_llama_model(weights, data_type=kind[1] if kind else "fp16")
    model.create_shared_weights(0, 0)
    instance = model.create_model_instance(0, 0, 0, model.create_nccl_params(0))
    answers = []
    for request in requests(json.loads(Path(prompts).read_text(encoding="utf-8"))):
        tensors = turbomind.TensorMap()
        for name, values in request.items():
            tensors[name] = turbomind.from_dlpack(values)
        found = instance.forward(tensors, model.create_instance_comm(1))
        length = int(np.from_dlpack(found["sequence_length"]).reshape(-1)[0])
        tokens = np.from_dlpack(found["output_ids"]).reshape(-1)[request["input_ids"].shape[1] : length]
        answers.append([int(token) for token in tokens])
        Path(out).write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:5])
