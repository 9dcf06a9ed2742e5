"""Inlets in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from wpa.adapters.memory.captured import InletConsumer
from wpa.adapters.memory.server import Connection
from wpa.adapters.memory.storage import Message
from wpa.errors import PlatformError
from wpa.model.subjects import overlap
from wpa.ports.inlets import Drawn, Inlet, UserStream
from wpa.ports.tasks import Feed

__all__ = ["MemoryInlets"]


class MemoryDrawn:
    """See :class:`wpa.ports.inlets.Drawn`."""

    __slots__ = ("_connection", "_consumer", "_message", "delivered")

    def __init__(
        self, connection: Connection, consumer: InletConsumer, message: Message, delivered: int
    ) -> None:
        self._connection = connection
        self._consumer = consumer
        self._message = message
        self.delivered = delivered

    @property
    def subject(self) -> str:
        return self._message.subject

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
    def stored(self) -> str:
        return f"{self._message.stored_ms:x}"

    def ack(self) -> None:
        if self._connection.open:
            self._consumer.ack(self.sequence)

    def nak(self, delay_s: float = 0.0) -> None:
        if self._connection.open:
            self._consumer.nak(self.sequence, delay_s)

    def extend(self) -> None:
        if self._connection.open:
            self._consumer.extend(self.sequence)


class _InletFeed:
    """See :class:`wpa.ports.tasks.Feed`."""

    def __init__(
        self,
        connection: Connection,
        consumer: InletConsumer,
        deliver: Callable[[Drawn], None],
        lost: Callable[[], None],
    ) -> None:
        self.credit = 0
        self._connection = connection
        self._consumer = consumer
        self._deliver = deliver
        self._forget = consumer.on_lost(lost)
        consumer.join(self)
        connection.at_close(self.stop)

    def request(self, count: int) -> None:
        self.credit += count
        self._consumer.wake()

    def take(self, message: Message, delivered: int) -> None:
        """See :class:`wpa.adapters.memory.consumer.Taker`."""
        self._deliver(MemoryDrawn(self._connection, self._consumer, message, delivered))

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.stop()

    def stop(self) -> None:
        """Close at once."""
        self._forget()
        self._consumer.leave(self)


class MemoryInlets:
    """See :class:`wpa.ports.inlets.Inlets`. :meth:`MemoryServer.add_stream` is how a test makes a stream."""

    def __init__(self, connection: Connection, ack_wait_s: float) -> None:
        self._connection = connection
        self._server = connection.server
        self._ack_wait_s = ack_wait_s

    async def stream(self, name: str) -> UserStream | None:
        await self._connection.turn()
        found = self._server.captured.get(name)
        return None if found is None else UserStream(subjects=found.subjects)

    async def capturing(self, pattern: str) -> list[str]:
        await self._connection.turn()
        return sorted(
            name
            for name, stream in self._server.captured.items()
            if any(overlap(captured, pattern) for captured in stream.subjects)
        )

    async def add(self, inlet: Inlet, since_ms: int | None) -> None:
        await self._connection.turn()
        stream = self._server.captured.get(inlet.stream)
        if stream is None:
            raise PlatformError(f"there is no stream {inlet.stream}")
        stream.add(inlet, since_ms, self._ack_wait_s)

    async def open(self, inlet: Inlet, deliver: Callable[[Drawn], None], lost: Callable[[], None]) -> Feed:
        await self._connection.turn()
        stream = self._server.captured.get(inlet.stream)
        consumer = stream.inlets.get(inlet.name) if stream is not None else None
        if consumer is None:
            asyncio.get_running_loop().call_soon(lost)
            return _Nothing()
        return _InletFeed(self._connection, consumer, deliver, lost)

    async def remove(self, inlet: Inlet) -> None:
        await self._connection.turn()
        stream = self._server.captured.get(inlet.stream)
        if stream is not None:
            stream.remove(inlet)


class _Nothing:
    """The feed of an inlet that is not there."""

    def request(self, count: int) -> None:
        """Nothing will come."""

    async def close(self) -> None:
        await asyncio.sleep(0)
