"""Loads a model of any layout into transformers, dequantized."""

from __future__ import annotations

import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from deploytk.artifact import Artifact
from deploytk.base.errors import EndpointError
from deploytk.modernize.templates import legacy_template
from deploytk.modernize.tokens import adds_first_token

logger = logging.getLogger("deploytk.cpu_engine")

_PLAIN_TEMPLATE = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    model: Any  # transformers.PreTrainedModel
    tokenizer: Any  # transformers.PreTrainedTokenizerFast
    end_ids: frozenset[int]  # tokens that end an answer


def load_model(artifact: Artifact, device: str = "cpu") -> LoadedModel:
    """The model and its tokenizer; nothing of it is executed.

    On the CPU in fp32 where memory allows, else in bfloat16; elsewhere in the 16 bits that it was stored in.

    Raises ArtifactError, WeightsError or EndpointError when it cannot be read.
    """
    artifact.require_usable()
    dtype = _dtype(artifact, device)
    logger.info("loading %s as %s on %s", artifact.root, dtype, device)
    try:
        model = _load_weights(artifact, dtype)
        tokenizer = _load_tokenizer(artifact)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        message = " ".join(str(error).split())[:300]
        raise EndpointError(
            f"transformers cannot load {artifact.root}: {message}", hint="serve it with LMDeploy on a GPU instead"
        ) from error
    model.to(device).eval()
    return LoadedModel(model, tokenizer, _end_ids(artifact, model, tokenizer))


def _dtype(artifact: Artifact, device: str) -> torch.dtype:
    if device != "cpu":
        return torch.bfloat16 if artifact.weight_dtype == "bfloat16" else torch.float16
    return torch.float32 if artifact.parameters * 4 < _free_bytes() // 2 else torch.bfloat16


def _free_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _load_weights(artifact: Artifact, dtype: torch.dtype) -> Any:
    if artifact.layout == "huggingface" and not artifact.is_quantized:
        return transformers.AutoModelForCausalLM.from_pretrained(
            artifact.root, dtype=dtype, local_files_only=True, trust_remote_code=False
        )
    from deploytk.weights import open_weights

    weights = open_weights(artifact, names="llama")
    settings = dict(weights.config)
    config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
    state = {
        tensor.name: _to_torch(tensor.read(), tensor.dtype).to(dtype) for tensor in weights.tensors(dequantize=True)
    }
    model_class = transformers.AutoModelForCausalLM
    model = model_class.from_config(config, dtype=dtype)
    missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    lost = [name for name in missing if not (config.tie_word_embeddings and name == "lm_head.weight")]
    if lost or unexpected:
        raise ValueError(f"weights and architecture disagree about {(*lost, *unexpected)[0]}")
    return model


def _to_torch(values: Any, dtype: str) -> torch.Tensor:
    tensor = torch.from_numpy(values)
    return tensor.view(torch.bfloat16) if dtype == "BF16" else tensor


def _load_tokenizer(artifact: Artifact) -> Any:
    """The tokenizer, read from a directory that holds its files and nothing else of the model."""
    from deploytk.weights import tokenizer_files

    files = tokenizer_files(artifact)
    with tempfile.TemporaryDirectory() as directory:
        for path in files:
            (Path(directory) / path.name).symlink_to(path.resolve())
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
    if not tokenizer.chat_template:
        legacy = legacy_template(artifact.chat_template or "")
        tokenizer.chat_template = legacy.jinja(with_bos=adds_first_token(files)) if legacy else _PLAIN_TEMPLATE
    return tokenizer


def _end_ids(artifact: Artifact, model: Any, tokenizer: Any) -> frozenset[int]:
    """What ends an answer: the model's own end, and the words at which a workspace's chat template stops."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    legacy = legacy_template(artifact.chat_template or "") if artifact.layout == "workspace" else None
    vocabulary = tokenizer.get_vocab()
    stops = (vocabulary.get(word) for word in (legacy.stop_words if legacy else ()))
    return frozenset(token for token in (*ids, tokenizer.eos_token_id, *stops) if token is not None)
