"""The model of real size that gives the tiny model's answers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import MODELS

from deploytk.artifact import read_artifact

TINY = MODELS / "hf-fp16"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Grown a little: four times as wide, three layers, other heads."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    from benchmarks.gpu import grown

    for name, value in {"WIDER": 4, "INNER": 1024, "HEADS": 8, "KV_HEADS": 4, "VOCABULARY": 2048}.items():
        monkeypatch.setattr(grown, name, value)
    monkeypatch.setattr(sys, "argv", ["grown.py", str(TINY), str(tmp_path / "grown"), "3"])
    grown.main()
    return tmp_path / "grown"


def test_it_is_whole_and_as_large_as_it_says(model: Path) -> None:
    artifact = read_artifact(model)

    artifact.require_usable()
    # 3 layers of 1024 x (8 + 4 + 4 + 8) x 128 and 3 x 1024 x 1024, norms of 2 x 1024; 2 x 2048 x 1024 and a norm
    assert artifact.parameters == 3 * (1024 * 24 * 128 + 3 * 1024 * 1024 + 2048) + 2 * 2048 * 1024 + 1024


@pytest.mark.engine
def test_it_says_what_the_tiny_model_says(model: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokens = torch.arange(3, 60).reshape(1, -1)

    with torch.no_grad():
        small, large = (
            transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)(tokens).logits.numpy()
            for path in (TINY, model)
        )

    assert np.abs(small - large[..., :1024]).max() < 1e-4
    assert np.abs(large[..., 1024:]).max() == 0
