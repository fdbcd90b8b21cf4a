"""The model as a quantizer reads it: links to the files, or a copy where they are not what it can read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from deploytk.artifact import Artifact
from deploytk.artifact.text_formats import read_json
from deploytk.base.files import write_text
from deploytk.base.progress import Progress
from deploytk.modernize.shards import index, plan_shards, write_shard
from deploytk.quantize.checks import is_rewritten
from deploytk.weights import open_weights, tokenizer_files

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
_GENERATION = "generation_config.json"
# Nothing is generated while a model is quantized, and of whatever else is set transformers may refuse to save some.
_HARMLESS = ("do_sample", "bos_token_id", "eos_token_id", "pad_token_id")


def prepare_source(artifact: Artifact, directory: Path, progress: Progress) -> str:
    """Fill `directory` with what the tool is to read; returns what was changed for it, "" for nothing.

    Of InternLM and InternLM2 it is a copy, as the Llama that they equal: no code of the model runs.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    if is_rewritten(artifact):
        _write_copy(artifact, directory, progress)
        return ""
    for file in artifact.files:
        link = directory / file.path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((artifact.root / file.path).resolve())
    return _mend_generation(directory)


def _write_copy(artifact: Artifact, directory: Path, progress: Progress) -> None:
    weights = open_weights(artifact, names="llama")
    shards = plan_shards(weights.tensors())
    with progress.task("the model as a Llama", sum(shard.bytes for shard in shards)) as advance:
        for shard in shards:
            advance(len(shard.header))
            write_shard(shard, directory / shard.name, advance)
    if len(shards) > 1:
        _write_json(directory / "model.safetensors.index.json", index(shards))
    _write_json(directory / "config.json", weights.hf_config())
    for path in tokenizer_files(artifact):
        shutil.copyfile(path, directory / path.name)


def _mend_generation(directory: Path) -> str:
    """Saving would raise at the very end where, say, sampling is set up and turned off: transformers refuses both."""
    path = directory / _GENERATION
    if not path.is_file():
        return ""
    settings = read_json(path)
    path.unlink()  # a link: the model's own file stays as it is
    _write_json(path, {name: settings[name] for name in _HARMLESS if settings.get(name) is not None})
    needless = [] if settings.get("do_sample") else [name for name in _SAMPLING if settings.get(name) is not None]
    if not needless:
        return ""
    return f"{_GENERATION} sets {', '.join(needless)} and not do_sample, with which nothing could be saved: left aside"


def _write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
