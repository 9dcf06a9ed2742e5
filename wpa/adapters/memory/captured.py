"""Streams that belong to users: what is published on their subjects is kept, and read through inlets."""

from __future__ import annotations

from collections.abc import Callable

from wpa.adapters.memory.consumer import Consumer
from wpa.adapters.memory.storage import Message, Stream
from wpa.model.subjects import matches
from wpa.ports.clock import Clock
from wpa.ports.inlets import Inlet
from wpa.ports.tasks import Source

__all__ = ["CapturedStream", "InletConsumer"]


class CapturedStream:
    """A user's stream: its messages, for ever, and the inlets in it."""

    def __init__(self, clock: Clock, subjects: tuple[str, ...]) -> None:
        self.subjects = subjects
        self.inlets: dict[str, InletConsumer] = {}
        self._clock = clock
        self._kept = _Kept(clock, duplicate_window_ms=0)  # as short as an owner may make it

    def take(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
        """Keep what was published, if it is on one of the stream's subjects."""
        if any(matches(pattern, subject) for pattern in self.subjects):
            self._kept.append(subject, data, headers)
            for consumer in self.inlets.values():
                consumer.wake()

    def add(self, inlet: Inlet, since_ms: int | None, ack_wait_s: float) -> None:
        """Make an inlet that begins with what was stored since then, or with the first; once."""
        if inlet.name not in self.inlets:
            after = 0 if since_ms is None else self._kept.before(min(since_ms, self._clock.now_ms() + 1))
            consumer = InletConsumer(self._kept, self._clock, inlet, after)
            consumer.lengthen(ack_wait_s)
            self.inlets[inlet.name] = consumer

    def remove(self, inlet: Inlet) -> None:
        """Forget an inlet; tell those that have it open."""
        consumer = self.inlets.pop(inlet.name, None)
        if consumer is not None:
            consumer.end()

    def end(self) -> None:
        """The stream is deleted, and its inlets with it."""
        for consumer in self.inlets.values():
            consumer.end()
        self.inlets.clear()


class _Kept(Stream):
    """What a stream has captured. Answers don't take anything away."""

    def first(self, subject: str, after: int) -> Message | None:
        """The first message past a sequence whose subject matches."""
        sequence = after + 1
        while (message := self.get(sequence)) is not None:
            if matches(subject, message.subject):
                return message
            sequence += 1
        return None

    def before(self, moment_ms: int) -> int:
        """The last sequence that was stored before a moment; 0 where there is none."""
        sequence = 0
        while (message := self.get(sequence + 1)) is not None and message.stored_ms < moment_ms:
            sequence += 1
        return sequence

    def remove(self, sequence: int) -> None:
        """Nothing: other inlets may read it yet."""


class InletConsumer(Consumer):
    """One inlet's place, shared by all who have it open."""

    def __init__(self, kept: _Kept, clock: Clock, inlet: Inlet, after: int) -> None:
        super().__init__(kept, clock, Source(inlet.tenant))
        self._subject = inlet.filter
        self._cursor = after
        self._lost: list[Callable[[], None]] = []
        self.ended = False

    def on_lost(self, lost: Callable[[], None]) -> Callable[[], None]:
        """Call back when the inlet is gone. The answer ends that."""
        self._lost.append(lost)

        def forget() -> None:
            if lost in self._lost:
                self._lost.remove(lost)

        return forget

    def end(self) -> None:
        """Deliver nothing any more."""
        self.ended = True
        for feed in list(self._feeds):
            self.leave(feed)
        for lost in list(self._lost):
            lost()
