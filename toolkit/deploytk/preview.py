"""Stage 7: bundle, model, image or URL -> Endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running OpenAI-style server."""

    url: str  # without /v1 and without a slash at the end
    model: str  # the name to send in requests, from /v1/models
    engine: str | None  # which serving engine really runs: "turbomind", "pytorch", "cpu"; None when it does not say
    engine_log: Path | None  # the engine's own output, when we started it
    pid: int | None  # of the process that we started; its children belong to it
    bundle: Path | None  # what is served, when we started it
