"""Timers as the server's own message schedules: a stored message that says when to deliver it, and where."""

from __future__ import annotations

from typing import Final

from wpa.adapters.nats import streams
from wpa.adapters.nats.headers import header_lines, own_headers
from wpa.adapters.nats.streams import api
from wpa.adapters.nats.transport import Transport
from wpa.model.times import rfc3339

__all__ = ["NatsTimers"]

LAST_MS: Final = 9_223_372_036_000
"""2262-04-11: the server counts nanoseconds in 64 bits. Past that they overflow; it would ring at once."""


class NatsTimers:
    """See :class:`wpa.ports.timers.Timers`.

    The server keeps one schedule a subject (each ours is an ``@at``, which survives a crash of the server
    exactly; those that repeat don't): storing one rolls up what was there before. When an alarm
    rings, the server stores its message on the due subject and purges the schedule's subject, whatever
    is on it by then.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def set(
        self, tenant: str, name: str, at_ms: int, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        schedule = f"@at {rfc3339(min(max(at_ms, 0), LAST_MS))}"
        await self._store(tenant, name, {"Nats-Schedule": schedule, **own_headers(headers or {})}, body)

    async def clear(self, tenant: str, name: str) -> None:
        await api(self._transport, f"STREAM.PURGE.{streams.TIMERS}", {"filter": _subject(tenant, name)})

    async def _store(self, tenant: str, name: str, headers: dict[str, str], body: bytes) -> None:
        lines = header_lines({**headers, "Nats-Schedule-Target": f"workflow.due.{tenant}"})
        await self._transport.publish_acked(_subject(tenant, name), body, lines)


def _subject(tenant: str, name: str) -> str:
    return f"workflow.timers.{tenant}.{name}"
