"""A clock that stands still until it is told how far to go."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import Final

__all__ = ["VirtualClock"]

_NS: Final = 1_000_000_000
SETTLE_ROUNDS: Final = 50
"""Turns of the event loop between two moments: what a wake-up sets off is done before the next."""


class VirtualClock:
    """See :class:`wpa.ports.clock.Clock`. Only :meth:`advance` moves it, so a test owns time.

    Sleepers wake in the order of their moments, and those of one moment in the order in which they
    fell asleep.
    """

    def __init__(self, now_ms: int = 1_795_000_000_000) -> None:
        self._epoch_ms = now_ms
        self._now_ns = 0
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._counter = itertools.count()

    def now_ms(self) -> int:
        return self._epoch_ms + self._now_ns // 1_000_000

    def monotonic_s(self) -> float:
        return self._now_ns / _NS

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Rounded up: whoever sleeps until a moment must not wake before it.
        heapq.heappush(self._sleepers, (self._now_ns + int(seconds * _NS) + 1, next(self._counter), wake))
        await wake

    @property
    def next_in_s(self) -> float | None:
        """Seconds until the next sleeper wakes, or None where nobody sleeps."""
        while self._sleepers and self._sleepers[0][2].done():  # cancelled
            heapq.heappop(self._sleepers)
        return (self._sleepers[0][0] - self._now_ns) / _NS if self._sleepers else None

    async def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass, waking everybody on the way, each at the right moment."""
        await self.settle()
        until = self._now_ns + round(seconds * _NS)
        while self.next_in_s is not None and self._sleepers[0][0] <= until + 1:
            moment, _, wake = heapq.heappop(self._sleepers)
            self._now_ns = max(self._now_ns, moment)
            wake.set_result(None)
            await self.settle()
        self._now_ns = max(self._now_ns, until)

    async def settle(self) -> None:
        """Let everything that can run at this moment run."""
        for _ in range(SETTLE_ROUNDS):
            await asyncio.sleep(0)
