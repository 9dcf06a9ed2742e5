"""The journal on JetStream: one subject for each execution, appended by compare-and-set."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from wpa.adapters.nats.streams import EVENTS, JOURNAL, api, stored_message
from wpa.adapters.nats.transport import Message, Transport
from wpa.model.codec import decode_event, encode_event
from wpa.model.events import Event
from wpa.ports.journal import Stored

__all__ = ["NatsJournal", "Publish"]

Publish = Callable[[str, bytes, bytes], Coroutine[Any, Any, int]]
"""(subject, payload, header lines) to sequence: ``publish_acked`` of a transport, or of a group commit."""

BATCH = 1_000
RECENT_WINDOW = 2_000
RECENT_WINDOW_MAX = 64_000


class NatsJournal:
    """See :class:`wpa.ports.journal.Journal`.

    Each message carries CloudEvents 1.0 attributes as ``ce-`` headers (NATS binding, binary mode) and
    a W3C ``traceparent`` whose trace id is derived from the execution, so that all of an execution's
    events are one trace.
    """

    def __init__(self, transport: Transport, publish: Publish) -> None:
        self._transport = transport
        self._publish = publish

    def append(self, event: Event, after: int) -> Coroutine[Any, Any, int]:
        subject = f"{JOURNAL}.{event.tenant_id}.{event.execution_id}"
        headers = (
            f"Nats-Expected-Last-Subject-Sequence: {after}\r\n"
            "ce-specversion: 1.0\r\n"
            f"ce-id: {event.id}\r\n"
            f"ce-source: /wpa/{event.tenant_id}/{event.workflow_id}\r\n"
            f"ce-type: wpa.{event.event}\r\n"
            f"ce-subject: {event.execution_id}\r\n"
            f"ce-time: {event.timestamp}\r\n"
            "content-type: application/json\r\n"
        )
        if event.traceparent:
            headers += f"traceparent: {event.traceparent}\r\n"
        return self._publish(subject, encode_event(event), headers.encode("ascii"))

    async def read(
        self, tenant: str, execution: str, after: int = 0, most: int | None = None
    ) -> list[Stored]:
        stored: list[Stored] = []
        subject = f"workflow.events.{tenant}.{execution}"
        while True:
            batch = BATCH if most is None else min(BATCH, most - len(stored))
            messages = await self._next(subject, after + 1, batch)
            stored.extend((_sequence(message), decode_event(message.data)) for message in messages)
            if len(messages) < batch or len(stored) == most:
                return stored
            after = stored[-1][0]

    async def latest(self, tenant: str, execution: str) -> int:
        subject = f"workflow.events.{tenant}.{execution}"
        found = await stored_message(self._transport, EVENTS, last_by_subj=subject)
        return 0 if found is None else int(found["seq"])

    async def recent(self, tenant: str, limit: int) -> list[Event]:
        info = await api(self._transport, f"STREAM.INFO.{EVENTS}")
        first, last = info["state"]["first_seq"], info["state"]["last_seq"]
        window = RECENT_WINDOW
        while True:
            # Look back from the end of the stream, further and further: recent is what is asked for.
            start = max(first, last - window + 1)
            latest: dict[str, Event] = {}
            while messages := await self._next(f"workflow.events.{tenant}.*", start, BATCH):
                for message in messages:
                    event = decode_event(message.data)
                    latest.pop(event.execution_id, None)
                    latest[event.execution_id] = event
                start = _sequence(messages[-1]) + 1
                if len(messages) < BATCH:
                    break
            if len(latest) >= limit or last - window + 1 <= first or window >= RECENT_WINDOW_MAX:
                return list(latest.values())[::-1][:limit]
            window *= 4

    async def _next(self, subject: str, start: int, batch: int) -> list[Message]:
        body = msgspec.json.encode({"seq": start, "next_by_subj": subject, "batch": batch})
        return await self._transport.collect(f"$JS.API.DIRECT.GET.{EVENTS}", body)


def _sequence(message: Message) -> int:
    return int((message.headers or {})["Nats-Sequence"])
