"""The ports: all that the engine asks of the world outside, as small Protocols.

Each has an in-memory adapter and one on NATS, and one contract suite (``tests/contract/``) holds
both to the same behaviour.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from wpa.ports.blobs import Blobs
from wpa.ports.clock import Clock
from wpa.ports.definitions import Definitions
from wpa.ports.inlets import Inlets
from wpa.ports.journal import Journal
from wpa.ports.live import Live
from wpa.ports.records import Records
from wpa.ports.snapshots import Snapshots
from wpa.ports.tasks import TaskQueue
from wpa.ports.timers import Timers

__all__ = ["Ports"]


@dataclass(frozen=True)
class Ports:
    """One of each, opened together and closed together."""

    journal: Journal
    snapshots: Snapshots
    tasks: TaskQueue
    inlets: Inlets
    timers: Timers
    definitions: Definitions
    records: Records
    blobs: Blobs
    live: Live
    clock: Clock
    close: Callable[[], Awaitable[None]]
    lags: Callable[[], bool] = field(default=lambda: False, kw_only=True)
    """Whether a read may miss by now what was stored a moment ago: of replicas, any may answer."""

    async def aclose(self) -> None:
        """Let go of whatever the adapters hold."""
        await self.close()
