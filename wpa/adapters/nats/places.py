"""Places for what is done side by side, shared fairly by those who want them."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Places"]


class Places:
    """So many at a time. One that is free goes to whoever has the fewest, and of these to who waits longest.

    So whoever asks much, or for what takes long, keeps others waiting for one of all the places, and not for
    its own whole queue.

    Args:
        count: how many there are.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._taken: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By who waits: in the order in which they began to."""

    @asynccontextmanager
    async def of(self, who: str) -> AsyncIterator[None]:
        """Have a place, as soon as there is one. Cancellable."""
        if self._free:
            self._free -= 1
            self._taken[who] += 1
        else:
            await self._wait(who)
        try:
            yield
        finally:
            self._leave(who)

    async def _wait(self, who: str) -> None:
        place = asyncio.get_running_loop().create_future()
        queue = self._waiting.setdefault(who, deque())
        queue.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # given to us just now
                self._leave(who)
            else:
                queue.remove(place)
                if not queue:
                    del self._waiting[who]
            raise

    def _leave(self, who: str) -> None:
        self._taken[who] -= 1
        if not self._taken[who]:
            del self._taken[who]
        if not self._waiting:
            self._free += 1
            return
        following = min(self._waiting, key=self._taken.__getitem__)
        queue = self._waiting[following]
        queue.popleft().set_result(None)
        if not queue:
            del self._waiting[following]
        self._taken[following] += 1
