"""Live events, nudges and watches in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import msgspec

from wpa.adapters.memory.server import Connection
from wpa.ports.live import OnMessage, OnNudge, Unsubscribe

__all__ = ["MemoryLive"]


class MemoryLive:
    """See :class:`wpa.ports.live.Live`. :meth:`MemoryServer.subscribe` is how a test listens."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._running: set[asyncio.Task[None]] = set()

    def publish_event(self, tenant: str, execution: str, body: dict[str, Any]) -> None:
        self.publish(f"workflow.events.{tenant}.{execution}.live", msgspec.json.encode(body))

    def publish(self, subject: str, data: bytes) -> None:
        if self._connection.open:
            self._connection.server.publish(subject, bytes(data))

    def nudge(self, worker: str, tenant: str, execution: str, epoch: int, reason: str = "") -> None:
        self.publish(f"workflow.nudge.{worker}", msgspec.json.encode([tenant, execution, epoch, reason]))

    async def on_nudge(self, worker: str, callback: OnNudge) -> None:
        def take(subject: str, data: bytes, headers: dict[str, str]) -> None:
            told = callback(*msgspec.json.decode(data, type=tuple[str, str, int, str]))
            task = asyncio.ensure_future(_run(told))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

        await self._connection.turn()
        self._connection.subscribe(f"workflow.nudge.{worker}", take)

    async def watch(self, pattern: str, callback: OnMessage, queue: str = "") -> Unsubscribe:
        await self._connection.turn()
        end = self._connection.subscribe(pattern, callback, queue)

        async def unsubscribe() -> None:
            end()

        return unsubscribe


async def _run(awaitable: Awaitable[None]) -> None:
    await awaitable
