"""The task queue in memory: one consumer for each tenant, shared by all connections.

A message is *fresh* until its first delivery, then *leased* until a deadline, and *overdue* when the
deadline has passed without an answer (or at once, after a nak): overdue ones are delivered before
fresh ones. An ack removes it from wherever it is; as on the server, whoever sends it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from wpa.adapters.memory.server import Connection, MemoryServer, Message
from wpa.ports.tasks import Lease

__all__ = ["Consumer", "MemoryTasks"]

SOON_S = 1e-6
"""Deadlines nearer than this have passed: clocks count in steps."""

log = logging.getLogger("wpa.memory")


class MemoryLease:
    """See :class:`wpa.ports.tasks.Lease`."""

    __slots__ = ("_connection", "_consumer", "_message", "delivered", "tenant")

    def __init__(self, connection: Connection, consumer: Consumer, message: Message, delivered: int) -> None:
        self._connection = connection
        self._consumer = consumer
        self._message = message
        self.tenant = consumer.tenant
        self.delivered = delivered

    @property
    def data(self) -> bytes:
        return self._message.data

    @property
    def headers(self) -> dict[str, str]:
        return self._message.headers

    @property
    def sequence(self) -> int:
        return self._message.sequence

    @property
    def identity(self) -> str:
        return f"{self._message.stored_ms:x}-{self._message.sequence:x}"

    def ack(self) -> None:
        if self._connection.open:
            self._consumer.ack(self.sequence)

    def nak(self, delay_s: float = 0.0) -> None:
        if self._connection.open:
            self._consumer.nak(self.sequence, delay_s)

    def extend(self) -> None:
        if self._connection.open:
            self._consumer.extend(self.sequence)


class MemoryFeed:
    """See :class:`wpa.ports.tasks.Feed`."""

    def __init__(self, connection: Connection, consumer: Consumer, deliver: Callable[[Lease], None]) -> None:
        self.connection = connection
        self.deliver = deliver
        self.credit = 0
        self._consumer = consumer

    def request(self, count: int) -> None:
        self.credit += count
        self._consumer.wake()

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.stop()

    def stop(self) -> None:
        """Close at once."""
        self._consumer.leave(self)


class Consumer:
    """Who holds which of a tenant's tasks, and until when."""

    def __init__(self, server: MemoryServer, tenant: str) -> None:
        self.tenant = tenant
        self.ack_wait_s = 5.0
        self._clock = server.clock
        self._stream = server.tasks
        self._feeds: deque[MemoryFeed] = deque()
        self._fresh = deque(message.sequence for message in self._stream.read(f"workflow.tasks.{tenant}"))
        self._overdue: deque[int] = deque()
        self._leased: dict[int, float] = {}
        """Deadlines, on the monotonic clock."""
        self._deliveries: dict[int, int] = {}
        self._pumping: asyncio.Handle | None = None
        self._alarm: asyncio.Task[None] | None = None

    # -- from the feeds ----------------------------------------------------------------------

    def join(self, feed: MemoryFeed) -> None:
        self._feeds.append(feed)

    def leave(self, feed: MemoryFeed) -> None:
        if feed in self._feeds:
            self._feeds.remove(feed)
        if not self._feeds:
            # Nobody is there to deliver to; deadlines are looked at again when somebody comes.
            self._silence()

    def add(self, sequence: int) -> None:
        """A task was stored."""
        self._fresh.append(sequence)
        self.wake()

    # -- from the leases ---------------------------------------------------------------------

    def ack(self, sequence: int) -> None:
        self._leased.pop(sequence, None)
        self._deliveries.pop(sequence, None)
        self._stream.remove(sequence)

    def nak(self, sequence: int, delay_s: float) -> None:
        if sequence in self._leased:
            if delay_s > 0:
                self._leased[sequence] = self._clock.monotonic_s() + delay_s
            else:
                del self._leased[sequence]
                self._overdue.append(sequence)
            self.wake()

    def extend(self, sequence: int) -> None:
        if sequence in self._leased:
            self._leased[sequence] = self._clock.monotonic_s() + self.ack_wait_s

    # -- delivery ----------------------------------------------------------------------------

    def wake(self) -> None:
        """Deliver what can be delivered, at the loop's next turn."""
        if self._pumping is None and self._feeds:
            self._pumping = asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = None
        now = self._clock.monotonic_s()
        for sequence in sorted(seq for seq, deadline in self._leased.items() if deadline <= now + SOON_S):
            del self._leased[sequence]
            self._overdue.append(sequence)
        while (feed := self._next_feed()) is not None and (message := self._next_message()) is not None:
            feed.credit -= 1
            self._feeds.rotate(-1)  # feeds with credit take turns
            delivered = self._deliveries[message.sequence] = self._deliveries.get(message.sequence, 0) + 1
            self._leased[message.sequence] = now + self.ack_wait_s
            try:
                feed.deliver(MemoryLease(feed.connection, self, message, delivered))
            except Exception:
                log.exception("a message handler failed on task %d", message.sequence)
        self._set_alarm(now)

    def _next_feed(self) -> MemoryFeed | None:
        for _ in range(len(self._feeds)):
            if self._feeds[0].credit > 0:
                return self._feeds[0]
            self._feeds.rotate(-1)
        return None

    def _next_message(self) -> Message | None:
        for waiting in (self._overdue, self._fresh):
            while waiting:
                message = self._stream.get(waiting.popleft())
                if message is not None:  # acked in the meantime otherwise
                    return message
        return None

    def _set_alarm(self, now: float) -> None:
        self._silence()
        if self._leased and self._feeds:
            delay = max(0.0, min(self._leased.values()) - now)
            self._alarm = asyncio.ensure_future(self._ring(delay))

    async def _ring(self, delay: float) -> None:
        await self._clock.sleep(delay)
        self._alarm = None
        self.wake()

    def _silence(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if not self._feeds and self._pumping is not None:
            self._pumping.cancel()
            self._pumping = None


class MemoryTasks:
    """See :class:`wpa.ports.tasks.TaskQueue`."""

    def __init__(self, connection: Connection, ack_wait_s: float) -> None:
        self._connection = connection
        self._server = connection.server
        self._ack_wait_s = ack_wait_s

    async def publish(self, tenant: str, data: bytes, headers: dict[str, str]) -> int:
        await self._connection.turn()
        subject = f"workflow.tasks.{tenant}"
        message = self._server.tasks.append(subject, bytes(data), _clean(headers))
        self._server.publish(subject, message.data, message.headers)
        consumer = self._server.consumers.get(tenant)
        if consumer is not None:
            consumer.add(message.sequence)
        return message.sequence

    async def tenants(self) -> set[str]:
        await self._connection.turn()
        return {subject.rpartition(".")[2] for subject in self._server.tasks.subjects}

    async def open(self, tenant: str, deliver: Callable[[Lease], None]) -> MemoryFeed:
        await self._connection.turn()
        consumer = self._server.consumers.get(tenant)
        if consumer is None:
            consumer = self._server.consumers[tenant] = Consumer(self._server, tenant)
        consumer.ack_wait_s = self._ack_wait_s
        feed = MemoryFeed(self._connection, consumer, deliver)
        consumer.join(feed)
        self._connection.at_close(feed.stop)
        return feed

    async def bury(self, tenant: str, data: bytes, headers: dict[str, str]) -> int:
        await self._connection.turn()
        subject = f"workflow.dlq.{tenant}"
        message = self._server.dead.append(subject, bytes(data), _clean(headers))
        self._server.publish(subject, message.data, message.headers)
        return message.sequence

    async def buried(self, tenant: str, limit: int) -> list[tuple[int, bytes, dict[str, str]]]:
        await self._connection.turn()
        found = self._server.dead.read(f"workflow.dlq.{tenant}")
        return [(letter.sequence, letter.data, letter.headers) for letter in found[::-1][:limit]]

    async def exhume(self, tenant: str, sequence: int) -> tuple[bytes, dict[str, str]] | None:
        await self._connection.turn()
        letter = self._server.dead.get(sequence)
        if letter is None or letter.subject != f"workflow.dlq.{tenant}":
            return None
        return letter.data, letter.headers

    async def discard(self, tenant: str, sequence: int) -> None:
        if await self.exhume(tenant, sequence) is not None:
            self._server.dead.remove(sequence)


def _clean(headers: dict[str, str]) -> dict[str, str]:
    """As they would arrive: a value is one line."""
    return {name: " ".join(value.split()) for name, value in headers.items()}
