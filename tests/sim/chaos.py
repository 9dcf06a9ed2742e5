"""Ports that behave as a bad day's: slow, cut off for a moment, behind the times, or frozen altogether."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from wpa.adapters.memory import MemoryServer
from wpa.errors import Unavailable
from wpa.model.events import Event
from wpa.ports import Ports
from wpa.ports.live import OnNudge
from wpa.ports.tasks import Feed, Lease, Source

__all__ = ["Chaos", "chaotic"]

T = TypeVar("T")

SLOW_S = 0.004
LAG_MS = 30


class Chaos:
    """What happens to one worker's calls. ``calm`` ends it all.

    Args:
        chance: decides.
        server: whose streams a lagging replica lags behind.
        lags: whether reads may come from a replica that has not heard of the last events yet.
    """

    def __init__(self, chance: random.Random, server: MemoryServer, *, lags: bool) -> None:
        self.server = server
        self.calm = False
        self.frozen_until_s = 0.0
        """By the loop's time. Until then, nothing that this worker asks for is even sent."""
        self._chance = chance
        self._lags = lags

    @property
    def frozen(self) -> bool:
        return asyncio.get_running_loop().time() < self.frozen_until_s

    def freeze(self, seconds: float) -> None:
        """Stop as a process does that is stopped, swapped out, or collects its garbage."""
        self.frozen_until_s = asyncio.get_running_loop().time() + seconds

    async def thaw(self) -> None:
        while self.frozen:
            await asyncio.sleep(self.frozen_until_s - asyncio.get_running_loop().time() + 0.001)

    def hits(self, share: float) -> bool:
        return not self.calm and self._chance.random() < share

    async def call(self, action: Callable[[], Awaitable[T]]) -> T:
        """A call to the server, with all that may happen to one."""
        await self.thaw()
        if self.calm:
            return await action()
        if self.hits(0.5):
            await asyncio.sleep(self._chance.random() * SLOW_S)
        if self.hits(0.01):
            raise Unavailable("cut off before it was sent")
        result = await action()
        if self.hits(0.5):
            await asyncio.sleep(self._chance.random() * SLOW_S)
        await self.thaw()
        if self.hits(0.01):
            raise Unavailable("cut off before the answer came")
        return result

    def behind(self, position: int) -> bool:
        """Whether a replica may not have what is stored at ``position`` yet."""
        message = self.server.events.get(position)
        return message is not None and self.server.clock.now_ms() - message.stored_ms < LAG_MS

    @property
    def lagging(self) -> bool:
        return self._lags and self.hits(0.15)


def chaotic(ports: Ports, chaos: Chaos) -> Ports:
    """``ports``, on a bad day."""
    return dataclasses.replace(
        ports,
        journal=_Journal(ports, chaos),
        snapshots=_Wrapped(ports.snapshots, chaos),
        timers=_Wrapped(ports.timers, chaos),
        definitions=ports.definitions,
        records=_Wrapped(ports.records, chaos),
        blobs=_Wrapped(ports.blobs, chaos),
        tasks=_Tasks(ports, chaos),
        live=_Live(ports, chaos),
        lags=True,
    )


class _Wrapped:
    """Any port whose every method is a call to the server."""

    def __init__(self, inner: object, chaos: Chaos) -> None:
        self._inner = inner
        self._chaos = chaos

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        method = getattr(self._inner, name)
        return lambda *args, **more: self._chaos.call(lambda: method(*args, **more))


class _Journal(_Wrapped):
    def __init__(self, ports: Ports, chaos: Chaos) -> None:
        super().__init__(ports.journal, chaos)

    async def read(
        self, tenant: str, execution: str, after: int = 0, most: int | None = None
    ) -> list[tuple[int, Event]]:
        found = await self._chaos.call(lambda: self._inner.read(tenant, execution, after, most))
        if self._chaos.lagging:
            while found and self._chaos.behind(found[-1][0]):
                found.pop()
        return found


class _Tasks(_Wrapped):
    def __init__(self, ports: Ports, chaos: Chaos) -> None:
        super().__init__(ports.tasks, chaos)

    async def open(self, source: Source | str, deliver: Callable[[Lease], None]) -> Feed:
        return await self._inner.open(source, lambda lease: deliver(_Lease(lease, self._chaos)))


class _Live:
    """Live messages get lost now and then, or come late."""

    def __init__(self, ports: Ports, chaos: Chaos) -> None:
        self._inner = ports.live
        self._chaos = chaos
        self.publish = ports.live.publish
        self.publish_event = ports.live.publish_event
        self.watch = ports.live.watch
        self.nudge = ports.live.nudge

    async def on_nudge(self, worker: str, callback: OnNudge) -> None:
        async def hear(tenant: str, execution: str, epoch: int, reason: str) -> None:
            if self._chaos.hits(0.2):
                return
            if self._chaos.hits(0.2):
                await asyncio.sleep(0.05)
            await self._chaos.thaw()
            await callback(tenant, execution, epoch, reason)

        await self._inner.on_nudge(worker, hear)


class _Lease:
    """A lease that is not kept alive while its holder is frozen."""

    def __init__(self, inner: Lease, chaos: Chaos) -> None:
        self._inner = inner
        self._chaos = chaos

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def ack(self) -> None:
        if not self._chaos.hits(0.03):  # an ack is sent, not awaited: it may be lost
            self._inner.ack()

    def extend(self) -> None:
        if not self._chaos.frozen:
            self._inner.extend()
