"""Opens the weights of a model directory, whatever its layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from deploytk.artifact import Artifact
from deploytk.weights.config import tokenizer_directory
from deploytk.weights.huggingface import open_huggingface
from deploytk.weights.names import family_of
from deploytk.weights.value import ModelWeights
from deploytk.weights.workspace import open_workspace

Names = Literal["own", "llama"]

# What belongs to a tokenizer or to the model's code; weights, cards and LMDeploy's own files stay behind.
_TOKENIZER_SUFFIXES = (".json", ".jinja", ".model", ".tiktoken", ".txt", ".py")
_NOT_TOKENIZER = ("config.json", "generation_config.json", "quantize_config.json", "deploytk.json", "requirements.txt")
_LMDEPLOYS_OWN = "tokenizer.py"  # the converter adds it up to 0.5.3


def open_weights(artifact: Artifact, *, names: Names = "own") -> ModelWeights:
    """The weights behind `artifact`; nothing but sizes is read yet.

    `names="llama"` gives InternLM and InternLM2 as the Llama model that they equal. Raises ArtifactError for a broken
    model, WeightsError for one that cannot be read back: another architecture, another quantization, group size 64.
    """
    artifact.require_usable()
    if artifact.layout == "huggingface":
        return open_huggingface(artifact, names)
    return open_workspace(artifact, family_of(artifact), names)


def hf_config(artifact: Artifact, *, names: Names = "own", dequantize: bool = False) -> dict[str, Any]:
    """The config.json for `open_weights(artifact, names=names).tensors(dequantize=dequantize)`."""
    return open_weights(artifact, names=names).hf_config(dequantize=dequantize)


def tokenizer_files(artifact: Artifact) -> tuple[Path, ...]:
    """The files of the tokenizer, and the code that config.json may name; no weights, no configuration, no pickle."""
    directory = tokenizer_directory(artifact)
    known = {artifact.root / file.path for file in artifact.files}
    return tuple(
        path
        for path in sorted(known)
        if path.parent == directory
        and path.suffix in _TOKENIZER_SUFFIXES
        and path.name not in _NOT_TOKENIZER
        and not path.name.endswith(".index.json")
        and not (artifact.layout == "workspace" and path.name == _LMDEPLOYS_OWN)
    )
