"""The work queues in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from wpa.adapters.memory.consumer import Consumer
from wpa.adapters.memory.server import Connection
from wpa.adapters.memory.storage import Message
from wpa.ports.tasks import Lease, Source

__all__ = ["MemoryTasks", "clean_headers"]


class MemoryLease:
    """See :class:`wpa.ports.tasks.Lease`."""

    __slots__ = ("_connection", "_consumer", "_message", "delivered", "source")

    def __init__(self, connection: Connection, consumer: Consumer, message: Message, delivered: int) -> None:
        self._connection = connection
        self._consumer = consumer
        self._message = message
        self.source = consumer.source
        self.delivered = delivered

    @property
    def tenant(self) -> str:
        return self.source.tenant

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
    def stored_ms(self) -> int:
        return self._message.stored_ms

    @property
    def identity(self) -> str:
        identity = f"{self._message.stored_ms:x}-{self._message.sequence:x}"
        return f"due-{identity}" if self.source.kind == "due" else identity

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
        self.credit = 0
        self._connection = connection
        self._consumer = consumer
        self._deliver = deliver

    def request(self, count: int) -> None:
        self.credit += count
        self._consumer.wake()

    def take(self, message: Message, delivered: int) -> None:
        """See :class:`wpa.adapters.memory.consumer.Taker`."""
        self._deliver(MemoryLease(self._connection, self._consumer, message, delivered))

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.stop()

    def stop(self) -> None:
        """Close at once."""
        self._consumer.leave(self)


class MemoryTasks:
    """See :class:`wpa.ports.tasks.TaskQueue`."""

    def __init__(self, connection: Connection, ack_wait_s: float) -> None:
        self._connection = connection
        self._server = connection.server
        self._ack_wait_s = ack_wait_s

    async def publish(self, tenant: str, data: bytes, headers: dict[str, str]) -> int:
        return await self._publish(Source(tenant), data, headers)

    async def publish_step(self, tenant: str, queue: str, data: bytes, headers: dict[str, str]) -> int:
        return await self._publish(Source(tenant, "steps", queue), data, headers)

    async def _publish(self, source: Source, data: bytes, headers: dict[str, str]) -> int:
        await self._connection.turn()
        subject, data, headers = source.subject, bytes(data), clean_headers(headers)
        message = self._server.tasks.append(subject, data, headers)
        self._server.publish(subject, data, headers)
        self._server.consumer(source).wake()
        return message.sequence

    async def tenants(self) -> set[str]:
        return {tenant for _, kind, tenant, *_ in await self._held() if kind in ("tasks", "due")}

    async def queues(self) -> set[tuple[str, str]]:
        return {(tenant, queue[0]) for _, kind, tenant, *queue in await self._held() if kind == "steps"}

    async def _held(self) -> list[list[str]]:
        """The subjects that hold messages now, by their tokens."""
        await self._connection.turn()
        subjects = [*self._server.tasks.subjects, *self._server.due.subjects]
        return [subject.split(".") for subject in subjects]

    async def open(self, source: Source | str, deliver: Callable[[Lease], None]) -> MemoryFeed:
        await self._connection.turn()
        consumer = self._server.consumer(Source.of(source))
        consumer.lengthen(self._ack_wait_s)
        feed = MemoryFeed(self._connection, consumer, deliver)
        consumer.join(feed)
        self._connection.at_close(feed.stop)
        return feed

    async def bury(self, tenant: str, data: bytes, headers: dict[str, str]) -> int:
        await self._connection.turn()
        subject, data, headers = f"workflow.dlq.{tenant}", bytes(data), clean_headers(headers)
        message = self._server.dead.append(subject, data, headers)
        self._server.publish(subject, data, headers)
        return message.sequence

    async def buried(
        self, tenant: str, limit: int, before: int = 0
    ) -> list[tuple[int, bytes, dict[str, str]]]:
        await self._connection.turn()
        found = self._server.dead.read(f"workflow.dlq.{tenant}")
        wanted = [letter for letter in found[::-1] if not before or letter.sequence < before]
        return [(letter.sequence, letter.data, letter.headers) for letter in wanted[:limit]]

    async def exhume(self, tenant: str, sequence: int) -> tuple[bytes, dict[str, str]] | None:
        await self._connection.turn()
        letter = self._server.dead.get(sequence)
        if letter is None or letter.subject != f"workflow.dlq.{tenant}":
            return None
        return letter.data, letter.headers

    async def discard(self, tenant: str, sequence: int) -> None:
        if await self.exhume(tenant, sequence) is not None:
            self._server.dead.remove(sequence)


def clean_headers(headers: dict[str, str]) -> dict[str, str]:
    """As they would arrive: a value is one line."""
    return {name: " ".join(value.split()) for name, value in headers.items()}
