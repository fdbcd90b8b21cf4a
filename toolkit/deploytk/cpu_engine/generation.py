"""Runs generations in a thread, one batch at a time, and hands their text over as it comes."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import transformers
from tokenizers.decoders import DecodeStream

from deploytk.base.pause import pause
from deploytk.cpu_engine.load import LoadedModel

_COLDEST = 1e-3
_COLLECT_S = 0.02  # how long a batch waits for more requests


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen; temperature 0 is greedy."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    min_p: float = 0.0  # 0: all
    repetition_penalty: float = 1.0  # 1: none
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignores_end: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of an answer; the last one has a finish reason."""

    text: str
    tokens: int  # generated so far
    finish_reason: Literal["stop", "length"] | None = None


@dataclass(slots=True)
class _Job:
    """A request that waits or is generated; `put` takes its tokens, then None or what went wrong."""

    prompt: list[int]
    sampling: Sampling
    put: Callable[[int | BaseException | None], None]
    cancelled: threading.Event = field(default_factory=threading.Event)


class Generator:
    """Generates with one model: so many requests at once as fit into a batch, while others wait.

    Requests that come within 20 ms, and choose tokens alike, make a batch; it is full until its last answer ends.
    """

    def __init__(self, loaded: LoadedModel, max_batch_size: int = 1) -> None:
        self._loaded = loaded
        self._max_batch_size = max_batch_size
        self._waiting: deque[_Job] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="generate")

    async def stream(self, prompt: list[int], sampling: Sampling) -> AsyncIterator[Piece]:
        """The pieces of the answer to `prompt`; closing the iterator early stops the generation."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[int | BaseException | None] = asyncio.Queue()

        def put(item: int | BaseException | None) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, item)

        job = _Job(prompt, sampling, put)
        self._waiting.append(job)
        self._thread.submit(self._work)
        try:
            async for piece in self._pieces(queue, sampling):
                yield piece
        finally:
            job.cancelled.set()

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

    def _work(self) -> None:
        """Generate the next batch; every request asks for one, and most find theirs done."""
        jobs = self._next_batch()
        if not jobs:
            return
        try:
            self._generate(jobs)
        except BaseException as error:  # noqa: BLE001 (who waits for the answers gets it)
            for job in jobs:
                job.put(error)
        for job in jobs:
            job.put(None)

    def _next_batch(self) -> list[_Job]:
        if self._max_batch_size > 1 and self._waiting:
            pause(_COLLECT_S)
        jobs: list[_Job] = []
        while self._waiting and len(jobs) < self._max_batch_size:
            if jobs and not _are_alike(jobs[0].sampling, self._waiting[0].sampling):
                break
            job = self._waiting.popleft()
            if not job.cancelled.is_set():
                jobs.append(job)
        return jobs

    def _generate(self, jobs: Sequence[_Job]) -> None:
        sampling = jobs[0].sampling
        if sampling.seed is not None:
            torch.manual_seed(sampling.seed)
        # So near zero the logits overflow; what would be chosen is the likeliest token anyway.
        is_greedy = sampling.temperature < _COLDEST or sampling.top_p < _COLDEST or sampling.top_k == 1
        names = ("temperature", "top_p", "top_k", *(("min_p",) if sampling.min_p else ()))
        chosen = {} if is_greedy else {name: getattr(sampling, name) for name in names}
        # Without an end of its own a configuration takes the model's; no token is -1.
        ends = [-1] if sampling.ignores_end else sorted(self._loaded.end_ids)
        padding = self._loaded.tokenizer.pad_token_id or 0
        config = transformers.GenerationConfig(
            max_new_tokens=max(job.sampling.max_tokens for job in jobs),
            do_sample=not is_greedy,
            eos_token_id=ends,
            pad_token_id=padding,
            repetition_penalty=sampling.repetition_penalty,
            **chosen,
        )
        longest = max(len(job.prompt) for job in jobs)
        device = self._loaded.model.device
        inputs = torch.tensor([[padding] * (longest - len(job.prompt)) + job.prompt for job in jobs], device=device)
        mask = torch.tensor([[0] * (longest - len(job.prompt)) + [1] * len(job.prompt) for job in jobs], device=device)
        with torch.inference_mode():
            self._loaded.model.generate(
                inputs,
                attention_mask=mask,
                generation_config=config,
                streamer=_Tokens(jobs),
                stopping_criteria=transformers.StoppingCriteriaList([_Ends(jobs, longest)]),
            )


def _are_alike(first: Sampling, second: Sampling) -> bool:
    """Whether two requests can share a batch."""
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "ignores_end")
    return first.seed is second.seed is None and all(getattr(first, n) == getattr(second, n) for n in names)


class _Tokens(transformers.generation.streamers.BaseStreamer):
    """Passes every generated token on; the first call brings the prompts."""

    def __init__(self, jobs: Sequence[_Job]) -> None:
        self._jobs = jobs
        self._count = -1

    def put(self, value: torch.Tensor) -> None:
        self._count += 1
        if self._count == 0:
            return
        for job, token in zip(self._jobs, value.flatten().tolist(), strict=True):
            # A row that has ended is padded until the whole batch ends.
            if self._count <= job.sampling.max_tokens and not job.cancelled.is_set():
                job.put(int(token))
                if self._count == job.sampling.max_tokens:
                    job.put(None)

    def end(self) -> None:
        pass


class _Ends(transformers.StoppingCriteria):
    """Rows that nobody waits for, or that have as many tokens as they were to get."""

    def __init__(self, jobs: Sequence[_Job], prompt_tokens: int) -> None:
        self._jobs = jobs
        self._prompt_tokens = prompt_tokens

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        done = input_ids.shape[1] - self._prompt_tokens
        ended = [job.cancelled.is_set() or done >= job.sampling.max_tokens for job in self._jobs]
        return torch.tensor(ended, dtype=torch.bool, device=input_ids.device)


def _possible_start(text: str, stops: tuple[str, ...]) -> int:
    """How many characters at the end of `text` may be the start of a stop text."""
    longest = max((len(stop) - 1 for stop in stops), default=0)
    sizes = range(min(longest, len(text)), 0, -1)
    return next((size for size in sizes if any(stop.startswith(text[-size:]) for stop in stops)), 0)
