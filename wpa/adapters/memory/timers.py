"""Timers in memory."""

from __future__ import annotations

from wpa.adapters.memory.server import Connection
from wpa.adapters.memory.tasks import clean_headers
from wpa.errors import TaskRejected

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

    async def set_schedule(self, tenant: str, name: str, spec: str, time_zone: str, body: bytes) -> None:
        await self._connection.turn()
        try:
            self._schedules.repeat(tenant, name, spec, time_zone, bytes(body))
        except ValueError as error:
            raise TaskRejected("bad_schedule", str(error)) from None
