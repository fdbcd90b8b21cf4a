"""Reads what an LMDeploy server says about itself: its KV pool, what was free, what went wrong.

Formats, as seen in tests/data/logs and in LMDeploy's sources:

    0.1.0 to 0.14   [TM][INFO] [BlockManager] block_size = 0.125 MB, then max_block_count = 11391
    from 0.15       Object cache budget: 286.32 MB from free 136345.12 MB and ratio 0.002, and slab_size in slab.h

A server says so only with the log level INFO; without, `parser` is None.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploytk.base.digits import whole_number
from deploytk.hardware.catalogue import MIB

_LARGEST_LOG_BYTES = 2**26
_MB = r"(\d{1,12}(?:\.\d{0,12})?)"  # what float takes, and int after it
_BUDGET = re.compile(rf"Object cache budget: {_MB} MB from free {_MB} MB and ratio [\d.]+")
_SLAB = re.compile(r"slab_size (\d{1,18}), object_size (\d+), object_count (\d+)")
_BLOCK_SIZE = re.compile(rf"\[BlockManager\] block_size = {_MB} ?MB")
_BLOCK_COUNT = re.compile(r"\[BlockManager\] max_block_count = (\d{1,18})\b")
_CONFIG = re.compile(r"(?:updated|input) (?:backend_config|backend=\w+, backend_config)=(\w+)\((.*)\)")
_FIELD = re.compile(r"(\w+)=('[^']*'|\[[^\]]*\]|[^,()]+)")
_PROBLEMS = (
    (
        "out of memory",
        re.compile(r"CUDA out of memory|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation", re.IGNORECASE),
    ),
    ("no checkpoint was found", re.compile(r"Failed to find valid checkpoint")),
    ("session_len was made smaller", re.compile(r"session_len. is too large|truncated to \d+ tokens")),
)
_WARM_UP = re.compile(r"Warm-up for (\d{1,18}) tokens failed")
_FALLBACK = re.compile(r"fall\s?back to pytorch engine", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class EngineLog:
    """What was found; None where the log does not say."""

    parser: Literal["object_cache", "block_manager"] | None  # which format the pool was read from
    engine: Literal["turbomind", "pytorch"] | None
    has_fallen_back: bool  # to the PyTorch engine, which LMDeploy does with a warning alone
    pool_bytes: int | None
    free_bytes: int | None  # before the pool was taken
    block_bytes: int | None
    session_len: int | None  # as the engine set it
    settings: tuple[tuple[str, str], ...]  # of the engine, as it names them
    problems: tuple[str, ...]


def read_engine_log(path: Path) -> EngineLog:
    """What the log at `path` says; an unreadable one says nothing."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_LOG_BYTES).decode("utf-8", "replace")
    except OSError:
        text = ""
    return parse_engine_log(text)


def parse_engine_log(text: str) -> EngineLog:
    settings, engine = _settings(text)
    budget, slab = _BUDGET.search(text), _SLAB.search(text)
    sizes, counts = _BLOCK_SIZE.search(text), _BLOCK_COUNT.search(text)
    pool = free = block = None
    parser: Literal["object_cache", "block_manager"] | None = None
    if budget:
        parser, pool, free = "object_cache", int(float(budget[1]) * MIB), int(float(budget[2]) * MIB)
        block = int(slab[2]) if slab else None
    elif sizes and counts:
        parser, block = "block_manager", int(float(sizes[1]) * MIB)
        pool = block * int(counts[1])
    longest = whole_number(settings.get("session_len"))
    return EngineLog(
        parser=parser,
        engine=engine,
        has_fallen_back=_FALLBACK.search(text) is not None,
        pool_bytes=pool,
        free_bytes=free,
        block_bytes=block,
        session_len=longest,
        settings=tuple(sorted(settings.items())),
        problems=tuple(_problems(text, longest)),
    )


def _problems(text: str, session_len: int | None) -> Iterator[str]:
    yield from (name for name, pattern in _PROBLEMS if pattern.search(text))
    # Warming up goes beyond the session length, where it fails on every healthy server.
    failed = sorted(int(tokens) for tokens in _WARM_UP.findall(text))
    if failed and failed[0] <= (session_len or 0):
        yield f"warm-up with {failed[0]} tokens failed"


def _settings(text: str) -> tuple[dict[str, str], Literal["turbomind", "pytorch"] | None]:
    """The last configuration that the log shows: the engine corrects what it was given."""
    found = list(_CONFIG.finditer(text))
    if not found:
        return {}, None
    fields = {name: _plain(value) for name, value in _FIELD.findall(found[-1][2])}
    return fields, "pytorch" if found[-1][1].startswith("Pytorch") else "turbomind"


def _plain(value: str) -> str:
    try:
        return str(ast.literal_eval(value)) if value.startswith("'") else value.strip()
    except (ValueError, SyntaxError):
        return value
