"""The live port: what is seen by whoever is listening now, and stored nowhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

__all__ = ["Live", "OnMessage", "OnNudge", "Unsubscribe"]

OnNudge = Callable[[str, str, int, str], Awaitable[None]]
"""(tenant, execution, epoch, reason)"""

OnMessage = Callable[[str, bytes, dict[str, str]], None]
"""(subject, data, headers): called for one message after the other; must not block."""

Unsubscribe = Callable[[], Awaitable[None]]
"""Ends a subscription. Idempotent."""


class Live(Protocol):
    """Best effort, at most once; publishing never waits for the network."""

    def publish_event(self, tenant: str, execution: str, body: dict[str, Any]) -> None:
        """On ``workflow.events.<tenant>.<execution>.live``."""
        ...

    def publish(self, subject: str, data: bytes) -> None:
        """On any subject the caller has already checked."""
        ...

    def nudge(self, worker: str, tenant: str, execution: str, epoch: int, reason: str = "") -> None:
        """Tell a worker that an execution it may drive has changed.

        ``reason`` is a hint, never the truth, which is the journal: ``taken_over`` (a newer driver, of
        ``epoch``), ``news`` (somebody else appended to the journal), ``cancel``, or "" for none.
        """
        ...

    async def on_nudge(self, worker: str, callback: OnNudge) -> None:
        """Call back with (tenant, execution, epoch, reason) at every nudge for ``worker``.

        With no execution where some may have been missed, of any: the connection was lost, and is back.
        """
        ...

    async def watch(self, pattern: str, callback: OnMessage, queue: str = "") -> Unsubscribe:
        """Hear of every message that is published on matching subjects from now on.

        Args:
            pattern: a subject, which may hold ``*`` (one token) and ``>`` (the rest).
            callback: called in the order of arrival. What it raises is logged.
            queue: of all who watch under one queue name, each message reaches one; "" reaches each.

        Returns what ends it. Raises Unavailable while there is no connection.
        """
        ...
