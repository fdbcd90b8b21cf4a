"""Notices an engine that hangs: it runs, it is ready, and nothing comes out of it any more."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Coroutine  # noqa: UP035 (Python 3.8 in old images)

if TYPE_CHECKING:
    from .engine import Engine

COMPILE_S = {"pytorch": 120.0}  # its kernels are compiled when a shape comes for the first time
LOOK_AGAIN_SHARE = 0.25  # of the time of silence


class Watchdog:
    """Asks an engine that has been silent for `silent_s` for a sign, and gives it up when none comes.

    An engine that is busy is silent, too. So everything that it sends to anybody is a sign; it has to answer who asks
    for the list of models, which costs it nothing; and a token it owes only after the time that a slow GPU would need
    for all that is asked of it. The CPU engine makes one answer after the other: of it only the list is asked.
    """

    def __init__(self, engine: Engine, silent_s: float) -> None:
        self._engine = engine
        self._silent_s = silent_s

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._silent_s * LOOK_AGAIN_SHARE)
            if self._engine.state == "ready" and self._engine.traffic.silent_s >= self._silent_s:
                trouble = await self._find_trouble()
                if trouble and self._engine.state == "ready":
                    self._engine.give_up(trouble)

    async def _find_trouble(self) -> str:
        """Why the engine is taken for one that hangs, '' when it is not."""
        engine, traffic = self._engine, self._engine.traffic
        is_waited_for = traffic.is_open
        if not await self._comes(engine.list_models(), self._silent_s):
            return f"the engine answered nothing for {traffic.silent_s:.0f} s"
        if is_waited_for and traffic.is_open and engine.settings.name != "cpu":
            limit_s = self._silent_s + traffic.allowance_s + COMPILE_S.get(engine.settings.name, 0.0)
            if not await self._comes(engine.make_token(), limit_s):
                return f"the engine gave no token for {traffic.silent_s:.0f} s"
        traffic.note_sign()
        return ""

    async def _comes(self, answer: Coroutine[Any, Any, object], within_s: float) -> bool:
        """Whether the answer comes in time, or meanwhile anything for anybody else."""
        traffic = self._engine.traffic
        before_s, asked = traffic.last_sign_s, asyncio.ensure_future(answer)
        deadline_s = asyncio.get_event_loop().time() + within_s
        try:
            while traffic.last_sign_s == before_s and asyncio.get_event_loop().time() < deadline_s:
                await asyncio.wait({asked}, timeout=self._silent_s * LOOK_AGAIN_SHARE)
                if asked.done():
                    # An engine that refuses the connection has ended, which is noticed elsewhere.
                    return True
            return traffic.last_sign_s != before_s
        finally:
            asked.cancel()
            await asyncio.wait({asked})
