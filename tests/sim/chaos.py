"""Ports that behave as a bad day's: slow, cut off for a moment, behind the times, out of order, or the last thing
that a worker ever called.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar

from tests.sim.loop import SimLoop
from wpa.adapters.memory import MemoryServer
from wpa.errors import Conflict, Unavailable
from wpa.model.events import Event
from wpa.ports import Ports
from wpa.ports.clock import Clock
from wpa.ports.live import OnNudge
from wpa.ports.tasks import Feed, Lease, Source

__all__ = ["CALM", "Chaos", "Weather", "chaotic"]

T = TypeVar("T")

LATE_S: Final = (0.002, 0.02, 0.3)
LAG_MS: Final = 30
LONG_LAG_MS: Final = 1_500
NEVER: Final = 1 << 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weather:
    """How often things happen in a run: shares, of calls, of acks, of messages."""

    slow: float = 0.0
    """Calls that take their time, before the server hears of them or after: others come in between."""
    slow_s: float = 0.004
    """How long those take at most, before and after."""
    cut: float = 0.0
    """Calls that fail: half of them before they were sent, half of them when only the answer is lost."""
    deadly: float = 0.0
    """Workers that die at one of their calls, just before or just after it."""
    unheard: float = 0.0
    """Acks that are lost."""
    late: float = 0.0
    """Deliveries, and what is said live, that come late: others overtake them."""
    lag: float = 0.0
    """Reads that are answered by a replica that has not heard of the last events."""
    lag_ms: int = LAG_MS
    """How young an event is that such a replica has not heard of."""

    @classmethod
    def draw(cls, chance: random.Random, *, rough: bool) -> Weather:
        """One of the many kinds of weather; ``rough``: as bad as it gets."""
        return cls(
            slow=chance.choice((0.4, 0.7, 0.95)) if rough else chance.choice((0.0, 0.18, 0.48)),
            slow_s=chance.choice((0.004, 0.004, 0.03)),
            cut=chance.choice((0.006, 0.025)) if rough else chance.choice((0.0, 0.017, 0.072)),
            deadly=chance.choice((0.0, 0.3, 0.7)),
            unheard=0.03,
            late=chance.choice((0.0, 0.1, 0.3)),
            lag=chance.choice((0.0, 0.0, 0.15, 0.9)),
            lag_ms=chance.choice((LAG_MS, LAG_MS, LONG_LAG_MS)),
        )


CALM: Final = Weather()
DIES_WITHIN: Final = (4, 14, 55)
"""Calls."""


class Chaos:
    """What happens to one worker's calls. ``calm`` ends it all.

    What happens at a call is not drawn for each of them: it is drawn how many pass until something does.

    Args:
        chance: decides.
        loop: whose time passes.
        server: whose streams a lagging replica lags behind.
        weather: how often things happen.
        die: ends the worker, at once.
        faults: counts what happened, by kind.
    """

    def __init__(
        self,
        chance: random.Random,
        loop: SimLoop,
        server: MemoryServer,
        weather: Weather,
        die: Callable[[], None],
        faults: Counter[str],
    ) -> None:
        self.server = server
        self.dead = False
        self.frozen_until_ns = 0
        """By the loop's time. Until then, nothing that this worker asks for is even sent."""
        self._chance = chance
        self.loop = loop
        self._weather = weather
        self._die = die
        self.faults = faults
        self.pending = 0
        """Calls that take their time just now. They come to their end even where the worker has no task any more."""
        self._calls = 0
        self._next = 0
        """The number of the next call to which something happens."""
        self._last = NEVER
        """The number of the call at which the worker dies; just after it, if it is odd."""
        if chance.random() < weather.deadly:
            self._last = chance.randrange(2 * chance.choice(DIES_WITHIN))
        self._draw_next()

    def _draw_next(self) -> None:
        share = self._weather.slow + self._weather.cut
        gap = NEVER
        if share > 0:
            gap = 1 + int(math.log(1.0 - self._chance.random()) / math.log(1.0 - min(share, 0.99)))
        self._next = self._calls + gap

    def calm(self) -> None:
        """The bad day is over."""
        self._weather, self._next, self._last = CALM, NEVER, NEVER

    @property
    def frozen(self) -> bool:
        return self.loop.now_ns < self.frozen_until_ns

    def freeze(self, seconds: float) -> None:
        """Stop as a process does that is stopped, swapped out, or collects its garbage."""
        self.faults["a worker frozen"] += 1
        self.frozen_until_ns = self.loop.now_ns + int(seconds * 1_000_000_000)

    async def thaw(self) -> None:
        """Wait until it goes on."""
        if not self.frozen:
            return
        self.pending += 1
        try:
            while self.frozen:
                await self.loop.sleep((self.frozen_until_ns - self.loop.now_ns) / 1_000_000_000)
        finally:
            self.pending -= 1

    # -- calls that are waited for -----------------------------------------------------------

    def call(
        self, action: Callable[..., Coroutine[Any, Any, T]], *args: Any, **more: Any
    ) -> Coroutine[Any, Any, T]:
        """A call to the server, with all that may happen to one: mostly nothing."""
        self._calls = number = self._calls + 1
        is_frozen = self.loop.now_ns < self.frozen_until_ns
        if number < self._next and number != self._last >> 1 and not is_frozen:
            return action(*args, **more)
        return self._pending(self._troubled(number, partial(action, *args, **more)))

    async def _pending(self, call: Awaitable[T]) -> T:
        self.pending += 1
        try:
            return await call
        finally:
            self.pending -= 1

    async def _troubled(self, number: int, action: Callable[[], Awaitable[T]]) -> T:
        await self.thaw()
        if number == self._last >> 1 and not self._last & 1:
            self.faults["a worker dead before a call"] += 1
            await self._end()
        before, after, cut = self._troubles(number)
        if before:
            await self.loop.sleep(before)
        if cut == "before":
            self.faults["a call never sent"] += 1
            raise Unavailable("cut off before it was sent")
        result = await action()
        if number == self._last >> 1:
            self.faults["a worker dead after a call"] += 1
            await self._end()
        if after:
            await self.loop.sleep(after)
        await self.thaw()
        if cut == "after":
            self.faults["a reply lost"] += 1
            raise Unavailable("cut off before the answer came")
        return result

    def _troubles(self, number: int) -> tuple[float, float, str]:
        """What happens to the call of this number: how long it takes before and after, and how it is cut off."""
        if number < self._next:
            return 0.0, 0.0, ""
        self._draw_next()
        self.faults["a call delayed"] += 1
        chance, weather = self._chance, self._weather
        cut = ""
        if chance.random() * (weather.slow + weather.cut) < weather.cut:
            cut = chance.choice(("before", "after"))
        where = int(3 * chance.random())
        before = chance.random() * weather.slow_s if where != 0 else 0.0
        after = chance.random() * weather.slow_s if where != 1 else 0.0
        return before, after, cut

    async def _end(self) -> None:
        """Die in the middle of a call: it never returns; it is cancelled with the worker's tasks."""
        self._die()
        await self.loop.create_future()

    # -- what is sent and not waited for -----------------------------------------------------

    def send(self, action: Callable[..., None], *args: Any) -> None:
        """Something that is sent, not waited for: it, too, may be the last that a worker did."""
        self._calls = number = self._calls + 1
        last = number == self._last >> 1
        if not (last and not self._last & 1):
            action(*args)
        if last:
            self.faults["a worker dead at what it sends"] += 1
            self._die()

    def hits(self, share: float) -> bool:
        return share > 0 and self._chance.random() < share

    @property
    def weather(self) -> Weather:
        return self._weather

    def late_s(self) -> float:
        """How much later than it might have something is delivered: after others that came after it."""
        if self.frozen:
            return (self.frozen_until_ns - self.loop.now_ns) / 1_000_000_000
        return self._chance.choice(LATE_S) if self.hits(self._weather.late) else 0.0

    def deliver(self, take: Callable[..., None], *args: Any) -> None:
        """Hand over what has come, now or late; to the dead, nothing."""
        if late := self.late_s():
            self.faults["a delivery overtaken"] += 1
            self.loop.call_later(late, self._hand_over, take, args)
        else:
            self._hand_over(take, args)

    def _hand_over(self, take: Callable[..., None], args: tuple[Any, ...]) -> None:
        if not self.dead:
            take(*args)

    # -- replicas ----------------------------------------------------------------------------

    def behind(self, position: int) -> bool:
        """Whether a replica may not have what is stored at ``position`` yet."""
        message = self.server.events.get(position)
        return message is not None and self.server.clock.now_ms() - message.stored_ms < self.lag_ms

    @property
    def lagging(self) -> bool:
        return self.hits(self._weather.lag)

    @property
    def lag_ms(self) -> int:
        return self._weather.lag_ms


def chaotic(ports: Ports, chaos: Chaos, clock: Clock) -> Ports:
    """``ports``, on a bad day, with a clock that may be wrong."""
    return dataclasses.replace(
        ports,
        journal=_Journal(ports, chaos),
        snapshots=_Wrapped(ports.snapshots, chaos),
        timers=_Wrapped(ports.timers, chaos),
        definitions=_Definitions(ports, chaos),
        records=_Wrapped(ports.records, chaos),
        blobs=_Wrapped(ports.blobs, chaos),
        tasks=_Tasks(ports, chaos),
        live=_Live(ports, chaos),
        clock=clock,
        lags=lambda: True,
    )


class _Wrapped:
    """Any port whose every method is a call to the server."""

    def __init__(self, inner: object, chaos: Chaos) -> None:
        self._inner = inner
        self._chaos = chaos

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        call = partial(self._chaos.call, getattr(self._inner, name))
        self.__dict__[name] = call  # found there the next time
        return call


class _Journal(_Wrapped):
    def __init__(self, ports: Ports, chaos: Chaos) -> None:
        super().__init__(ports.journal, chaos)
        self._ports = ports

    async def append(self, event: Event, after: int) -> int:
        try:
            position: int = await self._chaos.call(self._ports.journal.append, event, after)
        except Conflict:
            self._chaos.faults["an append contended"] += 1
            raise
        return position

    async def read(
        self, tenant: str, execution: str, after: int = 0, most: int | None = None
    ) -> list[tuple[int, Event]]:
        found: list[tuple[int, Event]] = await self._chaos.call(
            self._inner.read,  # type: ignore[attr-defined]
            tenant,
            execution,
            after,
            most,
        )
        if self._chaos.lagging:
            while found and self._chaos.behind(found[-1][0]):
                found.pop()
                self._chaos.faults["a read behind the times"] += 1
        return found


class _Definitions(_Wrapped):
    def __init__(self, ports: Ports, chaos: Chaos) -> None:
        super().__init__(ports.definitions, chaos)
        self.on_change = ports.definitions.on_change


class _Tasks(_Wrapped):
    def __init__(self, ports: Ports, chaos: Chaos) -> None:
        super().__init__(ports.tasks, chaos)
        self._ports = ports

    async def open(self, source: Source | str, deliver: Callable[[Lease], None]) -> Feed:
        chaos = self._chaos
        return await self._ports.tasks.open(
            source, lambda lease: chaos.deliver(deliver, _Lease(lease, chaos))
        )


class _Live:
    """Live messages get lost now and then, or come late."""

    def __init__(self, ports: Ports, chaos: Chaos) -> None:
        self._inner = ports.live
        self._chaos = chaos
        self.watch = ports.live.watch
        self.publish = partial(chaos.send, ports.live.publish)
        self.publish_event = partial(chaos.send, ports.live.publish_event)

    def nudge(self, worker: str, tenant: str, execution: str, epoch: int, reason: str = "") -> None:
        self._chaos.send(self._inner.nudge, worker, tenant, execution, epoch, reason)

    async def on_nudge(self, worker: str, callback: OnNudge) -> None:
        async def hear(tenant: str, execution: str, epoch: int, reason: str) -> None:
            chaos = self._chaos
            if chaos.hits(chaos.weather.late):
                chaos.faults["a nudge lost"] += 1
                return
            if late := chaos.late_s():
                await chaos.loop.sleep(late)
            if not chaos.dead:
                await callback(tenant, execution, epoch, reason)

        await self._inner.on_nudge(worker, hear)


class _Lease:
    """A lease that is not kept alive while its holder is frozen, and whose ack may be lost."""

    def __init__(self, inner: Lease, chaos: Chaos) -> None:
        self._inner = inner
        self._chaos = chaos
        self.source = inner.source
        self.tenant = inner.tenant
        self.data = inner.data
        self.headers = inner.headers
        self.sequence = inner.sequence
        self.identity = inner.identity
        self.delivered = inner.delivered
        self.stored_ms = inner.stored_ms

    def ack(self) -> None:
        if self._chaos.hits(self._chaos.weather.unheard):
            self._chaos.faults["an ack lost"] += 1
        else:
            self._chaos.send(self._inner.ack)

    def nak(self, delay_s: float = 0.0) -> None:
        self._chaos.send(self._inner.nak, delay_s)

    def extend(self) -> None:
        if not self._chaos.frozen:
            self._inner.extend()
