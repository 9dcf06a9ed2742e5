"""The task port: work queues for each tenant. The unacknowledged message is the lease."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import msgspec

__all__ = ["Feed", "Lease", "Source", "SourceKind", "TaskQueue"]

SourceKind = Literal["tasks", "due", "steps"]


class Source(msgspec.Struct, frozen=True):
    """What a feed is fed from: one work queue.

    Args:
        tenant: whose it is.
        kind: ``tasks``, what is asked of wpa; ``due``, the alarms that rang
            (:class:`wpa.ports.timers.Timers`); ``steps``, those meant for the workers that serve
            ``queue``.
        queue: 1 to 32 of A-Z, a-z, 0-9, _ and -; of steps only.
    """

    tenant: str
    kind: SourceKind = "tasks"
    queue: str = ""

    def __post_init__(self) -> None:
        if (self.kind == "steps") != bool(self.queue):
            raise ValueError(
                f"a source of {self.kind} with queue {self.queue!r}: steps, and only they, have one"
            )

    @classmethod
    def of(cls, source: Source | str) -> Source:
        """``source`` itself, or the tasks of the tenant that it names."""
        return cls(source) if isinstance(source, str) else source

    @property
    def subject(self) -> str:
        """The one subject that it reads."""
        subject = f"workflow.{self.kind}.{self.tenant}"
        return f"{subject}.{self.queue}" if self.queue else subject


class Lease(Protocol):
    """A task message in hand. Until it is acked, or its time runs out, nobody else gets it.

    ``ack``, ``nak`` and ``extend`` are sent, not awaited: a lost one is healed by redelivery.
    """

    @property
    def source(self) -> Source: ...
    @property
    def tenant(self) -> str:
        """The source's tenant."""
        ...

    @property
    def data(self) -> bytes: ...
    @property
    def headers(self) -> dict[str, str]:
        """The publisher's own."""
        ...

    @property
    def sequence(self) -> int:
        """The message's place in the queue's stream: its identity over redeliveries."""
        ...

    @property
    def identity(self) -> str:
        """Names this message for ever: the same over redeliveries, never another's, whatever its source.

        A subject token. Each firing of a schedule is a message of its own.
        """
        ...

    @property
    def delivered(self) -> int:
        """1 at the first delivery."""
        ...

    @property
    def stored_ms(self) -> int:
        """When the message was stored, by the server's clock, in milliseconds since the Unix epoch."""
        ...

    def ack(self) -> None: ...
    def nak(self, delay_s: float = 0.0) -> None: ...
    def extend(self) -> None: ...


class Feed(Protocol):
    """A source's messages, delivered as they come, never more than were asked for."""

    def request(self, count: int) -> None:
        """Allow ``count`` more deliveries."""
        ...

    async def close(self) -> None:
        """Ask for no more; what was delivered stays leased to its holder."""
        ...


class TaskQueue(Protocol):
    async def publish(self, tenant: str, data: bytes, headers: dict[str, str]) -> int:
        """Store a task and return its sequence. Raises Unavailable when the outcome is unknown."""
        ...

    async def publish_step(self, tenant: str, queue: str, data: bytes, headers: dict[str, str]) -> int:
        """Store a step for the workers that serve ``queue``; otherwise as :meth:`publish`."""
        ...

    async def tenants(self) -> set[str]:
        """The tenants that have tasks, or alarms that rang, waiting. May lag by a moment."""
        ...

    async def queues(self) -> set[tuple[str, str]]:
        """The (tenant, queue) pairs that have steps waiting or running. May lag by a moment."""
        ...

    async def open(self, source: Source | str, deliver: Callable[[Lease], None]) -> Feed:
        """Start feeding what ``source`` holds to ``deliver``; a plain name is that tenant's tasks."""
        ...

    async def bury(self, tenant: str, data: bytes, headers: dict[str, str]) -> int:
        """Store a rejected task, untouched, in the dead-letter subject, with its reason as headers."""
        ...

    async def buried(
        self, tenant: str, limit: int, before: int = 0
    ) -> list[tuple[int, bytes, dict[str, str]]]:
        """The newest dead letters, or the newest before the sequence ``before``: sequence, original bytes,
        headers."""
        ...

    async def exhume(self, tenant: str, sequence: int) -> tuple[bytes, dict[str, str]] | None:
        """One dead letter by its sequence, or None."""
        ...

    async def discard(self, tenant: str, sequence: int) -> None:
        """Remove a dead letter (after it was retried)."""
        ...
