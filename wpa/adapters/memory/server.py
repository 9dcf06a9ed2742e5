"""What the adapters in memory share: the streams, buckets and subjects of a server that isn't there.

As on the real one, a stored message is seen by core subscribers, too, and nobody hears of anything
before its publisher has given up the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from wpa.adapters.clock import SystemClock
from wpa.adapters.memory.consumer import Consumer
from wpa.adapters.memory.storage import Bucket, Stream, matches
from wpa.errors import Unavailable
from wpa.ports.clock import Clock

__all__ = ["Connection", "Listener", "MemoryServer"]

log = logging.getLogger("wpa.memory")

Listener = Callable[[str, bytes, dict[str, str]], None]
"""(subject, data, headers), called in order on the event loop."""


class MemoryServer:
    """All that outlives a connection. Everything takes place on one event loop."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.events = Stream(self.clock)
        self.tasks = Stream(self.clock)
        self.dead = Stream(self.clock)
        self.executions = Bucket()
        self.definitions = Bucket()
        self.blobs: dict[str, bytes] = {}
        self._consumers: dict[str, Consumer] = {}
        self._listeners: list[tuple[str, Listener]] = []

    def consumer(self, tenant: str) -> Consumer:
        """The tenant's consumer: made at the first question, and there for ever."""
        consumer = self._consumers.get(tenant)
        if consumer is None:
            consumer = self._consumers[tenant] = Consumer(self.tasks, self.clock, tenant)
        return consumer

    def subscribe(self, pattern: str, listener: Listener) -> Callable[[], None]:
        """Hear of every message on matching subjects from now on. The answer ends it."""
        entry = (pattern, listener)
        self._listeners.append(entry)
        return lambda: self._listeners.remove(entry) if entry in self._listeners else None

    def publish(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> None:
        """Tell whoever listens now."""
        loop = asyncio.get_running_loop()
        for entry in self._listeners:
            if matches(entry[0], subject):
                loop.call_soon(self._tell, entry, subject, data, headers or {})

    def _tell(self, entry: tuple[str, Listener], subject: str, data: bytes, headers: dict[str, str]) -> None:
        if entry not in self._listeners:
            return
        try:
            entry[1](subject, data, headers)
        except Exception:
            log.exception("a listener failed on %s", subject)


class Connection:
    """One client's way to the server, and what ends with it."""

    def __init__(self, server: MemoryServer) -> None:
        self.server = server
        self.open = True
        self._at_close: list[Callable[[], None]] = []

    async def turn(self) -> None:
        """What the network does to every call: let the others run first. Raises Unavailable when closed."""
        await asyncio.sleep(0)
        if not self.open:
            raise Unavailable("the connection is closed")

    def subscribe(self, pattern: str, listener: Listener) -> None:
        self._at_close.append(self.server.subscribe(pattern, listener))

    def at_close(self, callback: Callable[[], None]) -> None:
        self._at_close.append(callback)

    async def close(self) -> None:
        """Gone: its subscriptions, its feeds. What it leased stays leased until its time runs out."""
        self.open = False
        for callback in self._at_close:
            callback()
        self._at_close.clear()
