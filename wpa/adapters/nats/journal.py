"""The journal on JetStream: one subject for each execution, appended by compare-and-set."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from itertools import islice
from typing import Any

from wpa.adapters.nats.api import api, stored_message
from wpa.adapters.nats.pages import BATCH, pages, read_page, sequence_in
from wpa.adapters.nats.streams import EVENTS, JOURNAL
from wpa.adapters.nats.transport import Message, Transport
from wpa.model.codec import decode_event, encode_event
from wpa.model.events import Event
from wpa.ports.journal import Stored

__all__ = ["NatsJournal", "Publish"]

Publish = Callable[[str, bytes, bytes], Coroutine[Any, Any, int]]
"""(subject, payload, header lines) to sequence: ``publish_acked`` of a transport, or of a group commit."""

WINDOW, WINDOW_MAX = 2_000, 64_000
"""So many sequences of the stream are looked through at a time for who was active."""
READS_MAX = 64
"""So many requests are one look at most."""


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
        subject = f"workflow.events.{tenant}.{execution}"
        return [
            (sequence_in(message), decode_event(message.data))
            async for messages in pages(self._transport, EVENTS, subject, after + 1, most)
            for message in messages
        ]

    async def latest(self, tenant: str, execution: str) -> int:
        subject = f"workflow.events.{tenant}.{execution}"
        found = await stored_message(self._transport, EVENTS, last_by_subj=subject)
        return 0 if found is None else int(found["seq"])

    async def recent(self, tenant: str, most: int, before: int = 0) -> tuple[list[Stored], int]:
        state = (await api(self._transport, f"STREAM.INFO.{EVENTS}"))["state"]
        first, end = state["first_seq"], state["last_seq"] + 1
        end = min(end, before or end)
        subject = f"workflow.events.{tenant}.*"
        met: dict[str, Message] = {}
        window, reads = WINDOW, 0
        while len(met) < most and end > first and reads < READS_MAX:
            start = max(first, end - window)
            messages = await self._between(subject, start, end)
            for message in reversed(messages):
                met.setdefault(message.headers["Nats-Subject"], message)
            reads += 1 + len(messages) // BATCH
            # Where other tenants are busy, little is found in much.
            window = min(window * 4, WINDOW_MAX) if len(messages) < BATCH else WINDOW
            end = start
        last = [(sequence_in(message), decode_event(message.data)) for message in islice(met.values(), most)]
        following = last[-1][0] if len(met) > most else end
        return last, following if following > first else 0

    async def _between(self, subject: str, start: int, end: int) -> list[Message]:
        """The messages from sequence ``start`` up to, and without, ``end``."""
        found: list[Message] = []
        while start < end:
            page = await read_page(self._transport, EVENTS, subject, start, min(BATCH, end - start))
            found += (message for message in page.messages if sequence_in(message) < end)
            if not page.more:
                break
            start = sequence_in(page.messages[-1]) + 1
        return found
