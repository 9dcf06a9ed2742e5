"""The ports in memory: for tests, for simulations, and for trying a workflow without a server.

A :class:`MemoryServer` stands for the NATS server: it holds the streams, buckets and subscriptions,
and outlives the workers that connect to it. :func:`open_ports` is one connection; to close it is to
lose it as a crash does: what it had leased runs out and goes to the others.

Everything happens on one event loop, in a fixed order, and time is the clock's alone, so a run over a
:class:`VirtualClock` can be repeated exactly. ``tests/contract/`` holds these adapters to the same
behaviour as the real ones.
"""

from __future__ import annotations

from wpa.adapters.memory.clock import VirtualClock
from wpa.adapters.memory.inlets import MemoryInlets
from wpa.adapters.memory.journal import MemoryJournal
from wpa.adapters.memory.live import MemoryLive
from wpa.adapters.memory.server import Connection, MemoryServer
from wpa.adapters.memory.stores import MemoryBlobs, MemoryDefinitions, MemoryRecords, MemorySnapshots
from wpa.adapters.memory.tasks import MemoryTasks
from wpa.adapters.memory.timers import MemoryTimers
from wpa.ports import Ports

__all__ = ["MemoryServer", "VirtualClock", "open_ports"]


async def open_ports(server: MemoryServer | None = None, *, ack_wait_s: float = 5.0) -> Ports:
    """Connect to ``server``, or to a new one of its own, and open every port.

    ``ack_wait_s`` is how long a lease lasts without ``extend``; as on the server, whoever opens a source's
    feed and wants it longest decides for all.
    """
    server = server or MemoryServer()
    connection = Connection(server)
    return Ports(
        journal=MemoryJournal(connection),
        snapshots=MemorySnapshots(connection),
        tasks=MemoryTasks(connection, ack_wait_s),
        inlets=MemoryInlets(connection, ack_wait_s),
        timers=MemoryTimers(connection),
        definitions=MemoryDefinitions(connection),
        records=MemoryRecords(connection),
        blobs=MemoryBlobs(connection),
        live=MemoryLive(connection),
        clock=server.clock,
        close=connection.close,
    )
