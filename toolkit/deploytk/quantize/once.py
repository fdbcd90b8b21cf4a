"""A quantized model where the next run with the same wish finds it again: hours are not spent twice."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from deploytk.artifact import Artifact, read_artifact
from deploytk.base.cache import cache_directory
from deploytk.base.progress import Progress
from deploytk.quantize.calibration import NONE, calibration_texts, measured_text
from deploytk.quantize.checks import check_source
from deploytk.quantize.value import QuantizeOptions
from deploytk.quantize.write import is_within, quantize


@dataclass(frozen=True, slots=True)
class Made:
    path: Path
    is_within_budget: bool | None  # None: there was none


def quantize_once(artifact: Artifact, options: QuantizeOptions, progress: Progress) -> Made:
    """What `quantize` makes of the model, in the cache; raises what that raises."""
    check_source(artifact)
    name = artifact.root.resolve().name
    path = cache_directory() / "quantized" / _digest(artifact, options)[:16] / f"{name}-{options.method}"
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        done = quantize(artifact, path, options, progress)
        return Made(done.path, done.is_within_budget)
    progress.note(f"{path} was made by an earlier run, with the same wish")
    by = read_artifact(path).quantized_by
    return Made(path, is_within(options, by.cost if by else None))


def _digest(artifact: Artifact, options: QuantizeOptions) -> str:
    """Changes with the model, by the size and time of its files, and with the wish; not with the budget."""
    texts, measured = calibration_texts(options.calibration), measured_text(options.measured_text)
    asked = (options.method, options.samples, options.seqlen, options.search_scale, options.iterations)
    digest = hashlib.sha256(f"{artifact.root.resolve()} {asked} {options.golden}\n".encode())
    digest.update(f"{texts.digest if texts else NONE} {measured.digest}\n".encode())
    for file in artifact.files:
        status = (artifact.root / file.path).stat()
        digest.update(f"{file.path} {status.st_size} {status.st_mtime_ns} {status.st_ino}\n".encode())
    return digest.hexdigest()
