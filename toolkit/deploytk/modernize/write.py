"""Writes the directory: weights shard by shard, then configuration, tokenizer and chat template."""

from __future__ import annotations

import filecmp
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploytk import __version__
from deploytk.artifact import Artifact
from deploytk.artifact.text_formats import read_json
from deploytk.base.errors import WeightsError
from deploytk.base.files import clear_lock, disk_errors, remove, staged_directory, write_text
from deploytk.base.progress import Progress
from deploytk.modernize.settings import refuse_lost_settings
from deploytk.modernize.shards import Shard, index, is_written, plan_shards, write_shard
from deploytk.modernize.templates import legacy_template
from deploytk.modernize.tokens import adds_first_token, token_ids
from deploytk.weights import open_weights, tokenizer_files

_RECORD = ".deploytk-modernize"
_SPARE_BYTES = 2**26  # for what is not weights: tokenizers have up to 30 MiB


@dataclass(frozen=True, slots=True)
class Modernized:
    """A Hugging Face directory that was made of a workspace."""

    path: Path
    architecture: str
    weight_format: str  # "awq", or "none" when it was dequantized or never quantized
    files: tuple[str, ...]  # sorted
    bytes: int  # all files together
    kept_bytes: int  # of shards that an interrupted run before this one had finished
    chat_template: str  # "own" of the tokenizer, the name of a legacy one, or "none"
    seconds: float


@dataclass(frozen=True, slots=True)
class ModernizeOptions:
    to_fp16: bool = False  # dequantize 4-bit weights
    session_len: int | None = None  # the longest session the model is made for; None: as long as before


def modernize(artifact: Artifact, destination: Path, options: ModernizeOptions, progress: Progress) -> Modernized:
    """Write the model behind `artifact` as a Hugging Face directory at `destination`, which must not exist.

    It answers what the workspace answered: a setting that cannot be carried over is refused by its name.

    4-bit weights stay the same bits (AWQ), unless they are to be dequantized. An interrupted run goes on where it was,
    when nothing about the workspace has changed, and a finished one is recognised. Memory: a few tensors of a layer.
    Like `cp`, it leaves it to the system when data reach the disk.
    """
    started = time.monotonic()
    if artifact.layout == "huggingface" and not (options.to_fp16 and artifact.is_quantized):
        raise WeightsError(
            f"{artifact.root} is a Hugging Face directory already",
            hint="current LMDeploy loads it; modernize is for workspaces, and with --to-fp16 for AWQ weights",
        )
    weights = open_weights(artifact)
    if artifact.layout == "workspace":
        refuse_lost_settings(artifact, options.session_len)
    config = weights.hf_config(dequantize=options.to_fp16)
    if options.session_len:
        config["max_position_embeddings"] = min(options.session_len, config["max_position_embeddings"])
    shards = plan_shards(weights.tensors(dequantize=options.to_fp16))
    written = _Written(artifact, shards, config)
    with disk_errors(destination, WeightsError):
        kept_bytes, template = _fill(written, destination, progress)
    sizes = {path.name: path.stat().st_size for path in sorted(destination.iterdir())}
    return Modernized(
        path=destination,
        architecture=weights.config["architectures"][0],
        weight_format="awq" if weights.is_awq and not options.to_fp16 else "none",
        files=tuple(sizes),
        bytes=sum(sizes.values()),
        kept_bytes=kept_bytes,
        chat_template=template,
        seconds=round(time.monotonic() - started, 3),
    )


@dataclass(frozen=True, slots=True)
class _Written:
    """What goes into the directory."""

    artifact: Artifact
    shards: tuple[Shard, ...]
    config: dict[str, Any]


def _fill(written: _Written, destination: Path, progress: Progress) -> tuple[int, str]:
    """The bytes that were there already, and which chat template the directory has."""
    if destination.is_symlink() or destination.exists():
        template = _finished(written, destination, progress)
        if template is None:
            raise WeightsError(f"{destination} exists already", hint="name a directory that does not exist yet")
        clear_lock(destination)
        return sum(shard.bytes for shard in written.shards), template
    with staged_directory(destination, resumable=True) as staging:
        kept_bytes = _write_weights(written, staging, progress)
        template = _write_texts(written, staging, progress)
        (staging / _RECORD).unlink()
        return kept_bytes, template


def _finished(written: _Written, destination: Path, progress: Progress) -> str | None:
    """The chat template of a directory that a run on the same input has finished; None for any other."""
    if destination.is_symlink() or not destination.is_dir():
        return None
    names = {path.name for path in destination.iterdir()}
    if not {shard.name for shard in written.shards} <= names:
        return None
    with tempfile.TemporaryDirectory(prefix="deploytk-") as work:
        template = _write_texts(written, Path(work), progress)
        texts = {path.name for path in Path(work).iterdir()}
        if texts | {shard.name for shard in written.shards} != names:
            return None
        if len(filecmp.cmpfiles(work, destination, texts, shallow=False)[0]) != len(texts):
            return None
    progress.note(f"{destination} is there already; comparing it byte for byte")
    same = all(is_written(shard, destination / shard.name) for shard in written.shards)
    return template if same else None


def _write_weights(written: _Written, staging: Path, progress: Progress) -> int:
    """All shards; those that a run on the same input has finished are kept. Returns the bytes of these."""
    shards = written.shards
    record = _fingerprint(written.artifact, shards)
    path = staging / _RECORD
    if not path.is_file() or path.read_text(encoding="utf-8") != record:
        _clear(staging, ())
        write_text(path, record)
    # Of texts there may be a half, under a name of its own: they are all written again.
    _clear(staging, (_RECORD, *(name for shard in shards for name in (shard.name, f"{shard.name}.unfinished"))))
    kept = {shard.name for shard in shards if _size(staging / shard.name) == shard.bytes}
    kept_bytes = sum(shard.bytes for shard in shards if shard.name in kept)
    total = sum(shard.bytes for shard in shards)
    with _nothing_left(staging, but_kept=bool(kept)):
        _require_space(staging, total - kept_bytes + _SPARE_BYTES)
    if kept:
        progress.note(f"{len(kept)} of {len(shards)} files are there from an interrupted run")
    with progress.task("weights", total) as advance, _nothing_left(staging, but_kept=False):
        advance(kept_bytes)
        for shard in shards:
            if shard.name not in kept:
                advance(len(shard.header))
                write_shard(shard, staging / shard.name, advance)
    return kept_bytes


def _clear(staging: Path, kept: Collection[str]) -> None:
    for leftover in staging.iterdir():
        if leftover.name not in kept:
            remove(leftover)


@contextmanager
def _nothing_left(staging: Path, *, but_kept: bool) -> Iterator[None]:
    """Remove `staging` when the input is refused: nothing in it helps a later run, but what one has `kept` does."""
    try:
        yield
    except WeightsError:
        if not but_kept:
            remove(staging)
        raise


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _fingerprint(artifact: Artifact, shards: Sequence[Shard]) -> str:
    """Changes with whatever a finished shard depends on: the files read, by size and time, and what is written."""
    digest = hashlib.sha256(f"{__version__} {artifact.root.resolve()}\n".encode())
    for file in artifact.files:
        status = (artifact.root / file.path).stat()
        digest.update(f"{file.path} {status.st_size} {status.st_mtime_ns} {status.st_ino}\n".encode())
    for shard in shards:
        digest.update(shard.name.encode() + shard.header)
    return f"{digest.hexdigest()}\n"


def _require_space(staging: Path, needed: int) -> None:
    unfinished = sum(path.stat().st_size for path in staging.glob("*.unfinished"))
    free = shutil.disk_usage(staging).free + unfinished
    if free < needed:
        raise WeightsError(
            f"the disk of {staging.parent} has {free // 2**20} MiB left, {needed // 2**20} MiB needed",
            hint="free some space, or choose another disk with -o, and run again",
        )


def _write_texts(written: _Written, staging: Path, progress: Progress) -> str:
    """Everything but the weights; returns which chat template the directory has."""
    artifact, config = written.artifact, written.config
    if len(written.shards) > 1:
        write_text(staging / "model.safetensors.index.json", _json(index(written.shards)))
    files = tokenizer_files(artifact)
    for path in files:
        shutil.copyfile(path, staging / path.name)
        (staging / path.name).chmod(0o644)
    generation = _generation_config(files, config)
    template, name = _template(artifact, files)
    if name == "unknown":
        progress.note(f"chat template {artifact.chat_template} is unknown: chats need LMDeploy's --chat-template")
    if template:
        write_text(staging / "chat_template.jinja", template)
    legacy = legacy_template(name)
    if legacy:
        stops = token_ids(files, legacy.stop_words)
        generation = _stopping_at(generation, stops.values())
        for word in set(legacy.stop_words) - stops.keys():
            progress.note(f"the tokenizer has no token {word}, at which chat template {name} stops")
    write_text(staging / "generation_config.json", _json(generation))
    write_text(staging / "config.json", _json(config))
    return "none" if name == "unknown" else name


def _template(artifact: Artifact, files: Sequence[Path]) -> tuple[str, str]:
    """The chat template to write, "" for none, and what it is: "own", a legacy name, "none" or "unknown"."""
    settings = next((read_json(path) for path in files if path.name == "tokenizer_config.json"), {})
    if settings.get("chat_template") or any(path.name.startswith("chat_template.") for path in files):
        return "", "own"
    name = artifact.chat_template or ""
    legacy = legacy_template(name)
    if legacy:
        return legacy.jinja(with_bos=adds_first_token(files)), name
    return "", "none" if name in ("", "base", "hf", "llama", "puyu") or _completes(name) else "unknown"


def _completes(name: str) -> bool:
    """Names of models that continue texts and have no chats (lmdeploy/model.py, v0.0.14 to v0.4.2)."""
    return name in ("internlm-20b", "internlm2-1_8b", "internlm2-7b", "internlm2-20b", "baichuan-7b", "baichuan-base")


def _generation_config(files: Sequence[Path], config: dict[str, Any]) -> dict[str, Any]:
    """The model's own generation_config.json; which tokens begin and end a text is taken from `config` else."""
    own = next((path.with_name("generation_config.json") for path in files), None)
    stated = read_json(own) if own and own.is_file() else {"_from_model_config": True}
    keys = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {key: config[key] for key in keys if config.get(key) is not None} | stated


def _stopping_at(generation: dict[str, Any], tokens: Any) -> dict[str, Any]:
    """`generation` with `tokens` among those that end an answer: what LMDeploy's templates call stop words."""
    known = generation.get("eos_token_id")
    stops = list(known) if isinstance(known, list) else [] if known is None else [known]
    stops += [token for token in tokens if token not in stops]
    return generation | ({"eos_token_id": stops if len(stops) > 1 else stops[0]} if stops else {})


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
