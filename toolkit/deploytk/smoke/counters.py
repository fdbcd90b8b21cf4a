"""What a server itself counts: tokens, at /metrics, in the text format of Prometheus."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE = re.compile(r"^lmdeploy:(prompt|generation)_tokens_total(?:\{[^}\n]*\})?\s+(\S+)", re.MULTILINE)

_MOST = 2**53  # beyond it, and for NaN, a sum of floats is no count


@dataclass(frozen=True, slots=True)
class Counters:
    """Tokens since the server started."""

    prompt: int
    generation: int

    def since(self, before: Counters) -> Counters:
        return Counters(self.prompt - before.prompt, self.generation - before.generation)


def read_counters(text: str) -> Counters | None:
    """The counters in a page of metrics, over all engines; None when it has none."""
    sums = {"prompt": 0.0, "generation": 0.0}
    found = _LINE.findall(text)
    try:
        for name, value in found:
            sums[name] += float(value)
    except ValueError:
        return None
    if {name for name, _ in found} != set(sums) or not all(0 <= value <= _MOST for value in sums.values()):
        return None
    return Counters(int(sums["prompt"]), int(sums["generation"]))
