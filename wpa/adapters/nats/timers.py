"""Timers as the server's own message schedules: a stored message that says when to deliver it, and where."""

from __future__ import annotations

from typing import Final

from wpa.adapters.nats import streams
from wpa.adapters.nats.api import StreamMissing, api, stored_headers, stored_message
from wpa.adapters.nats.headers import header_lines, own_headers
from wpa.adapters.nats.transport import Transport
from wpa.model.times import parse_ms, rfc3339

__all__ = ["NatsTimers", "examine"]

SCHEDULE: Final = "Nats-Schedule"
AT: Final = "@at "
LATE_MS: Final = 10_000
"""What is due is rung within a quarter of a second; soon after a restart, within some."""
LOOKED_AT: Final = 1_000
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
        schedule = f"{AT}{rfc3339(min(max(at_ms, 0), LAST_MS))}"
        await self._store(tenant, name, {SCHEDULE: schedule, **own_headers(headers or {})}, body)

    async def clear(self, tenant: str, name: str) -> None:
        await api(self._transport, f"STREAM.PURGE.{streams.TIMERS}", {"filter": _subject(tenant, name)})

    async def _store(self, tenant: str, name: str, headers: dict[str, str], body: bytes) -> None:
        lines = header_lines({**headers, "Nats-Schedule-Target": f"workflow.due.{tenant}"})
        await self._transport.publish_acked(_subject(tenant, name), body, lines)


async def examine(transport: Transport, now_ms: int) -> list[str]:
    """Whether the server has forgotten to ring alarms: in words, or nothing. Raises PlatformError.

    A nats-server 2.15.1 whose stream is given replicas while alarms come due forgets those, until the stream
    has another leader. The oldest ``LOOKED_AT`` are looked at, one by one, for the stream has no direct gets.
    """
    late, sequence, stream = 0, 1, streams.TIMERS
    for _ in range(LOOKED_AT):
        try:
            found = await stored_message(transport, stream, seq=sequence, next_by_subj="workflow.timers.>")
        except StreamMissing:
            break  # nothing of ours is there
        if found is None:
            break
        moment = stored_headers(found).get(SCHEDULE, "").removeprefix(AT)
        late += bool(moment) and parse_ms(moment) < now_ms - LATE_MS
        sequence = found["seq"] + 1
    fault = (
        f"stream {stream} holds alarms that should have rung more than {LATE_MS // 1000} s ago, {late} among "
        f"the oldest {LOOKED_AT}: `nats stream cluster step-down {stream}` has them ring; so does a restart, "
        "where there is one server only"
    )
    return [fault] if late else []


def _subject(tenant: str, name: str) -> str:
    return f"workflow.timers.{tenant}.{name}"
