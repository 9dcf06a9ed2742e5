"""One transition, one append: compare-and-set, with read-back where the answer was lost.

An append whose answer never came may have been stored. A blind second try would be refused for its
expected sequence even so. Therefore nothing is assumed: the journal is read back, and event ids are
compared. The loop ends only when it is known whose event follows.
"""

from __future__ import annotations

import asyncio
import logging
import random

from wpa.errors import Conflict, Unavailable
from wpa.model.events import Event
from wpa.ports.journal import Journal, Stored

__all__ = ["Lost", "commit"]

log = logging.getLogger("wpa.engine")

BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 1.0
"""Not more, or executions would still be waiting long after a cluster has elected another leader."""


class Lost(Conflict):
    """Somebody else's events follow; ``tail`` holds them."""

    def __init__(self, tail: list[Stored]) -> None:
        super().__init__("another writer was first")
        self.tail = tail


async def commit(journal: Journal, event: Event, after: int) -> int:
    """Append ``event`` after position ``after`` and return its position, exactly once.

    Waits out a server that is away, however long. Raises Lost where another event follows ``after``, and
    TooLarge, with nothing stored, for more bytes than the server takes. Cancellable; the outcome is then
    unknown, and the next load of the journal tells.
    """
    delay = BACKOFF_FIRST_S
    while True:
        try:
            return await journal.append(event, after)
        except Conflict:
            pause = BACKOFF_FIRST_S * random.random()
        except Unavailable as error:
            # The adapter warns of the outage once; here, every execution would.
            log.debug("append to %s.%s: %s", event.tenant_id, event.execution_id, error)
            pause = delay * (0.5 + random.random() / 2)
            delay = min(delay * 2, BACKOFF_MAX_S)
        try:
            tail = await journal.read(event.tenant_id, event.execution_id, after)
        except Unavailable:
            await asyncio.sleep(pause)
            continue
        if tail:
            if tail[0][1].id == event.id:
                return tail[0][0]
            raise Lost(tail)
        # Nothing follows: it was not stored, or this read is older than the write. In both cases the
        # same append, with the same id and the same expectation, is safe to send again.
        await asyncio.sleep(pause)
