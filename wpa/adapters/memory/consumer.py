"""Who holds which of a source's messages, and until when.

A message is *fresh* until its first delivery, then *leased* until a deadline, and *overdue* when the
deadline has passed without an answer (or at once, after a nak): overdue ones are delivered before
fresh ones, in the order in which they became so. An ack removes it from wherever it is; a nak with a
delay puts it off, an overdue one, too; as on the server, whoever sends it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from typing import Protocol

from wpa.adapters.memory.storage import Message, Stream
from wpa.ports.clock import Clock
from wpa.ports.tasks import Source

__all__ = ["Consumer", "Taker"]

SOON_S = 1e-6
"""Deadlines nearer than this have passed: clocks count in steps."""

log = logging.getLogger("wpa.memory")


class Taker(Protocol):
    """Where messages are delivered to, as long as it has credit."""

    credit: int

    def take(self, message: Message, delivered: int) -> None: ...


class Consumer:
    """One source's consumer, shared by the feeds of all connections."""

    def __init__(self, stream: Stream, clock: Clock, source: Source) -> None:
        self.source = source
        self.ack_wait_s = 0.0
        self._clock = clock
        self._stream = stream
        self._feeds: deque[Taker] = deque()
        self._subject = source.subject
        self._cursor = 0
        """The last message that is not fresh any more."""
        self._overdue: OrderedDict[int, None] = OrderedDict()
        self._leased: dict[int, float] = {}
        """When each lease began, on the monotonic clock. Its deadline is that plus what leases last *now*."""
        self._deliveries: dict[int, int] = {}
        self._pumping: asyncio.Handle | None = None
        self._alarm: asyncio.Task[None] | None = None
        self._alarm_at = 0.0

    # -- from the feeds ----------------------------------------------------------------------

    def join(self, feed: Taker) -> None:
        self._feeds.append(feed)

    def leave(self, feed: Taker) -> None:
        if feed in self._feeds:
            self._feeds.remove(feed)
        if not self._feeds:
            # Nobody is there to deliver to; deadlines are looked at again when somebody comes.
            if self._alarm is not None:
                self._alarm.cancel()
            if self._pumping is not None:
                self._pumping.cancel()
            self._alarm = self._pumping = None

    def lengthen(self, ack_wait_s: float) -> None:
        """Let leases last at least so long without an answer, those that have begun, too."""
        if ack_wait_s > self.ack_wait_s:
            self._end_leases()
            self.ack_wait_s = ack_wait_s

    # -- from the leases ---------------------------------------------------------------------

    @property
    def leased(self) -> list[int]:
        """The messages that somebody holds now, in order."""
        return sorted(self._leased)

    def ack(self, sequence: int) -> None:
        self._leased.pop(sequence, None)
        self._overdue.pop(sequence, None)
        self._deliveries.pop(sequence, None)
        self._stream.remove(sequence)

    def nak(self, sequence: int, delay_s: float) -> None:
        self._end_leases()
        if delay_s <= 0:
            if self._leased.pop(sequence, None) is not None:
                self._overdue[sequence] = None
        elif sequence in self._leased or sequence in self._overdue:
            self._overdue.pop(sequence, None)
            self._leased[sequence] = self._clock.monotonic_s() + delay_s - self.ack_wait_s
        self.wake()

    def extend(self, sequence: int) -> None:
        self._end_leases()
        if sequence in self._leased:
            self._leased[sequence] = self._clock.monotonic_s()

    def _end_leases(self) -> None:
        """Those that are over by now become overdue, in the order of their deadlines."""
        begun_by = self._clock.monotonic_s() - self.ack_wait_s + SOON_S
        ended = sorted((began, sequence) for sequence, began in self._leased.items() if began <= begun_by)
        for _, sequence in ended:
            del self._leased[sequence]
            self._overdue[sequence] = None

    # -- delivery ----------------------------------------------------------------------------

    def wake(self) -> None:
        """Deliver what can be delivered, at the loop's next turn."""
        if self._pumping is None and self._feeds:
            self._pumping = asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = None
        self._end_leases()
        now = self._clock.monotonic_s()
        while (feed := self._next_feed()) is not None and (message := self._next_message()) is not None:
            feed.credit -= 1
            self._feeds.rotate(-1)  # feeds with credit take turns
            delivered = self._deliveries[message.sequence] = self._deliveries.get(message.sequence, 0) + 1
            self._leased[message.sequence] = now
            try:
                feed.take(message, delivered)
            except Exception:
                log.exception("a message handler failed on %s, %d", message.subject, message.sequence)
        self._set_alarm(now)

    def _next_feed(self) -> Taker | None:
        for _ in range(len(self._feeds)):
            if self._feeds[0].credit > 0:
                return self._feeds[0]
            self._feeds.rotate(-1)
        return None

    def _next_message(self) -> Message | None:
        if self._overdue:
            sequence, _ = self._overdue.popitem(last=False)
            return self._stream.get(sequence)
        message = self._stream.first(self._subject, self._cursor)
        if message is not None:
            self._cursor = message.sequence
        return message

    @property
    def _first_deadline(self) -> float:
        """When the first lease ends; 0, a moment long past, where nothing is leased."""
        return min(self._leased.values()) + self.ack_wait_s if self._leased else 0.0

    def _set_alarm(self, now: float) -> None:
        if not self._leased or not self._feeds:
            return
        deadline = self._first_deadline
        if self._alarm is not None:
            if self._alarm_at <= deadline:
                return  # should it be too early, it is put off
            self._alarm.cancel()
        self._alarm_at = deadline
        self._alarm = asyncio.ensure_future(self._ring(max(SOON_S, deadline - now)))

    async def _ring(self, delay_s: float) -> None:
        """Look for what is overdue when the first lease ends: those that it was set for may be extended."""
        while delay_s >= SOON_S:
            await self._clock.sleep(delay_s)
            self._alarm_at = self._first_deadline
            delay_s = self._alarm_at - self._clock.monotonic_s()
        self._alarm = None
        self.wake()
