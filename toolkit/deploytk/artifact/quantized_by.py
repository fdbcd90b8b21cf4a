"""How a model was quantized and what it cost, as `deploytk quantize` writes it beside the weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploytk.artifact.value import Problem, QuantizedBy
from deploytk.base.errors import ArtifactError
from deploytk.base.files import read_bounded
from deploytk.base.json import parse_plain
from deploytk.base.typed import typed

RECORD = "deploytk_quantization.json"

FORMAT = 1
"""Of the record; raised when a key changes its meaning."""

_LARGEST_BYTES = 2**16
_WORD = re.compile(r"[\w.+ -]{1,100}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class _Written:
    """The file, key by key."""

    format: int
    quantized_by: QuantizedBy


def read_quantized_by(root: Path) -> tuple[QuantizedBy | None, tuple[Problem, ...]]:
    """What the record in `root` says; None where there is none, with a problem where it is no record."""
    path = root / RECORD
    if not path.is_file():
        return None, ()
    try:
        written = typed(_Written, parse_plain(read_bounded(path, _LARGEST_BYTES)), "")
        if written.format != FORMAT:
            raise ValueError(f"format {written.format} is not known")
        for what in _odd(written.quantized_by):
            raise ValueError(f"{what} is malformed")
    except (OSError, ValueError, ArtifactError) as error:
        message = f"{RECORD} cannot be read: {error}"
        return None, (Problem("warning", message, "it is what deploytk quantize writes; remove it"),)
    return written.quantized_by, ()


def _odd(found: QuantizedBy) -> Iterator[str]:
    """What no run of deploytk would have written, and a card would show."""
    words = {"tool": found.tool, "tool_version": found.tool_version, "deploytk": found.deploytk}
    words |= {"arguments": " ".join(found.arguments) or "-", "calibration.name": found.calibration.name}
    if found.cost:
        words["cost.text"] = found.cost.text
    yield from (name for name, word in words.items() if not _WORD.fullmatch(word))
    digests = [found.calibration.digest, found.cost.digest if found.cost else None]
    yield from ("a digest" for digest in digests if digest is not None and not _DIGEST.fullmatch(digest))
    if found.cost:
        shares = (found.cost.top1_agreement,)
        figures = (found.cost.perplexity_before, found.cost.perplexity_after, found.cost.kl_mean)
        yield from ("a share" for share in shares if not 0 <= share <= 1)
        yield from ("a figure" for figure in figures if figure < 0)
