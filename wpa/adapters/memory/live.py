"""Live events and nudges in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from wpa.adapters.memory.server import Connection

__all__ = ["MemoryLive"]


class MemoryLive:
    """See :class:`wpa.ports.live.Live`. :meth:`MemoryServer.subscribe` is how to listen."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._running: set[asyncio.Task[None]] = set()

    def publish_event(self, tenant: str, execution: str, body: dict[str, Any]) -> None:
        self.publish(f"workflow.events.{tenant}.{execution}.live", msgspec.json.encode(body))

    def publish(self, subject: str, data: bytes) -> None:
        if self._connection.open:
            self._connection.server.publish(subject, bytes(data))

    def nudge(self, worker: str, tenant: str, execution: str, epoch: int) -> None:
        self.publish(f"workflow.nudge.{worker}", msgspec.json.encode([tenant, execution, epoch]))

    async def on_nudge(self, worker: str, callback: Callable[[str, str, int], Awaitable[None]]) -> None:
        def take(subject: str, data: bytes, headers: dict[str, str]) -> None:
            tenant, execution, epoch = msgspec.json.decode(data, type=tuple[str, str, int])
            task = asyncio.ensure_future(_run(callback(tenant, execution, epoch)))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

        await self._connection.turn()
        self._connection.subscribe(f"workflow.nudge.{worker}", take)


def _run(awaitable: Awaitable[None]) -> Coroutine[Any, Any, None]:
    async def run() -> None:
        await awaitable

    return run()
