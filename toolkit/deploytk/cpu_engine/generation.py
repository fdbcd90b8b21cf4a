"""Runs one generation at a time in a thread, and hands its text over as it comes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import torch
import transformers
from tokenizers.decoders import DecodeStream

from deploytk.cpu_engine.load import LoadedModel

_COLDEST = 1e-3


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen; temperature 0 is greedy."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignores_end: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of an answer; the last one has a finish reason."""

    text: str
    tokens: int  # generated so far
    finish_reason: Literal["stop", "length"] | None = None


class Generator:
    """Generates with one model, one request at a time; others wait."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="generate")

    async def stream(self, prompt: list[int], sampling: Sampling) -> AsyncIterator[Piece]:
        """The pieces of the answer to `prompt`; closing the iterator early stops the generation."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[int | BaseException | None] = asyncio.Queue()
        cancelled = threading.Event()

        def put(item: int | BaseException | None) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, item)

        future = self._thread.submit(self._generate, prompt, sampling, put, cancelled)
        future.add_done_callback(lambda done: put(done.exception()))
        try:
            async for piece in self._pieces(queue, sampling):
                yield piece
        finally:
            cancelled.set()
            future.cancel()

    async def _pieces(self, queue: asyncio.Queue[Any], sampling: Sampling) -> AsyncIterator[Piece]:
        decode = DecodeStream(skip_special_tokens=True)
        text, held, count = "", "", 0
        while True:
            item = await queue.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                yield Piece(held, count, "length" if count >= sampling.max_tokens else "stop")
                return
            count += 1
            if item in self._loaded.end_ids and not sampling.ignores_end:
                yield Piece(held, count, "stop")
                return
            step = decode.step(self._loaded.tokenizer.backend_tokenizer, item) or ""
            text += step
            cut = min((at for at in (text.find(stop) for stop in sampling.stop) if at >= 0), default=None)
            if cut is not None:
                start = len(text) - len(step) - len(held)
                yield Piece(text[start:cut] if cut > start else "", count, "stop")
                return
            held += step
            keep = _possible_start(held, sampling.stop)
            if len(held) > keep:
                yield Piece(held[: len(held) - keep], count)
                held = held[len(held) - keep :]

    def _generate(self, prompt: list[int], sampling: Sampling, put: Any, cancelled: threading.Event) -> None:
        if cancelled.is_set():
            return
        if sampling.seed is not None:
            torch.manual_seed(sampling.seed)
        # So near zero the logits overflow; what would be chosen is the likeliest token anyway.
        is_greedy = sampling.temperature < _COLDEST or sampling.top_p < _COLDEST or sampling.top_k == 1
        chosen = (
            {} if is_greedy else {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
        )
        # Without an end of its own a configuration takes the model's; no token is -1.
        ends = [-1] if sampling.ignores_end else sorted(self._loaded.end_ids)
        config = transformers.GenerationConfig(
            max_new_tokens=sampling.max_tokens,
            do_sample=not is_greedy,
            eos_token_id=ends,
            pad_token_id=self._loaded.tokenizer.pad_token_id or 0,
            **({} if is_greedy else chosen),
        )
        inputs = torch.tensor([prompt])
        with torch.inference_mode():
            self._loaded.model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                generation_config=config,
                streamer=_Tokens(put),
                stopping_criteria=transformers.StoppingCriteriaList([_Cancelled(cancelled)]),
            )


class _Tokens(transformers.generation.streamers.BaseStreamer):
    """Passes every generated token on; the first call brings the prompt."""

    def __init__(self, put: Any) -> None:
        self._put = put
        self._is_prompt = True

    def put(self, value: torch.Tensor) -> None:
        if not self._is_prompt:
            for token in value.flatten().tolist():
                self._put(int(token))
        self._is_prompt = False

    def end(self) -> None:
        pass


class _Cancelled(transformers.StoppingCriteria):
    def __init__(self, cancelled: threading.Event) -> None:
        self._cancelled = cancelled

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._cancelled.is_set(), dtype=torch.bool)


def _possible_start(text: str, stops: tuple[str, ...]) -> int:
    """How many characters at the end of `text` may be the start of a stop text."""
    longest = max((len(stop) - 1 for stop in stops), default=0)
    sizes = range(min(longest, len(text)), 0, -1)
    return next((size for size in sizes if any(stop.startswith(text[-size:]) for stop in stops)), 0)
