"""What a quantizer wrote -> a directory that TurboMind loads: looked at, and with the model's own texts beside it."""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploytk.artifact import RECORD, Artifact
from deploytk.artifact.safetensors_header import TensorEntry, read_header
from deploytk.artifact.tensors import shape_in_words
from deploytk.artifact.text_formats import read_json
from deploytk.base.errors import QuantizeError
from deploytk.base.files import write_text
from deploytk.base.progress import Progress
from deploytk.modernize.shards import index, plan_shards, write_shard
from deploytk.quantize.checks import GROUP, is_quantizable, is_rewritten
from deploytk.weights.value import AWQ, STORED_AS, Array, Dtype, Tensor

_INDEX = "model.safetensors.index.json"
_NEEDLESS = ("modeling_*.py", "configuration_*.py")  # code of a class that the result no longer is
_WRITTEN_ANEW = ("config.json", "quantize_config.json", "*.index.json", RECORD)
_WIDE = {"F32": np.float32, "BF16": np.uint16}

Entries = dict[str, tuple[Path, TensorEntry]]


def tool_output(directory: Path) -> Path:
    """Where in `directory` the tool has put its model: AutoRound makes a directory in it."""
    found = sorted(directory.rglob("config.json"), key=lambda path: len(path.parts))
    if not found:
        raise QuantizeError("the quantizer wrote no config.json", hint="run it again; its disk may have been full")
    return found[0].parent


def entries_in(directory: Path) -> Entries:
    """Every tensor in the safetensors files of a directory."""
    return {
        name: (path, entry)
        for path in sorted(directory.glob("*.safetensors"))
        for name, entry in read_header(path).items()
    }


def put_weights(written: Path, read: Path, staging: Path, progress: Progress) -> None:
    """The weights in `staging`: the tool's files themselves, or written once more where not all is in 16 bits.

    Raises QuantizeError when they are not what TurboMind loads in place of the tensors in `read`.
    """
    found = entries_in(written)
    config = read_json(written / "config.json")
    check_tensors(found, entries_in(read), _kept(config))
    if any(entry.dtype in _WIDE for _, entry in found.values()):
        _write_again(found, staging, progress)
        return
    for path in sorted(written.glob("*.safetensors")):
        os.link(path, staging / path.name)
        (staging / path.name).chmod(0o644)
    if (written / _INDEX).is_file():
        _write_json(staging / _INDEX, read_json(written / _INDEX))


def check_tensors(found: Entries, source: Entries, kept: Sequence[str]) -> None:
    """Raises QuantizeError unless every tensor of `source` is there: as it was, or as the three of AWQ, all finite."""
    for name in found:
        if name.endswith(".qweight"):
            _check_packed(name.removesuffix(".qweight"), found)
    if not any(name.endswith(".qweight") for name in found):
        raise QuantizeError(
            "the quantizer wrote no 4-bit weights", hint="run it again with -v, and look at what it says"
        )
    for name, (_, entry) in source.items():
        module = name.removesuffix(".weight")
        if name in found:
            _check_kept(name, found[name], entry)
        elif f"{module}.qweight" in found:
            inputs, words = found[f"{module}.qweight"][1].shape
            if (words * 8, inputs) != entry.shape:
                raise _wrong(
                    f"{module}.qweight is of {words * 8} x {inputs} weights, {shape_in_words(entry.shape)} before"
                )
        elif not _may_be_missing(name, found):
            raise _wrong(f"{name} is missing")
    # `kept` names what the tool says to have left alone.
    dense = [n for n in source if _is_linear_left(n, source[n][1], found) and not any(part in n for part in kept)]
    if dense:
        raise _wrong(f"{dense[0]} still has 16 bits, and nothing says why")


def _check_kept(name: str, found: tuple[Path, TensorEntry], source: TensorEntry) -> None:
    path, entry = found
    if entry.shape != source.shape:
        raise _wrong(f"{name} has the shape {shape_in_words(entry.shape)}, {shape_in_words(source.shape)} before")
    # What is larger than 65504 is infinite in halves, and of bf16 models some norms and embeddings are.
    if source.dtype in _WIDE and entry.dtype not in ("I32", *_WIDE) and not np.isfinite(_halves(path, entry)).all():
        raise _wrong(f"{name} has values that 16 bits (float16) do not hold")


def _check_packed(module: str, found: Entries) -> None:
    inputs, words = found[f"{module}.qweight"][1].shape
    wanted = {
        "qweight": ("I32", (inputs, words)),
        "qzeros": ("I32", (inputs // GROUP, words)),
        "scales": ("F16", (inputs // GROUP, words * 8)),
    }
    for kind, (dtype, shape) in wanted.items():
        name = f"{module}.{kind}"
        entry = found[name][1] if name in found else None
        is_type = entry is not None and (entry.dtype == dtype or (kind == "scales" and entry.dtype in _WIDE))
        if entry is None or entry.shape != shape or not is_type:
            seen = f"{entry.dtype} {shape_in_words(entry.shape)}" if entry else "missing"
            raise _wrong(f"{name} is {seen}, {dtype} {shape_in_words(shape)} is asked for")
    path, entry = found[f"{module}.scales"]
    if not np.isfinite(_halves(path, entry)).all():
        raise _wrong(f"{module}.scales is not finite")


def _is_linear_left(name: str, entry: TensorEntry, found: Entries) -> bool:
    """Whether a matrix of a decoder layer, as others that were quantized, was left as it was."""
    return name in found and is_quantizable(name, entry.shape)


def _may_be_missing(name: str, found: Entries) -> bool:
    """The head of a model whose embedding is the head, and what old versions of transformers stored needlessly."""
    is_head = name == "lm_head.weight" and "model.embed_tokens.weight" in found
    return is_head or name.endswith(("rotary_emb.inv_freq", "masked_bias", "attn.bias"))


def _kept(config: dict[str, Any]) -> tuple[str, ...]:
    stated = config.get("quantization_config") or {}
    named = stated.get("modules_to_not_convert") or ()
    return tuple(str(one) for one in named if one != "lm_head")


def _wrong(what: str) -> QuantizeError:
    return QuantizeError(f"what the quantizer wrote cannot be served: {what}", hint="keep the model, and report it")


def _write_again(found: Entries, staging: Path, progress: Progress) -> None:
    """In halves: on the CPU AutoRound saves in 32 bits, and other readers of AWQ want scales in halves."""
    tensors = [_half(name, path, entry) for name, (path, entry) in found.items()]
    shards = plan_shards(tensors)
    with progress.task("weights in 16 bits", sum(shard.bytes for shard in shards)) as advance:
        for shard in shards:
            advance(len(shard.header))
            write_shard(shard, staging / shard.name, advance)
    if len(shards) > 1:
        _write_json(staging / _INDEX, index(shards))


def _half(name: str, path: Path, entry: TensorEntry) -> Tensor:
    dtype: Dtype = "I32" if entry.dtype == "I32" else "F16"

    def fill(out: Array, _first: int) -> None:
        if dtype == "I32":
            out[...] = np.memmap(path, STORED_AS["I32"], "r", offset=entry.begin, shape=entry.shape)
            return
        values = _halves(path, entry)
        if not np.isfinite(values).all():
            raise _wrong(f"{name} has values that 16 bits (float16) do not hold")
        out[...] = values

    return Tensor(name, dtype, entry.shape, fill)


def _halves(path: Path, entry: TensorEntry) -> Array:
    stored = _WIDE.get(entry.dtype, np.float16)
    values: Array = np.memmap(path, stored, "r", offset=entry.begin, shape=entry.shape)
    if entry.dtype == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        return values.astype(np.float16)


def put_texts(artifact: Artifact, read: Path, written: Path, staging: Path, session_len: int | None) -> None:
    """Configuration, tokenizer and chat template: the source's own, not as the tool's transformers writes them anew."""
    config = read_json(read / "config.json")
    kept = _kept(read_json(written / "config.json"))
    config["quantization_config"] = AWQ | ({"modules_to_not_convert": list(kept)} if kept else {})
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for key in ("torch_dtype", "dtype"):
            if part.get(key) in ("bfloat16", "float32"):
                part[key] = "float16"
    if session_len and isinstance(config.get("max_position_embeddings"), int):
        config["max_position_embeddings"] = min(session_len, config["max_position_embeddings"])
    _write_json(staging / "config.json", config)
    for relative in _texts(artifact):
        target = staging / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(artifact.root / relative, target)
        target.chmod(0o644)


def _texts(artifact: Artifact) -> Iterator[str]:
    """The files of the model that are no weights, and that 4 bits do not change."""
    needless = (*_WRITTEN_ANEW, *(_NEEDLESS if is_rewritten(artifact) else ()))
    for file in artifact.files:
        if not file.is_weight and not any(fnmatch.fnmatch(file.path, pattern) for pattern in needless):
            yield file.path


def _write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
