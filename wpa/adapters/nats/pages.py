"""Streams read from a sequence on, in batches of direct gets, which any replica answers.

A batch ends after so many messages, or bytes, or where the server finds that enough waits to be sent. So how
many came says nothing: whether there are more is the server's last word.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, NamedTuple

import msgspec

from wpa.adapters.nats.transport import Transport
from wpa.adapters.nats.wire_parser import Message

__all__ = ["BATCH", "Page", "pages", "read_page", "sequence_in"]

BATCH: Final = 1_000
BATCH_BYTES: Final = 4 * 1024 * 1024
"""It ends with the message that exceeds this. Readers share a connection, and the server cuts one for which
too much is waiting (``max_pending``: 64 MB)."""
MORE: Final = "Nats-Num-Pending"


class Page(NamedTuple):
    """The messages of one batch, in the order of the stream."""

    messages: list[Message]
    more: bool
    """Whether others of its subject come after them."""


async def read_page(transport: Transport, stream: str, subject: str, start: int, most: int = BATCH) -> Page:
    """At most ``most`` messages on ``subject`` (which may have wildcards), from sequence ``start`` on.

    There is at least one where there is any. Raises Unavailable.
    """
    wanted = {"seq": start, "next_by_subj": subject, "batch": most, "max_bytes": BATCH_BYTES}
    messages, end = await transport.collect(f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(wanted))
    return Page(messages, bool(messages) and int(end.headers.get(MORE, 0)) > 0)


async def pages(
    transport: Transport, stream: str, subject: str, start: int = 1, most: int | None = None
) -> AsyncIterator[list[Message]]:
    """All messages on ``subject`` from ``start`` on, or the first ``most`` of them. Raises Unavailable."""
    left = most
    while left is None or left > 0:
        page = await read_page(transport, stream, subject, start, BATCH if left is None else min(BATCH, left))
        yield page.messages
        if not page.more:
            return
        start = sequence_in(page.messages[-1]) + 1
        if left is not None:
            left -= len(page.messages)


def sequence_in(message: Message) -> int:
    """Where a message that was got directly is stored in its stream."""
    return int(message.headers["Nats-Sequence"])
