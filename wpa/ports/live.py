"""The live port: events that are seen by whoever is listening now, and stored nowhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

__all__ = ["Live"]


class Live(Protocol):
    """Best effort, at most once; publishing never waits for the network."""

    def publish_event(self, tenant: str, execution: str, body: dict[str, Any]) -> None:
        """On ``workflow.events.<tenant>.<execution>.live``."""
        ...

    def publish(self, subject: str, data: bytes) -> None:
        """On any subject the caller has already checked."""
        ...

    def nudge(self, worker: str, tenant: str, execution: str, epoch: int) -> None:
        """Tell a worker that an execution it may drive has news, or a newer driver."""
        ...

    async def on_nudge(self, worker: str, callback: Callable[[str, str, int], Awaitable[None]]) -> None:
        """Call back with (tenant, execution, epoch) at every nudge for ``worker``."""
        ...
