"""The tracing port: one span for each attempt at a step, under the execution's trace."""

from __future__ import annotations

from typing import Protocol

from wpa.model.events import Failure

__all__ = ["Tracer"]


class Tracer(Protocol):
    """Recording a span never waits and never raises: observing must not change what is observed."""

    def attempt(
        self,
        traceparent: str,
        name: str,
        started_ms: int,
        ended_ms: int,
        attributes: dict[str, str | int],
        error: Failure | None,
    ) -> None:
        """An attempt has ended. Times in milliseconds since the Unix epoch."""
        ...

    def close(self) -> None:
        """Export what is still to be exported."""
        ...
