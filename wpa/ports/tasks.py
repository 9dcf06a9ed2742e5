"""The task port: a work queue for each tenant. The unacknowledged message is the lease."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["Feed", "Lease", "TaskQueue"]


class Lease(Protocol):
    """A task message in hand. Until it is acked, or its time runs out, nobody else gets it.

    ``ack``, ``nak`` and ``extend`` are sent, not awaited: a lost one is healed by redelivery.
    """

    @property
    def tenant(self) -> str: ...
    @property
    def data(self) -> bytes: ...
    @property
    def headers(self) -> dict[str, str]: ...
    @property
    def sequence(self) -> int:
        """The message's place in the queue's stream: its identity over redeliveries."""
        ...

    @property
    def identity(self) -> str:
        """Names this message for ever: the same over redeliveries, never another's. A subject token."""
        ...

    @property
    def delivered(self) -> int:
        """1 at the first delivery."""
        ...

    def ack(self) -> None: ...
    def nak(self, delay_s: float = 0.0) -> None: ...
    def extend(self) -> None: ...


class Feed(Protocol):
    """A tenant's tasks, delivered as they come, never more than were asked for."""

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

    async def tenants(self) -> set[str]:
        """The tenants that have tasks waiting. May lag by a moment."""
        ...

    async def open(self, tenant: str, deliver: Callable[[Lease], None]) -> Feed:
        """Start feeding the tenant's tasks to ``deliver``."""
        ...

    async def bury(self, tenant: str, data: bytes, headers: dict[str, str]) -> int:
        """Store a rejected task, untouched, in the dead-letter subject, with its reason as headers."""
        ...

    async def buried(self, tenant: str, limit: int) -> list[tuple[int, bytes, dict[str, str]]]:
        """The newest dead letters: sequence, original bytes, headers."""
        ...

    async def exhume(self, tenant: str, sequence: int) -> tuple[bytes, dict[str, str]] | None:
        """One dead letter by its sequence, or None."""
        ...

    async def discard(self, tenant: str, sequence: int) -> None:
        """Remove a dead letter (after it was retried)."""
        ...
