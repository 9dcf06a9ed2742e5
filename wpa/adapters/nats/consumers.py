"""The durable pull consumers that workers share, one for each source, and what would be wrong with one.

A consumer of its own is what keeps a tenant's single task from waiting behind another tenant's backlog.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterator
from typing import Any, Final, get_args

from wpa.adapters.nats import streams
from wpa.adapters.nats.api import NO_SUCH, ApiError, api
from wpa.adapters.nats.transport import Transport
from wpa.ports.tasks import Source, SourceKind

__all__ = ["consumer_config", "consumer_name", "examine", "pause", "shared", "stream_of"]

MAX_ACK_PENDING: Final = 50_000

PLAIN: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}(=[a-z0-9_-]{1,32})?", re.ASCII)

OURS: Final = tuple(f"{kind}-" for kind in get_args(SourceKind))
"""What the names of :func:`consumer_name` begin with."""


def stream_of(source: Source) -> str:
    """The stream that holds the source's messages."""
    return streams.TIMERS if source.kind == "due" else streams.TASKS


def consumer_name(source: Source) -> str:
    """The source's durable consumer: the same in every worker, and another for every other source.

    A tenant that may not be one has tasks, too (they have to be rejected), and the server makes folders
    of these names, which not every file system tells apart by case: what is not plain is hashed.
    """
    name = f"{source.tenant}={source.queue}" if source.queue else source.tenant
    if PLAIN.fullmatch(name):
        return f"{source.kind}-{name}"
    return f"{source.kind}--{hashlib.blake2b(name.encode(), digest_size=12).hexdigest()}"


def consumer_config(source: Source, ack_wait_s: float) -> dict[str, Any]:
    """As a worker makes it; how long a lease lasts may be another's choice."""
    return {
        "durable_name": consumer_name(source),
        "ack_policy": "explicit",
        "ack_wait": int(ack_wait_s * 1e9),
        "max_deliver": -1,
        "filter_subject": source.subject,
        "max_ack_pending": MAX_ACK_PENDING,
        "deliver_policy": "all",
        "replay_policy": "instant",
    }


async def shared(transport: Transport) -> list[dict[str, Any]]:
    """All that workers share, as the server describes them; others' are none of our business.

    Raises PlatformError, and ApiError where a stream is missing.
    """
    pages = await asyncio.gather(*(_listed(transport, name) for name in (streams.TASKS, streams.TIMERS)))
    return [consumer for page in pages for consumer in page]


async def _listed(transport: Transport, stream: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        page = await api(transport, f"CONSUMER.LIST.{stream}", {"offset": len(found)})
        found += page["consumers"]
        if not page["consumers"] or len(found) >= page["total"]:
            ours = (one for one in found if one["name"].startswith(OURS))
            return [one for one in ours if "filter_subject" in one["config"]]


def pause(consumer: dict[str, Any]) -> str:
    """Until when a consumer that was paused hands out nothing, and what ends that; empty where it wasn't.

    A worker does not end it: whoever paused a consumer may want it so.
    """
    if not consumer.get("paused"):
        return ""
    stream, name, config = consumer["stream_name"], consumer["name"], consumer["config"]
    return (
        f"consumer {name} of stream {stream} is paused until {config.get('pause_until')}: nothing of "
        f"{config['filter_subject']} is taken; `nats consumer resume {stream} {name}` ends that"
    )


async def examine(transport: Transport) -> list[str]:
    """What of the consumers that are there keeps tasks from being done. Raises PlatformError.

    None there is no fault: a worker makes what it needs.
    """
    try:
        return [fault for consumer in await shared(transport) for fault in _faults(consumer)]
    except ApiError as error:
        if error.code != NO_SUCH:
            raise
        return []


def _faults(consumer: dict[str, Any]) -> Iterator[str]:
    if paused := pause(consumer):
        yield paused
    stream, name, found = consumer["stream_name"], consumer["name"], consumer["config"]
    losses = {
        "max_deliver": "a task that was interrupted that often is never taken again",
        "headers_only": "tasks come without their content",
        "backoff": "leases last otherwise than workers think",
    }
    for key, loss in losses.items():
        if found.get(key) not in (None, False, -1):
            yield (
                f"consumer {name} of stream {stream} has {key} = {found[key]}: {loss}; "
                "a worker that starts puts it right"
            )
