"""A store with very many finished executions in it, made in a minute: copies of one that ran.

Each copy has an id, and so subjects, of its own, and as many messages of the same size as the one that ran:
its journal and its snapshot. What a worker or a server may keep of an execution, it keeps of a copy. Nothing
is asked of a worker for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from wpa.adapters.nats import streams
from wpa.adapters.nats.api import api
from wpa.adapters.nats.headers import header_lines, own_headers
from wpa.adapters.nats.kv import Bucket
from wpa.adapters.nats.pages import read_page
from wpa.adapters.nats.transport import Transport

__all__ = ["fill"]

BATCH = 200
"""Executions between two acks waited for: the server drops what it has more than 10,000 messages to store."""
TOLD_EVERY = 20_000
TENANT = "default"
BUCKET = f"KV_{streams.EXECUTIONS_BUCKET}"


async def fill(url: str, like: str, count: int, told: Callable[[int], None] = lambda made: None) -> None:
    """Store ``count`` copies of the finished execution ``like``, beside what is there.

    Raises RuntimeError if not all of it was stored.
    """
    transport = await Transport.connect(url, name="bench")
    try:
        parts = await _parts(transport, like)
        before = await _stored(transport)
        for first in range(0, count, BATCH):
            await _write(transport, parts, like, range(first, min(first + BATCH, count)))
            if first % TOLD_EVERY == 0:
                told(first)
        after = await _stored(transport)
    finally:
        await transport.close()
    wanted = {streams.EVENTS: count * (len(parts) - 1), BUCKET: count}
    made = {stream: after[stream] - before[stream] for stream in wanted}
    if made != wanted:
        raise RuntimeError(f"{made} messages were stored where {wanted} were sent")


Part = tuple[bytes, bytes, bytes]
"""A message to be copied: subject, headers, data."""


async def _parts(transport: Transport, like: str) -> list[Part]:
    """The messages of the execution that is copied; its snapshot is the last."""
    events, _ = await read_page(transport, streams.EVENTS, f"workflow.events.{TENANT}.{like}", 1)
    snapshot = await Bucket(transport, streams.EXECUTIONS_BUCKET).get(f"{TENANT}.{like}")
    if not events or snapshot is None:
        raise RuntimeError(f"{like} has {len(events)} events, and {'a' if snapshot else 'no'} snapshot")
    journal = f"{streams.JOURNAL}.{TENANT}.{like}".encode()
    parts = [(journal, header_lines(own_headers(event.headers or {})), event.data) for event in events]
    return [*parts, (f"$KV.{streams.EXECUTIONS_BUCKET}.{TENANT}.{like}".encode(), b"", snapshot[0])]


async def _write(transport: Transport, parts: list[Part], like: str, numbers: range) -> None:
    """Write copies. A stream stores in the order it gets: the answers to the last ones stand for all."""
    sent = [copy for number in numbers for copy in _copy(parts, like.encode(), number)]
    last_of_each, most = sent[-2:], sent[:-2]
    for subject, headers, data in most:
        transport.send(subject, data, headers=headers)
    await asyncio.gather(
        *(transport.publish_acked(subject, data, headers) for subject, headers, data in last_of_each)
    )


def _copy(parts: list[Part], like: bytes, number: int) -> Iterator[tuple[str, bytes, bytes]]:
    name = b"copy-%07d" % number
    for subject, headers, data in parts:
        yield subject.replace(like, name).decode(), headers.replace(like, name), data.replace(like, name)


async def _stored(transport: Transport) -> dict[str, Any]:
    """How many messages the streams hold."""
    return {
        stream: (await api(transport, f"STREAM.INFO.{stream}"))["state"]["messages"]
        for stream in (streams.EVENTS, BUCKET)
    }
