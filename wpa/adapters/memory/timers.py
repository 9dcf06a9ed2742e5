"""Timers in memory."""

from __future__ import annotations

from wpa.adapters.memory.server import Connection
from wpa.adapters.memory.tasks import clean_headers

__all__ = ["MemoryTimers"]


class MemoryTimers:
    """See :class:`wpa.ports.timers.Timers`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._schedules = connection.server.schedules

    async def set(
        self, tenant: str, name: str, at_ms: int, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        await self._connection.turn()
        own = {key: value for key, value in (headers or {}).items() if not key.startswith("Nats-")}
        self._schedules.set(tenant, name, at_ms, bytes(body), clean_headers(own))

    async def clear(self, tenant: str, name: str) -> None:
        await self._connection.turn()
        self._schedules.clear(tenant, name)
