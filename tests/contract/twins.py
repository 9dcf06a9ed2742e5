"""Two worlds to which the same is done, and what their workers see, compared.

Why they can be compared at all is told in ``test_same_deliveries.py``.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Literal, NamedTuple, TypeVar

from tests.contract.twin import LEASE_S, Answer, Given, Moment, Twin
from tests.contract.worlds import MemoryWorld, NatsWorld
from wpa.ports.tasks import Source

__all__ = ["AlarmChange", "TooSlow", "Twins"]

T = TypeVar("T")

INSTANT_S: Final = 0.001
"""Whatever was delivered has been held for longer."""
PUT_OFF_S: Final = LEASE_S / 2
"""As old is, to the server, the lease of what is put off until soon: it has less than that left."""
TWICE_WITHIN_S: Final = 0.9
"""Whoever repeats a publish later than in a second's time has published something else."""
PATIENCE_S: Final = 10.0
"""So long, at most, the real server may take for what the one in memory does at once."""
ALL: Final = 1_000
"""More deliveries than there ever are messages."""

AlarmChange = tuple[str, Moment | Literal["clear"]]
"""An alarm's name, and what becomes of it."""


class TooSlow(Exception):
    """The machine was so busy that nobody can tell what came first."""


class Delivery(NamedTuple):
    """One delivery, in memory and on the real server."""

    ours: Given
    theirs: Given


def by_data(given: Given) -> tuple[bytes, int]:
    return given.lease.data, given.lease.delivered


class Twins:
    """A server in memory and a real one, workers on both, and what they were given.

    Every act is done to both, and raises AssertionError where something else comes of it.
    """

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._memory_world, self._nats_world = MemoryWorld(), NatsWorld(url)
        self._memory, self._nats = Twin(self._memory_world), Twin(self._nats_world)
        self._numbers = itertools.count()

    def run(self, act: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(act)

    async def begin(self, tenant: str) -> None:
        """Forget what was, for a tenant that nobody has heard of."""
        await self._both(lambda twin: twin.forget())
        self._tenant = tenant
        self._sources = {
            "tasks": Source(tenant),
            "other": Source(f"{tenant}-b"),
            "steps": Source(tenant, "steps", "gpu"),
            "due": Source(tenant, "due"),
        }
        self._deliveries: list[Delivery] = []
        self._compared: dict[Source, int] = defaultdict(int)
        self._places: dict[bytes, tuple[object, object]] = {}
        """By data, of which each message has its own: its place in either world."""
        self._sequences: dict[bytes, tuple[int, int]] = {}
        """By data: what publishers were told."""
        self._moments: dict[bytes, tuple[int, int]] = {}
        """By body: when alarms are due."""
        self._due_soon_ms: list[int] = []
        """When alarms are due that have not been waited for yet, on the real server."""
        self._letters: list[tuple[int, int]] = []
        self._has_put_off = False
        """Whether anything may come soon: before half of a lease is over."""

    def close(self) -> None:
        self.run(self._close())
        self._loop.close()

    async def _close(self) -> None:
        await self._both(lambda twin: twin.world.close())
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()  # alarms that will never ring, in memory

    # -- what workers do ---------------------------------------------------------------------

    async def publish(self, kind: str, headers: dict[str, str], *, twice: bool) -> None:
        """Publish a task, or a step; perhaps twice, by its id, which is once. Raises TooSlow."""
        source, data = self._sources[kind], self._new_data()
        own = {"Nats-Msg-Id": f"{self._tenant}-{data.decode()}"} if twice else {}

        async def publish(twin: Twin) -> int:
            tasks = (await twin.worker(0)).tasks
            if source.queue:
                return await tasks.publish_step(source.tenant, source.queue, data, headers | own)
            return await tasks.publish(source.tenant, data, headers | own)

        began = time.monotonic()
        self._sequences[data] = await self._both(publish)
        if twice:
            again = await self._both(publish)
            if time.monotonic() - began > TWICE_WITHIN_S:
                raise TooSlow
            assert again == self._sequences[data]
        await self._compare()

    async def fetch(self, number: int, kind: str, count: int) -> None:
        """A worker asks for more; the others ask for nothing any more."""
        source = self._sources[kind]
        wanted = ALL if kind == "due" else count  # in no order: which would be the first?
        await self._both(lambda twin: twin.hang_up_all(source, but=number))
        await self._both(lambda twin: twin.request(number, source, wanted))
        await self._compare()

    async def compete(self, kind: str, count: int) -> None:
        """Two workers ask at a time; then nobody asks for anything any more."""
        source = self._sources[kind]
        wanted = ALL if kind == "due" else count
        await self._both(lambda twin: twin.request(1, source, wanted))
        await self._both(lambda twin: twin.request(2, source, wanted))
        await self._compare(in_order=False)
        await self.hang_up(kind)

    async def hang_up(self, kind: str) -> None:
        """Nobody asks for anything any more."""
        await self._both(lambda twin: twin.hang_up_all(self._sources[kind]))
        await self._compare()

    async def die(self, number: int) -> None:
        await self._both(lambda twin: twin.die(number))
        await self._compare()

    async def answer(self, which: int, answer: Answer) -> None:
        """Answer a delivery, the last but ``which``; be it the last of its message or not, in time or late."""
        if not self._deliveries:
            return
        ours, theirs = self._deliveries[-1 - which % len(self._deliveries)]
        if self._memory.is_alive(ours.worker) != self._nats.is_alive(theirs.worker):
            return  # workers that competed were not given the same, and one of them is dead
        await self._memory.answer(ours, answer)
        await self._nats.answer(theirs, answer)
        self._has_put_off |= answer == "soon"
        await self._compare()

    # -- time and alarms ---------------------------------------------------------------------

    async def pass_time(self, changes: list[AlarmChange]) -> None:
        """Change alarms, and let so much time pass that those that are due soon ring, and all leases end.

        Raises TooSlow.
        """
        before = len(self._deliveries)
        for name, moment in changes:
            await self._change_alarm(name, moment)
        await self._memory.world.pass_time(LEASE_S)
        async with self._nats.feeds_aside():
            await self._ring()
            ages_s = [PUT_OFF_S, INSTANT_S] if self._has_put_off else [INSTANT_S]
            await self._nats_world.end_leases(self._nats.given, *ages_s)
        self._has_put_off = False
        await self._compare()
        # In memory, some were delivered on the way, and so are older by now than they are on the server.
        for ours, theirs in self._deliveries[before:]:
            await self._memory.answer(ours, "extend")
            await self._nats.answer(theirs, "extend")

    async def ring(self, name: str, moment: Moment) -> None:
        """Set an alarm that is due, and wait until it has rung."""
        await self._change_alarm(name, moment)
        await self.compare_held()
        await self._compare()

    async def _change_alarm(self, name: str, moment: Moment | Literal["clear"]) -> None:
        if moment == "clear":

            async def clear(twin: Twin) -> None:
                await (await twin.worker(0)).timers.clear(self._tenant, name)

            await self._both(clear)
            return
        body = self._new_data()
        at_ms = await self._both(lambda twin: twin.set_alarm(self._tenant, name, moment, body))
        self._moments[body] = at_ms
        if moment == "soon":
            self._due_soon_ms.append(at_ms[1])

    async def _ring(self) -> None:
        """Wait until what is due soon has rung on the real server, too. Raises TooSlow."""
        if not self._due_soon_ms:
            return
        left_ms = [at_ms - await self._nats.now_ms() for at_ms in self._due_soon_ms]
        if min(left_ms) <= 0:
            raise TooSlow  # it may have rung before it was cleared, or replaced
        self._due_soon_ms.clear()
        await self._nats.world.pass_time((max(left_ms) + 1) / 1_000)
        await self.compare_held()

    # -- dead letters ------------------------------------------------------------------------

    async def bury(self, headers: dict[str, str]) -> None:
        data = self._new_data()

        async def bury(twin: Twin) -> int:
            return await (await twin.worker(0)).tasks.bury(self._tenant, data, headers)

        self._letters.append(await self._both(bury))

    async def discard(self, which: int) -> None:
        """Discard a dead letter, perhaps once more; a tenant that it does not belong to can't."""
        if not self._letters:
            return
        letter = self._letters[-1 - which % len(self._letters)]

        async def discard(twin: Twin, sequence: int) -> list[object]:
            tasks = (await twin.worker(0)).tasks
            found: list[object] = []
            for tenant in (f"{self._tenant}-b", self._tenant):
                found.append(await tasks.exhume(tenant, sequence))
                await tasks.discard(tenant, sequence)
                found.append(await tasks.exhume(self._tenant, sequence))
            return found

        assert await discard(self._memory, letter[0]) == await discard(self._nats, letter[1])

    async def read_letters(self, limit: int) -> None:
        async def read(twin: Twin) -> list[tuple[int, bytes, dict[str, str]]]:
            return await (await twin.worker(0)).tasks.buried(self._tenant, limit)

        ours, theirs = await self._both(read)
        assert [letter[1:] for letter in ours] == [letter[1:] for letter in theirs]
        places = zip((letter[0] for letter in ours), (letter[0] for letter in theirs), strict=True)
        assert set(places) <= set(self._letters)

    # -- comparing ---------------------------------------------------------------------------

    async def compare_held(self) -> None:
        """What each source holds, and who is said to have any work."""
        ours = await self._held(self._memory)

        async def is_same() -> bool:
            return await self._held(self._nats) == ours

        await in_time(is_same)
        theirs = await self._held(self._nats)
        assert ours == theirs, f"in memory {ours}, on the server {theirs}"

    async def compare_all(self) -> None:
        """Whatever is left, in the order in which it comes, and that nothing else is."""
        for kind in self._sources:
            await self.hang_up(kind)
        await self._change_alarm("last.wake", "past")  # it has rung before time has passed
        await self.pass_time([])
        for kind in ("tasks", "other", "steps"):
            await self.publish(kind, {"Wpa-Note": "the last"}, twice=False)
        await self.compare_held()
        before = len(self._deliveries)
        for kind in self._sources:
            await self.fetch(0, kind, ALL)
        for ours, theirs in self._deliveries[before:]:
            await self._memory.answer(ours, "ack")
            await self._nats.answer(theirs, "ack")
        await self._compare()
        await self.compare_held()

    def _new_data(self) -> bytes:
        return b"%d" % next(self._numbers)

    async def _both(self, act: Callable[[Twin], Awaitable[Any]]) -> tuple[Any, Any]:
        return await act(self._memory), await act(self._nats)

    async def _held(self, twin: Twin) -> object:
        tasks = (await twin.worker(0)).tasks
        return (
            {kind: await twin.world.held(source) for kind, source in self._sources.items()},
            {tenant for tenant in await tasks.tenants() if tenant.startswith(self._tenant)},
            {(tenant, queue) for tenant, queue in await tasks.queues() if tenant == self._tenant},
        )

    async def _compare(self, *, in_order: bool = True) -> None:
        """What was delivered since the last time."""
        await self._memory_world.clock.settle()
        given, wanted = self._nats.given, self._memory.given

        async def has_come() -> bool:
            return all(len(given[source]) >= len(wanted[source]) for source in wanted)

        await in_time(has_come)
        for source in wanted:
            ours, theirs = (
                twin.given[source][self._compared[source] :] for twin in (self._memory, self._nats)
            )
            if not in_order or source.kind == "due":
                ours, theirs = sorted(ours, key=by_data), sorted(theirs, key=by_data)
            told = f"{source.subject}: in memory {[*map(by_data, ours)]}, on the server {[*map(by_data, theirs)]}"
            assert [one.face for one in ours] == [one.face for one in theirs], told
            self._compared[source] += len(ours)
            for delivery in map(Delivery, ours, theirs):
                self._check(delivery)

    def _check(self, delivery: Delivery) -> None:
        """It is the message that it was before, and no alarm is early."""
        self._deliveries.append(delivery)
        data = delivery.ours.lease.data
        place = (delivery.ours.place, delivery.theirs.place)
        assert self._places.setdefault(data, place) == place
        sequences = (delivery.ours.lease.sequence, delivery.theirs.lease.sequence)
        assert self._sequences.setdefault(data, sequences) == sequences
        for given, at_ms in zip(delivery, self._moments.get(data, (0, 0)), strict=True):
            assert given.lease.stored_ms >= at_ms


async def in_time(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until the condition is true, but not for ever: whoever compares then says what is not the same."""
    deadline = time.monotonic() + PATIENCE_S
    while not await condition() and time.monotonic() < deadline:
        await asyncio.sleep(0.001)
