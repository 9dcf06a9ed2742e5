"""What the adapters in memory share: the streams, buckets and subjects of a server that isn't there.

It keeps to what was measured of the real one: sequences grow over a whole stream, not over one
subject; an expected last sequence is that of the subject, 0 where it holds nothing; a stored message
is seen by core subscribers, too; nothing is delivered before the publisher has given up the loop.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from wpa.adapters.clock import SystemClock
from wpa.errors import Conflict, Unavailable
from wpa.ports.clock import Clock

if TYPE_CHECKING:
    from wpa.adapters.memory.tasks import Consumer

__all__ = ["Bucket", "Connection", "MemoryServer", "Message", "Stream", "matches"]

log = logging.getLogger("wpa.memory")


class Message(NamedTuple):
    """A stored message."""

    sequence: int
    subject: str
    data: bytes
    headers: dict[str, str]
    stored_ms: int


Listener = Callable[[str, bytes, dict[str, str]], None]
"""(subject, data, headers), called in order on the event loop."""


def matches(pattern: str, subject: str) -> bool:
    """Whether ``subject`` is one of ``pattern``, which may hold ``*`` (one token) and ``>`` (the rest)."""
    wanted, tokens = pattern.split("."), subject.split(".")
    for place, want in enumerate(wanted):
        if want == ">":
            return len(tokens) > place
        if place >= len(tokens) or want not in ("*", tokens[place]):
            return False
    return len(wanted) == len(tokens)


class Stream:
    """Messages in one order over all subjects."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0
        self._messages: dict[int, Message] = {}
        self._subjects: dict[str, list[int]] = {}

    def append(self, subject: str, data: bytes, headers: dict[str, str], after: int | None = None) -> Message:
        """Store a message, if ``after`` is its subject's last sequence. Raises Conflict otherwise."""
        sequences = self._subjects.get(subject, [])
        last = sequences[-1] if sequences else 0
        if after is not None and after != last:
            raise Conflict(f"{subject}: the last sequence is {last}, not {after}")
        self._last += 1
        message = Message(self._last, subject, data, headers, self._clock.now_ms())
        self._messages[self._last] = message
        self._subjects.setdefault(subject, []).append(self._last)
        return message

    def get(self, sequence: int) -> Message | None:
        return self._messages.get(sequence)

    def read(self, subject: str, after: int = 0) -> list[Message]:
        """The subject's messages past a sequence, in order."""
        sequences = self._subjects.get(subject, [])
        return [self._messages[sequence] for sequence in sequences[bisect_left(sequences, after + 1) :]]

    def remove(self, sequence: int) -> None:
        message = self._messages.pop(sequence, None)
        if message is not None:
            sequences = self._subjects[message.subject]
            del sequences[bisect_left(sequences, sequence)]
            if not sequences:
                del self._subjects[message.subject]

    def last_messages(self, pattern: str) -> list[Message]:
        """The last message of each subject that matches, the newest first."""
        last = [seqs[-1] for subject, seqs in self._subjects.items() if matches(pattern, subject)]
        return [self._messages[sequence] for sequence in sorted(last, reverse=True)]

    @property
    def subjects(self) -> list[str]:
        return list(self._subjects)


class Bucket:
    """Values by key, replaced by compare-and-set on a revision that grows over the whole bucket."""

    def __init__(self) -> None:
        self._revision = 0
        self._values: dict[str, tuple[bytes, int]] = {}

    def get(self, key: str) -> tuple[bytes, int] | None:
        return self._values.get(key)

    def put(self, key: str, value: bytes, revision: int | None = None) -> int:
        """Replace ``revision`` (0: none yet; None: whatever is there). Raises Conflict."""
        found = self._values.get(key)
        now = found[1] if found else 0
        if revision is not None and revision != now:
            raise Conflict(f"{key}: the revision is {now}, not {revision}")
        self._revision += 1
        self._values[key] = (value, self._revision)
        return self._revision

    def keys(self) -> list[str]:
        return list(self._values)


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
        self.consumers: dict[str, Consumer] = {}
        self._listeners: list[tuple[str, Listener]] = []

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
