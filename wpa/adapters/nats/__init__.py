"""The ports on NATS JetStream."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from wpa.adapters.clock import SystemClock
from wpa.adapters.nats import consumers, streams, timers
from wpa.adapters.nats.api import api
from wpa.adapters.nats.blobs import NatsBlobs
from wpa.adapters.nats.group_commit import GroupCommit
from wpa.adapters.nats.inlets import NatsInlets
from wpa.adapters.nats.journal import NatsJournal, Publish
from wpa.adapters.nats.kv import Bucket
from wpa.adapters.nats.leftovers import is_connected, release
from wpa.adapters.nats.live import NatsLive
from wpa.adapters.nats.stores import NatsDefinitions, NatsRecords, NatsSnapshots
from wpa.adapters.nats.tasks import NatsTasks
from wpa.adapters.nats.timers import NatsTimers
from wpa.adapters.nats.transport import Transport
from wpa.errors import PlatformError
from wpa.ports import Ports

__all__ = ["NatsPorts", "examine", "open_ports"]

log = logging.getLogger("wpa.nats")

SYNCS_BATCHES: Final = (2, 15)
"""From this version on, nats-server syncs an atomic batch as a whole."""


@dataclass(frozen=True)
class NatsPorts(Ports):
    """All ports over one connection, and what only NATS has to say."""

    transport: Transport

    async def announce(self, worker: str, about: dict[str, Any]) -> bool:
        """Write the worker's presence; it vanishes by itself when not written again within 30 s.

        False where the server can't be reached.
        """
        bucket = Bucket(self.transport, streams.WORKERS_BUCKET)
        with contextlib.suppress(PlatformError):  # presence is a courtesy, never worth an error
            await bucket.set(worker, msgspec.json.encode(about))
            return True
        return False

    async def roster(self) -> list[dict[str, Any]]:
        """What the workers that are there say of themselves. Raises Unavailable."""
        bucket = Bucket(self.transport, streams.WORKERS_BUCKET)
        return [msgspec.json.decode(about) for _, about in await bucket.values("")]

    async def release_leftovers(self, worker: str, ack_wait_s: float) -> int:
        """Where no other worker is there: let what dead ones held be handed out at once. How much it was.

        To be called before ``worker``, which must have been announced, takes its first task.
        """
        try:
            others = [about["worker"] for about in await self.roster() if about["worker"] != worker]
            there = await asyncio.gather(*(is_connected(self.transport, other) for other in others))
            return 0 if any(there) else await release(self.transport, ack_wait_s)
        except PlatformError as error:
            log.warning("what other workers may have left behind has to wait for its leases: %s", error)
            return 0

    @property
    def message_bytes_max(self) -> int:
        """What the server takes in one message, its headers included."""
        return self.transport.nc.max_payload

    @property
    def server_version(self) -> str:
        """Of the nats-server that it is connected to."""
        return streams.server_version(self.transport)

    async def durability(self) -> str:
        """What a power cut can take, in words for the worker's first log line."""
        replicas = await _replicas(self.transport)
        if replicas > 1:
            return f"{replicas} replicas: an acknowledged write survives the loss of a node"
        return (
            "one replica: a killed process loses nothing; a power cut may lose what the server had not "
            "synced yet (100 ms with wpa's own configuration, two minutes with the server's default)"
        )


async def examine(url: str, creds: str | None = None) -> list[str]:
    """What of a server, its streams, buckets and consumers won't do; nothing is made, or changed.

    Raises Unavailable where no server answers, or lets us in, and PlatformError where it can't be asked.
    """
    transport = await Transport.connect(url, name="wpa doctor", creds=creds)
    try:
        if faults := await streams.examine(transport):
            return faults
        now_ms = SystemClock().now_ms()
        return [*await consumers.examine(transport), *await timers.examine(transport, now_ms)]
    finally:
        await transport.close()


async def open_ports(
    url: str,
    *,
    worker: str,
    ack_wait_s: float = 2.5,
    replicas: int = 1,
    creds: str | None = None,
    group_appends: bool = False,
) -> NatsPorts:
    """Connect, make streams and buckets where they are missing, and open every port.

    ``group_appends`` is for a single node that syncs each write (:mod:`wpa.adapters.nats.group_commit`).

    A cluster without a leader is waited for (:func:`wpa.adapters.nats.streams.ensure`).

    Raises Unavailable where no server answers, or lets us in, or JetStream isn't ready in time, and
    PlatformError where what is there won't do.
    """
    transport = await Transport.connect(url, name=f"wpa {worker}", creds=creds)
    try:
        await streams.ensure(transport, replicas)
        publish = await _grouped(transport) if group_appends else transport.publish_acked
        definitions = NatsDefinitions(transport)
        await definitions.start()
    except BaseException:
        await transport.close()
        raise
    return NatsPorts(
        journal=NatsJournal(transport, publish),
        snapshots=NatsSnapshots(transport),
        tasks=NatsTasks(transport, ack_wait_s),
        inlets=NatsInlets(transport, ack_wait_s),
        timers=NatsTimers(transport),
        definitions=definitions,
        records=NatsRecords(transport),
        blobs=NatsBlobs(transport),
        live=NatsLive(transport),
        clock=SystemClock(),
        close=transport.close,
        transport=transport,
        lags=lambda: streams.may_have_replicas(transport),
    )


async def _grouped(transport: Transport) -> Publish:
    """What stores events in groups, where that is of any use."""
    if await _replicas(transport) > 1:
        log.info("WPA_GROUP_APPENDS is left aside: replicas sync in groups by themselves")
    elif not streams.is_at_least(transport, SYNCS_BATCHES):
        version = streams.server_version(transport)
        log.warning("WPA_GROUP_APPENDS is left aside: nats-server %s syncs each message of a batch", version)
    else:
        await streams.allow_batches(transport)
        return GroupCommit(transport).publish_acked
    return transport.publish_acked


async def _replicas(transport: Transport) -> int:
    """Of the journals, as they are: a stream that was there keeps its own."""
    info = await api(transport, f"STREAM.INFO.{streams.EVENTS}")
    return int(info["config"].get("num_replicas", 1))
