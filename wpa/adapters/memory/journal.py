"""The journal in memory. Events are kept as bytes: what can't be encoded can't be stored."""

from __future__ import annotations

from wpa.adapters.memory.server import Connection
from wpa.model.codec import decode_event, encode_event
from wpa.model.events import Event
from wpa.ports.journal import EVERY, Stored

__all__ = ["MemoryJournal"]


class MemoryJournal:
    """See :class:`wpa.ports.journal.Journal`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stream = connection.server.events

    async def append(self, event: Event, after: int) -> int:
        subject = f"workflow.events.{event.tenant_id}.{event.execution_id}"
        data = encode_event(event)
        await self._connection.turn()
        headers = {"ce-id": event.id, "ce-type": f"wpa.{event.event}"}
        message = self._stream.append(subject, data, headers, after)
        self._connection.server.publish(subject, data, headers)
        return message.sequence

    async def read(
        self, tenant: str, execution: str, after: int = 0, most: int | None = None
    ) -> list[Stored]:
        await self._connection.turn()
        subject = f"workflow.events.{tenant}.{execution}"
        read = self._stream.read_matching if execution == EVERY else self._stream.read
        found = read(subject, after)
        return [(message.sequence, decode_event(message.data)) for message in found[:most]]

    async def latest(self, tenant: str, execution: str) -> int:
        await self._connection.turn()
        subject = f"workflow.events.{tenant}.{execution}"
        if execution == EVERY:
            last = next(iter(self._stream.last_messages(subject)), None)
        else:
            last = self._stream.last(subject)
        return 0 if last is None else last.sequence

    async def recent(self, tenant: str, most: int, before: int = 0) -> tuple[list[Stored], int]:
        await self._connection.turn()
        found = self._stream.last_messages(f"workflow.events.{tenant}.*", before)
        met = [(message.sequence, decode_event(message.data)) for message in found[:most]]
        return met, met[-1][0] if len(found) > most else 0
