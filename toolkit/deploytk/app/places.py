"""The places at the engine, and the line of those who wait for one."""

from __future__ import annotations

import asyncio
from typing import Any

from .limits import Limits
from .metrics import Metrics
from .refused import RefusedError
from .relay import Client

TICKET = b"x-deploytk-ticket"  # the header by which a request is found again in the line
LONGEST_TICKET = 64


class Places:
    """Made where a loop runs."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._free = asyncio.Semaphore(limits.running)
        self._line: list[_Waiting] = []  # in the order in which the semaphore serves them

    async def take(self, client: Client, ticket: bytes = b"") -> bool:
        """Wait for a free place; False when the client went away first."""
        if not self._free.locked():
            await self._free.acquire()
            return True
        if self._metrics.waiting >= self._limits.waiting:
            raise RefusedError(429, "too_many_requests", "too many requests are waiting", 2)
        has_place = await self._wait(client, _Waiting(ticket))
        if has_place and client.is_gone:
            self.release()
        if not has_place and not client.is_gone:
            raise RefusedError(503, "busy", f"no place at the engine within {self._limits.request_s:.0f} s", 2)
        return has_place and not client.is_gone

    def release(self) -> None:
        self._free.release()

    def tell(self, ticket: bytes) -> dict[str, Any]:
        """How many are at the engine, how many wait, and how many of these are before the request with `ticket`."""
        ahead = [at for at, waiting in enumerate(self._line) if ticket and waiting.ticket == ticket]
        running, places = self._metrics.running, self._limits.running
        return {
            "ahead": ahead[0] if ahead else None, "waiting": len(self._line), "running": running, "places": places
        }  # fmt: skip

    async def _wait(self, client: Client, who: _Waiting) -> bool:
        self._metrics.waiting += 1
        self._line.append(who)
        place = asyncio.ensure_future(self._free.acquire())
        try:
            either = {place, client.gone}
            await asyncio.wait(either, timeout=self._limits.request_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._metrics.waiting -= 1
            self._line.remove(who)
            has_place = place.done() and not place.cancelled()
            place.cancel()
        return has_place


class _Waiting:
    def __init__(self, ticket: bytes) -> None:
        self.ticket = ticket


def ticket_of(scope: dict[str, Any]) -> bytes:
    return next((value[:LONGEST_TICKET] for name, value in scope["headers"] if name.lower() == TICKET), b"")
