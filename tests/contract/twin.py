"""One of the two worlds that ``twins.py`` compares: its workers, and what they were given."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from tests.contract.worlds import World
from wpa.ports import Ports
from wpa.ports.tasks import Feed, Lease, Source

__all__ = ["LEASE_S", "Answer", "Given", "Moment", "Twin"]

LEASE_S: Final = 600.0
SOON_MS: Final = 200
"""Alarms that are due so soon are set, replaced and cleared in a twentieth of that, on a quiet machine."""

Answer = Literal["ack", "extend", "now", "soon", "never"]
"""An ack, an extension, or a nak, and when the message may be delivered again."""
DELAYS_S: Final = {"now": 0.0, "soon": LEASE_S * 0.3, "never": LEASE_S * 1_000}
Moment = Literal["past", "soon", "never"]
"""When an alarm is to ring."""
MOMENTS_MS: Final[dict[Moment, int]] = {"past": -100_000, "soon": SOON_MS, "never": 30 * 86_400_000}


class Given(NamedTuple):
    """A delivery, as a worker got it."""

    worker: Ports
    lease: Lease

    @property
    def face(self) -> tuple[object, ...]:
        """What is the same in both worlds."""
        lease = self.lease
        return (lease.data, lease.delivered, lease.headers, lease.source, lease.tenant)

    @property
    def place(self) -> tuple[int, str, int]:
        """What is the same over redeliveries."""
        return (self.lease.sequence, self.lease.identity, self.lease.stored_ms)


@dataclass
class Fed:
    """A worker's feed, and how much of what it asked for has not come."""

    feed: Feed
    credit: int = 0


class Twin:
    """One of the two worlds, its workers, and what they were given."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.given: dict[Source, list[Given]] = defaultdict(list)
        """By source, of those that were ever opened."""
        self._workers: dict[int, Ports] = {}
        self._feeds: dict[tuple[int, Source], Fed] = {}

    async def worker(self, number: int) -> Ports:
        """One that is alive: its successor, where it died."""
        if number not in self._workers:
            self._workers[number] = await self.world.connect(LEASE_S)
        return self._workers[number]

    def is_alive(self, worker: Ports) -> bool:
        return any(worker is other for other in self._workers.values())

    async def request(self, number: int, source: Source, count: int) -> None:
        """Let a worker be given ``count`` more."""
        if (number, source) not in self._feeds:
            worker = await self.worker(number)

            def take(lease: Lease) -> None:
                fed.credit -= 1
                self.given[source].append(Given(worker, lease))

            fed = self._feeds[number, source] = Fed(await worker.tasks.open(source, take))
            self.given[source] += []
        fed = self._feeds[number, source]
        fed.credit += count
        fed.feed.request(count)

    async def hang_up(self, number: int, source: Source) -> None:
        """Close a worker's feed, if it is open."""
        fed = self._feeds.pop((number, source), None)
        if fed is not None:
            await fed.feed.close()
            await self.world.obeyed(self._workers[number], source)

    async def hang_up_all(self, source: Source, but: int | None = None) -> None:
        for number in [by for by, of in self._feeds if of == source and by != but]:
            await self.hang_up(number, source)

    async def die(self, number: int) -> None:
        """A worker is gone, and the server has noticed."""
        for source in list(self.given):
            await self.hang_up(number, source)
        if (worker := self._workers.pop(number, None)) is not None:
            await worker.aclose()

    async def answer(self, given: Given, answer: Answer) -> None:
        """Answer a delivery, and wait until that is done; nothing is, where the worker is dead."""
        if answer == "ack":
            given.lease.ack()
        elif answer == "extend":
            given.lease.extend()
        else:
            given.lease.nak(DELAYS_S[answer])
        if self.is_alive(given.worker):
            await self.world.obeyed(given.worker, given.lease.source)

    @asynccontextmanager
    async def feeds_aside(self) -> AsyncIterator[None]:
        """Nobody is given anything meanwhile. Who has asked for more asks again afterwards."""
        waiting = {key: fed.credit for key, fed in self._feeds.items() if fed.credit}
        for source in self.given:
            await self.hang_up_all(source)
        yield
        for (number, source), credit in waiting.items():
            await self.request(number, source, credit)

    async def set_alarm(self, tenant: str, name: str, moment: Moment, body: bytes) -> int:
        """When it is due, by the world's own clock, in milliseconds since the Unix epoch."""
        at_ms = await self.now_ms() + MOMENTS_MS[moment]
        await (await self.worker(0)).timers.set(tenant, name, at_ms, body, {"Wpa-Slot": name})
        return at_ms

    async def now_ms(self) -> int:
        return (await self.worker(0)).clock.now_ms()

    async def forget(self) -> None:
        """Close all feeds, and forget what was given."""
        for source in self.given:
            await self.hang_up_all(source)
        self.given.clear()
