"""How a model was quantized and what it cost, as `deploytk quantize` writes it beside the weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploytk.artifact.value import Problem, QuantizationCost, QuantizedBy
from deploytk.base.errors import ArtifactError
from deploytk.base.files import read_bounded
from deploytk.base.json import parse_plain
from deploytk.base.typed import typed

RECORD = "deploytk_quantization.json"

FORMAT = 1
"""Of the record; raised when a key changes its meaning."""

COST_SHOWS = "says nothing about long answers: those lose first"
"""What no figure of a cost tells. Source: LMDeploy's own figures for Qwen3-8B, in docs/howto/quantize.md."""

_LARGEST_BYTES = 2**16
_LONGEST_WORD = 100
_WORD = re.compile(rf"[\w.+ -]{{1,{_LONGEST_WORD}}}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")
_ADDED = {"created": None, "source": None}  # keys that records of earlier versions have not


@dataclass(frozen=True, slots=True)
class _Written:
    """The file, key by key."""

    format: int
    quantized_by: QuantizedBy


def recordable(name: str) -> str:
    """The name of a file or directory as a record has it: what a card could not show is a dash."""
    return re.sub(r"[^\w.+ -]", "-", name)[:_LONGEST_WORD] or "-"


def cost_in_words(cost: QuantizationCost) -> str:
    """What it cost, in one line. It never says that it cost nothing."""
    before, after, change = cost.perplexity_before, cost.perplexity_after, cost.perplexity_increase
    text = f"{cost.windows} × {cost.window_tokens} tokens"
    golden = f"; {cost.golden_after} of {cost.golden} known answers, {cost.golden_before} before" if cost.golden else ""
    return (
        f"perplexity {before:.3f} → {after:.3f} ({change:+.2f} %), KL {cost.kl_mean:.4f} nats, "
        f"{cost.top1_agreement:.1%} of likeliest tokens the same, on {text}{golden}"
    )


def read_quantized_by(root: Path) -> tuple[QuantizedBy | None, tuple[Problem, ...]]:
    """What the record in `root` says; None where there is none, with a problem where it is no record."""
    path = root / RECORD
    if not path.is_file():
        return None, ()
    try:
        found = parse_plain(read_bounded(path, _LARGEST_BYTES))
        if isinstance(found, dict) and isinstance(by := found.get("quantized_by"), dict):
            found = {**found, "quantized_by": _ADDED | by}
        written = typed(_Written, found, "")
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
    words |= {"source": found.source} if found.source is not None else {}
    words |= {"cost.text": found.cost.text} if found.cost else {}
    yield from (name for name, word in words.items() if not _WORD.fullmatch(word))
    yield from ["created"] if found.created is not None and not _TIME.fullmatch(found.created) else []
    digests = [found.calibration.digest, found.cost.digest if found.cost else None]
    yield from ("a digest" for digest in digests if digest is not None and not _DIGEST.fullmatch(digest))
    if found.cost:
        shares = (found.cost.top1_agreement,)
        figures = (found.cost.perplexity_before, found.cost.perplexity_after, found.cost.kl_mean)
        yield from ("a share" for share in shares if not 0 <= share <= 1)
        yield from ("a figure" for figure in figures if figure < 0)
