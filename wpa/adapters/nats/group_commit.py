"""Group commit: writes that wait for the disk together are stored together, and synced once.

Under ``sync_interval: always`` a single node syncs message by message, and each write to a stream waits for
those that came before it. An atomic batch is synced as a whole: half a dozen syncs for hundreds of messages.
So what comes while the server is busy is gathered, and goes as one batch when it is done (``docs/adr/0012``).

Guarantees: those of ``Transport.publish_acked``, message by message. A batch is no transaction of the
engine's: each message has its own compare-and-set, and one that loses takes no other with it.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import Final

from wpa.adapters.nats.transport import Refused, Transport
from wpa.errors import Conflict, Unavailable

__all__ = ["BATCH_MAX", "BATCH_MIN", "GroupCommit"]

BATCH_MIN: Final = 24
"""Fewer cost less one by one (measured): a batch has files of its own, synced before the stream's."""
BATCH_MAX: Final = 256
"""The server takes no more than a thousand."""
BYTES_MAX: Final = 64 * 1024
"""Larger messages go alone: they would keep the others waiting, and the server writes batched ones twice."""


@dataclass(frozen=True, slots=True, eq=False)
class _Write:
    subject: str
    payload: bytes
    headers: bytes
    stored: asyncio.Future[int]

    def settle(self, outcome: int | Exception) -> None:
        if self.stored.done():
            return  # who asked for it does not wait any longer
        if isinstance(outcome, int):
            self.stored.set_result(outcome)
        else:
            self.stored.set_exception(outcome)


class GroupCommit:
    """Publishes into one stream, which must ``allow_atomic`` and have one replica.

    One group is under way at a time; the next is what has come meanwhile.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Write] = []
        self._worker: asyncio.Task[None] | None = None
        self._name = transport.new_inbox().rpartition(".")[2]
        """Unique, as batches of all connections have to be."""
        self._numbers = itertools.count(1)

    async def publish_acked(self, subject: str, payload: bytes, headers: bytes = b"") -> int:
        """Publish into the stream and return the sequence the message was stored under.

        Raises what ``Transport.publish_acked`` raises. Cancelled, it may or may not be stored.
        """
        if len(payload) > min(BYTES_MAX, self._transport.nc.max_payload):
            return await self._transport.publish_acked(subject, payload, headers)
        write = _Write(subject, payload, headers, self._loop.create_future())
        self._waiting.append(write)
        if self._worker is None:
            self._worker = self._loop.create_task(self._work(), name="wpa-group-commit")
        return await write.stored

    async def _work(self) -> None:
        """Store group after group, until nothing waits."""
        group: list[_Write] = []
        try:
            while self._waiting:
                group = [write for write in self._waiting[:BATCH_MAX] if not write.stored.done()]
                del self._waiting[:BATCH_MAX]
                await self._store(group)
        finally:
            self._worker = None
            left, self._waiting = [*group, *self._waiting], []
            for write in left:  # none, but for a cancelled worker: nobody waits for ever
                write.settle(Unavailable(f"{write.subject}: given up; the outcome is unknown"))

    async def _store(self, group: list[_Write]) -> None:
        if len(group) < BATCH_MIN:
            await asyncio.gather(*map(self._store_alone, group))
        elif not await self._store_batch(group):
            # The server does not say whose fault it was: the halves without fault still go together.
            middle = len(group) // 2
            await self._store(group[:middle])
            await self._store(group[middle:])

    async def _store_alone(self, write: _Write) -> None:
        try:
            write.settle(await self._transport.publish_acked(write.subject, write.payload, write.headers))
        except Exception as error:
            write.settle(error)

    async def _store_batch(self, group: list[_Write]) -> bool:
        """Store them, under adjacent sequences. False where the server refused the batch.

        It checks all of them before it stores any. A disk that fails half way through leaves a beginning,
        whose second try is a conflict: callers read back then, and find that what is there is theirs.
        """
        batch = f"{self._name}-{next(self._numbers)}"
        try:
            for number, write in enumerate(group[:-1], 1):
                self._transport.send(write.subject, write.payload, headers=_batched(write, batch, number))
            last = group[-1]
            headers = _batched(last, batch, len(group)) + b"Nats-Batch-Commit: 1\r\n"
            sequence = await self._transport.publish_acked(last.subject, last.payload, headers)
        except (Conflict, Refused):
            return False
        except Unavailable as error:
            for write in group:
                write.settle(Unavailable(str(error)))
        else:
            for position, write in enumerate(group, sequence - len(group) + 1):
                write.settle(position)
        return True


def _batched(write: _Write, batch: str, number: int) -> bytes:
    return b"%bNats-Batch-Id: %b\r\nNats-Batch-Sequence: %d\r\n" % (write.headers, batch.encode(), number)
