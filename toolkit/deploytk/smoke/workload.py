"""What a server is asked, and when."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

_PROMPTS = (
    "Tell me a short story about a lighthouse.",
    "Explain in a few sentences why the sky is blue.",
    "请用几句话介绍一下你自己。",
    "What is the capital of France, and what is it known for?",
)
_FILLER = "The quick brown fox jumps over the lazy dog and runs away from the river into the wood. "

Dialect = Literal["lmdeploy", "transformers"]


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests of one shape, decoded greedily: so many at once, or so many per second."""

    requests: int = 30
    warmup_requests: int = 3
    output_tokens: int = 128
    input_tokens: int | None = None  # None: short questions; else raw text of about that many tokens
    concurrency: int = 1  # closed loop: that many answers are always under way
    rate: float | None = None  # requests per second (open loop, Poisson) instead of a concurrency
    ignores_end: bool = False  # every answer has exactly `output_tokens`
    seed: int = 0
    has_self_check: bool = True  # measure first what the client itself can do
    request_within_s: float = 120.0
    total_within_s: float = 600.0
    dialect: Dialect = "lmdeploy"  # what the server takes beyond OpenAI's fields

    @property
    def prompt_set(self) -> str:
        """What all the prompts depend on, as a digest."""
        text = "\n".join(_PROMPTS) if self.input_tokens is None else f"{_FILLER}{self.input_tokens}"
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    @property
    def is_raw(self) -> bool:
        """Whether prompts go to /v1/completions, without a chat template."""
        return self.input_tokens is not None

    def prompt(self, number: int, purpose: str, characters: int = 0) -> str:
        """A prompt with a number of its own in front, so that no prefix cache answers for it."""
        nonce = f"({purpose} {self.seed}.{number}) "
        if not self.is_raw:
            return nonce + _PROMPTS[number % len(_PROMPTS)]
        return (nonce + _FILLER * (characters // len(_FILLER) + 1))[:characters]

    def schedule(self) -> tuple[float, ...]:
        """When each request of an open loop is due, in seconds from the start: exponential gaps, from the seed."""
        if self.rate is None:
            return ()
        return tuple(_arrivals(self.rate, self.requests, self.seed))

    def body(self, model: str, prompt: str, *, is_raw: bool, output_tokens: int, ignores_end: bool) -> dict[str, Any]:
        """The JSON of a request."""
        body: dict[str, Any] = {"model": model, "temperature": 0, "max_tokens": output_tokens, "stream": True}
        body |= {"prompt": prompt} if is_raw else {"messages": [{"role": "user", "content": prompt}]}
        if self.dialect == "lmdeploy":
            body |= {"top_k": 1, "stream_options": {"include_usage": True}}
            return body | ({"ignore_eos": True} if ignores_end else {})
        # transformers always counts, and refuses fields that it does not know.
        length = f', "min_new_tokens": {output_tokens}' if ignores_end else ""
        return body | {"generation_config": f'{{"do_sample": false, "max_new_tokens": {output_tokens}{length}}}'}


def _arrivals(rate: float, count: int, seed: int) -> Iterator[float]:
    draw = random.Random(seed)  # noqa: S311 (a schedule, not a secret)
    at = 0.0
    for _ in range(count):
        yield at
        at += draw.expovariate(rate)
