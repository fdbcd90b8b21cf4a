"""What a model takes of a GPU's memory, before it is deployed."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from deploytk import lmdeploy
from deploytk.artifact import Artifact, KvPolicy
from deploytk.hardware.catalogue import MIB, Gpu
from deploytk.plan.kv import kv_bytes_per_token, state_bytes, window_tokens
from deploytk.plan.overhead import Overhead, OverheadTerms, find_overhead
from deploytk.plan.weights_size import weights_bytes

_LARGEST_SHARE = 0.95  # of free memory for the KV pool: the rest is for what warm-up takes after it
_SAFETY = 0.97  # free memory is predicted, and a pool one block too small refuses the session it was made for
_PAGE_BYTES = 32 * MIB  # LMDeploy from 0.15.0 on, src/turbomind/memory/object.cc
_LARGEST_SLAB_BYTES = 2**30
_SLAB_FILLED = 0.95

PREFILL = 8192
"""LMDeploy's default of max_prefill_token_num."""


def step_tokens(session_len: int, batch: int) -> int:
    """Tokens of the largest step of a server: a prompt, or as much of it as is read at once, beside other sessions."""
    return min(PREFILL, session_len) + batch


@dataclass(frozen=True, slots=True)
class Vram:
    """Predicted VRAM of one GPU, in bytes, once the server answers."""

    weights_bytes: int
    kv_pool_bytes: int
    overhead_bytes: int
    total_bytes: int
    loading_peak_bytes: int  # the most while it loads
    overhead: OverheadTerms = field(default_factory=OverheadTerms)  # what overhead_bytes is the sum of
    overhead_source: str = ""  # whose figures these are


def session_blocks(session_len: int, version: str) -> int:
    """Blocks of the KV cache that one session of `session_len` tokens takes.

    From 0.15.0 on a request is refused when its next token finds no block, so every session gets one to spare.
    """
    spare = 1 if lmdeploy.wants_spare_block(version) else 0
    return -(-session_len // lmdeploy.block_tokens(version)) + spare


@dataclass(frozen=True, slots=True)
class PoolUnit:
    """What a KV pool is handed out in: so many bytes that hold so many blocks, after some bytes for alignment."""

    bytes: int
    blocks: int
    alignment_bytes: int

    def pool_bytes(self, blocks: int) -> int:
        """The smallest pool with that many blocks."""
        return self.alignment_bytes + -(-blocks // self.blocks) * self.bytes

    def blocks_in(self, pool_bytes: int) -> int:
        return max(0, pool_bytes - self.alignment_bytes) // self.bytes * self.blocks


def pool_unit(block_bytes: int, version: str) -> PoolUnit:
    """How LMDeploy `version` divides its pool.

    From 0.15.0 on in slabs: a power of two from 32 MiB on that blocks fill to 95 %, at most 1 GiB. A pool smaller
    than one slab holds nothing, and its server never becomes ready: seen on a GPU with int8 and 0.18.0.
    Source: LMDeploy v0.16.0 src/turbomind/memory/object.cc and slab.h, `SlabAllocator`.
    """
    if not lmdeploy.allocates_pool_in_slabs(version):
        return PoolUnit(block_bytes, 1, 0)
    slab = _PAGE_BYTES
    while slab < block_bytes:
        slab *= 2
    while slab // block_bytes * block_bytes < _SLAB_FILLED * slab and slab < _LARGEST_SLAB_BYTES:
        slab *= 2
    return PoolUnit(slab, slab // block_bytes, _PAGE_BYTES)


@dataclass(frozen=True, slots=True)
class Memory:
    """One GPU's memory as one model in one LMDeploy version uses it."""

    gpu: Gpu | None
    version: str
    weights_bytes: int
    token_bytes: int
    sequence_bytes: int  # beside its tokens: the state of linear attention
    overhead: Overhead
    step_tokens: int = PREFILL  # of the largest step: prompts are read in steps of so many
    window_tokens: int | None = None  # of a session's past that are kept; None: all

    @classmethod
    def of(
        cls,
        artifact: Artifact,
        served_by: tuple[str, lmdeploy.LmdeployEngine],
        ranks: int,
        kv_policy: KvPolicy,
        gpu: Gpu | None,
    ) -> Memory:
        version, engine = served_by
        return cls(
            gpu,
            version,
            weights_bytes(artifact, version, ranks, engine),
            kv_bytes_per_token(artifact, kv_policy, version, ranks, engine),
            state_bytes(artifact, ranks),
            find_overhead(version, artifact, ranks),
            min(PREFILL, artifact.session_len),
            window_tokens(artifact, engine),
        )

    @property
    def block_tokens(self) -> int:
        return lmdeploy.block_tokens(self.version)

    @property
    def block_bytes(self) -> int:
        return max(1, self.block_tokens * self.token_bytes)  # a hostile configuration has no layer with a cache

    @property
    def free_bytes(self) -> int | None:
        """What is free when the pool is sized."""
        if self.gpu is None:
            return None
        before_pool = self.overhead.before_pool.total_bytes
        return self.gpu.usable_bytes - self.weights_bytes - before_pool

    @property
    def room_bytes(self) -> int | None:
        """What the pool may take at most."""
        return None if self.available_bytes is None else max(0, self.available_bytes)

    @property
    def available_bytes(self) -> int | None:
        """The same, below zero by what the weights alone lack."""
        if self.gpu is None or self.free_bytes is None:
            return None
        ready = self.overhead.terms(self.step_tokens).total_bytes
        left = self.gpu.usable_bytes - self.weights_bytes
        if left < max(ready, self.overhead.loading_bytes):
            return left - max(ready, self.overhead.loading_bytes)
        return int(self.free_bytes * self.largest_share * _SAFETY)

    @property
    def largest_share(self) -> float:
        """Of what is free: more would leave too little for what is taken after the pool."""
        if not self.free_bytes:
            return _LARGEST_SHARE
        after_pool = self.overhead.terms(self.step_tokens).total_bytes - self.overhead.before_pool.total_bytes
        return min(_LARGEST_SHARE, (self.free_bytes - after_pool) / self.free_bytes)

    @property
    def unit(self) -> PoolUnit:
        return pool_unit(self.block_bytes, self.version)

    @property
    def kept_tokens(self) -> int | None:
        """The most tokens of one session that are there at once: its window, a step's, and the rest of a block."""
        return None if self.window_tokens is None else self.window_tokens + PREFILL + self.block_tokens

    def session_blocks(self, session_len: int) -> int:
        kept = self.kept_tokens
        return session_blocks(session_len if kept is None else min(session_len, kept), self.version)

    def needed_bytes(self, session_len: int, batch: int) -> int:
        return self.unit.pool_bytes(batch * self.session_blocks(session_len)) + batch * self.sequence_bytes

    def capacity_tokens(self, pool_bytes: int, batch: int) -> int:
        """Tokens that a pool of that size holds, of `batch` sequences at most."""
        return self.unit.blocks_in(pool_bytes - batch * self.sequence_bytes) * self.block_tokens

    def share(self, session_len: int, batch: int) -> float:
        """`cache_max_entry_count` for those sessions; the version's default when no GPU is known."""
        meaning = lmdeploy.pool_meaning(self.version)
        if meaning == "sequences":
            return float(batch)
        if self.gpu is None or not self.room_bytes:
            return lmdeploy.default_pool(self.version)
        needed = self.needed_bytes(session_len, batch)
        if meaning == "of_total":
            return min(_rounded_up(needed / self.gpu.total_bytes), _LARGEST_SHARE)
        share = _rounded_up(needed / int((self.free_bytes or 0) * _SAFETY))
        return min(share, _rounded_down(self.largest_share))

    def pool_bytes(self, share: float, session_len: int, batch: int) -> int:
        """What that share takes; without a GPU, what the sessions need."""
        meaning = lmdeploy.pool_meaning(self.version)
        if meaning == "sequences":
            return self.needed_bytes(session_len, int(share))
        if self.gpu is None:
            return self.needed_bytes(session_len, batch)
        return int(share * (self.gpu.total_bytes if meaning == "of_total" else max(0, self.free_bytes or 0)))

    def predict(self, pool_bytes: int) -> Vram:
        terms = self.overhead.terms(self.step_tokens)
        total = self.weights_bytes + pool_bytes + terms.total_bytes
        peak = max(total, self.weights_bytes + self.overhead.loading_bytes)
        source = self.overhead.source
        return Vram(self.weights_bytes, pool_bytes, terms.total_bytes, total, peak, terms, source)

    def fits(self, share: float, session_len: int, batch: int, pool_bytes: int) -> bool | None:
        if self.gpu is None or self.room_bytes is None:
            return None
        needed = self.needed_bytes(session_len, batch)
        is_room_left = self.predict(pool_bytes).loading_peak_bytes <= self.gpu.usable_bytes
        return needed <= self.room_bytes and needed <= pool_bytes and share > 0 and is_room_left

    def largest_session_len(self, limit: int, batch: int) -> int | None:
        """The longest session, in whole blocks, of which `batch` fit; at most `limit`, 0 when none fits."""
        if self.room_bytes is None:
            return None
        if self._holds(limit, batch):
            return limit
        most = min(limit // self.block_tokens, self.unit.blocks_in(self._room_beside(1, batch)) // batch)
        return _most(most, lambda blocks: self._holds(blocks * self.block_tokens, batch)) * self.block_tokens

    def largest_batch(self, session_len: int) -> int | None:
        if self.room_bytes is None:
            return None
        blocks = self.unit.blocks_in(self._room_beside(session_len, 1))
        return _most(blocks // self.session_blocks(session_len), lambda batch: self._holds(session_len, batch))

    def _holds(self, session_len: int, batch: int) -> bool:
        return self.needed_bytes(session_len, batch) <= self._room_beside(session_len, batch)

    def _room_beside(self, session_len: int, batch: int) -> int:
        """What the pool may take beside the largest step of those sessions."""
        return replace(self, step_tokens=step_tokens(session_len, batch)).room_bytes or 0


def _most(limit: int, holds: Callable[[int], bool]) -> int:
    """The largest number up to `limit` that holds, where every smaller one does as well; 0 when none does."""
    return bisect_left(range(1, limit + 1), True, key=lambda number: not holds(number))


def _rounded_up(share: float) -> float:
    steps = _steps(share)
    return math.ceil(share * steps) / steps


def _rounded_down(share: float) -> float:
    steps = _steps(share)
    return math.floor(share * steps) / steps


def _steps(share: float) -> int:
    """In how many steps 1 is divided: two significant digits at least, and four decimals where that is more."""
    return int(10 ** max(4, 1 - math.floor(math.log10(share))))
