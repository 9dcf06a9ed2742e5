"""What the adapters in memory share: the streams, buckets and subjects of a server that isn't there.

As on the real one, a stored message is seen by core subscribers, too, and nobody hears of anything
before its publisher has given up the event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import types
from collections.abc import Callable, Generator
from typing import NamedTuple

from wpa.adapters.clock import SystemClock
from wpa.adapters.memory.captured import CapturedStream
from wpa.adapters.memory.consumer import Consumer
from wpa.adapters.memory.schedules import Schedules
from wpa.adapters.memory.storage import Bucket, Stream
from wpa.errors import Unavailable
from wpa.model.subjects import matches
from wpa.ports.clock import Clock
from wpa.ports.tasks import Source

__all__ = ["Connection", "Listener", "MemoryServer"]

log = logging.getLogger("wpa.memory")

Listener = Callable[[str, bytes, dict[str, str]], None]
"""(subject, data, headers), called in order on the event loop."""


class _Subscription(NamedTuple):
    pattern: str
    prefix: str
    """What every subject begins with that matches; most that don't, don't."""
    listener: Listener
    queue: str


class MemoryServer:
    """All that outlives a connection. Everything takes place on one event loop."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.events = Stream(self.clock)
        self.tasks = Stream(self.clock)
        self.dead = Stream(self.clock)
        self.due = Stream(self.clock)
        self.schedules = Schedules(self.clock, self._ring)
        self.executions = Bucket()
        self.definitions = Bucket()
        self.records = Bucket()
        self.blobs: dict[str, bytes] = {}
        self.captured: dict[str, CapturedStream] = {}
        """Users' streams."""
        self._consumers: dict[Source, Consumer] = {}
        self._subscriptions: dict[int, _Subscription] = {}
        """In the order in which they were made, but for queues, whose members take turns."""
        self._numbers = itertools.count()
        self._listening: dict[str, list[int]] = {}
        """By subject, the numbers of the subscriptions that match; forgotten when those change."""

    def consumer(self, source: Source) -> Consumer:
        """The source's consumer: made at the first question, and there for ever."""
        consumer = self._consumers.get(source)
        if consumer is None:
            stream = self.due if source.kind == "due" else self.tasks
            consumer = self._consumers[source] = Consumer(stream, self.clock, source)
        return consumer

    @property
    def consumers(self) -> list[Consumer]:
        """All that were asked for."""
        return list(self._consumers.values())

    def add_stream(self, name: str, *subjects: str) -> None:
        """Make a user's stream, which keeps what is published on ``subjects`` from now on."""
        self.captured[name] = CapturedStream(self.clock, subjects)

    def delete_stream(self, name: str) -> None:
        """Delete a user's stream, with all that it holds."""
        self.captured.pop(name).end()

    def _ring(self, tenant: str, body: bytes, headers: dict[str, str]) -> None:
        """An alarm or a schedule is due. As on the server, core subscribers don't hear of it."""
        source = Source(tenant, "due")
        self.due.append(source.subject, body, headers)
        self.consumer(source).wake()

    def subscribe(self, pattern: str, listener: Listener, queue: str = "") -> Callable[[], None]:
        """Hear of every message on matching subjects from now on. The answer ends it.

        Of all subscriptions under one ``queue`` that match a message, one gets it.
        """
        number = next(self._numbers)
        prefix = pattern.split("*")[0].rstrip(">")
        self._subscriptions[number] = _Subscription(pattern, prefix, listener, queue)
        self._listening.clear()

        def end() -> None:
            if self._subscriptions.pop(number, None) is not None:
                self._listening.clear()

        return end

    def publish(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> None:
        """Tell whoever listens now; users' streams keep it."""
        for stream in self.captured.values():
            stream.take(subject, data, headers or {})
        numbers = self._listening.get(subject)
        if numbers is None:
            numbers = self._listening[subject] = [
                number
                for number, subscription in self._subscriptions.items()
                if subject.startswith(subscription.prefix) and matches(subscription.pattern, subject)
            ]
        if not numbers:
            return
        loop = asyncio.get_running_loop()
        served: set[str] = set()
        for number in numbers:
            queue = self._subscriptions[number].queue
            if queue in served:
                continue
            if queue:
                served.add(queue)
                # To the end: its turn comes again after the others'.
                self._subscriptions[number] = self._subscriptions.pop(number)
                self._listening.clear()
            loop.call_soon(self._tell, number, subject, data, headers or {})

    def _tell(self, number: int, subject: str, data: bytes, headers: dict[str, str]) -> None:
        subscription = self._subscriptions.get(number)
        if subscription is None:
            return
        try:
            subscription.listener(subject, data, headers)
        except Exception:
            log.exception("a listener failed on %s", subject)


class Connection:
    """One client's way to the server, and what ends with it."""

    def __init__(self, server: MemoryServer) -> None:
        self.server = server
        self.open = True
        self._at_close: list[Callable[[], None]] = []

    @types.coroutine
    def turn(self) -> Generator[None, None, None]:
        """What the network does to every call: let the others run first. Raises Unavailable when closed.

        It is ``asyncio.sleep(0)`` without the detours: simulations take many thousand turns.
        """
        yield
        if not self.open:
            raise Unavailable("the connection is closed")

    def subscribe(self, pattern: str, listener: Listener, queue: str = "") -> Callable[[], None]:
        """As :meth:`MemoryServer.subscribe`; the connection's end ends it, too."""
        end = self.server.subscribe(pattern, listener, queue)
        self._at_close.append(end)
        return end

    def at_close(self, callback: Callable[[], None]) -> None:
        self._at_close.append(callback)

    async def close(self) -> None:
        """Gone: its subscriptions, its feeds. What it leased stays leased until its time runs out."""
        self.open = False
        for callback in self._at_close:
            callback()
        self._at_close.clear()
