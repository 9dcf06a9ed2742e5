"""Timers as the server's own message schedules: a stored message that says when to deliver it, and where."""

from __future__ import annotations

from typing import Final

from wpa.adapters.nats import streams
from wpa.adapters.nats.headers import header_lines, own_headers
from wpa.adapters.nats.streams import api
from wpa.adapters.nats.transport import Refused, Transport
from wpa.errors import TaskRejected
from wpa.model import cron
from wpa.model.times import rfc3339

__all__ = ["NatsTimers"]

LAST_MS: Final = 9_223_372_036_000
"""2262-04-11: the server counts nanoseconds in 64 bits. Past that they overflow; it would ring at once."""

BAD_PATTERN: Final = 10189
BAD_TIME_ZONE: Final = 10223


class NatsTimers:
    """See :class:`wpa.ports.timers.Timers`.

    The server keeps one schedule a subject: storing one rolls up what was there before. When an alarm
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

    async def set_schedule(self, tenant: str, name: str, spec: str, time_zone: str, body: bytes) -> None:
        headers = {"Nats-Schedule": spec}
        if time_zone:
            headers["Nats-Schedule-Time-Zone"] = time_zone
        try:
            cron.check(spec, time_zone)
            await self._store(tenant, name, headers, body)
        except ValueError as error:
            raise TaskRejected("bad_schedule", str(error)) from None
        except Refused as error:
            if error.err_code not in (BAD_PATTERN, BAD_TIME_ZONE):
                raise
            zone = f" in time zone {time_zone!r}" if time_zone else ""
            raise TaskRejected(
                "bad_schedule", f"the NATS server does not take schedule {spec!r}{zone}: {error}"
            ) from None

    async def _store(self, tenant: str, name: str, headers: dict[str, str], body: bytes) -> None:
        lines = header_lines({**headers, "Nats-Schedule-Target": f"workflow.due.{tenant}"})
        await self._transport.publish_acked(_subject(tenant, name), body, lines)


def _subject(tenant: str, name: str) -> str:
    return f"workflow.timers.{tenant}.{name}"
