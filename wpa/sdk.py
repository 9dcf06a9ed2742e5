"""All that a plugin author imports.

::

    from wpa.sdk import StepContext, StepFailed, hookimpl, step

    @step("payments.charge")
    async def charge(ctx: StepContext, order_id: str, amount_cents: int) -> Receipt: ...

    @hookimpl
    def wpa_steps():
        return [charge]
"""

from __future__ import annotations

import logging
from typing import Any

from wpa.errors import StepFailed
from wpa.hooks.specs import hookimpl
from wpa.hooks.steps import step
from wpa.ports.steps import StepContext, StepType

__all__ = ["StepContext", "StepFailed", "StepType", "fake_context", "hookimpl", "step"]


class FakeContext:
    """A context for unit tests: no server, and everything published is kept for the test to look at."""

    def __init__(self, **fields: Any) -> None:
        self.tenant: str = fields.get("tenant", "test")
        self.workflow: str = fields.get("workflow", "test")
        self.execution: str = fields.get("execution", "test-1")
        self.step: str = fields.get("step", "step")
        self.attempt: int = fields.get("attempt", 1)
        self.metadata: dict[str, Any] = fields.get("metadata", {})
        self.idempotency_key: str = fields.get("idempotency_key", f"{self.execution}:{self.step}:1")
        self.log = logging.LoggerAdapter(logging.getLogger("wpa.step"), {})
        self.reported: list[tuple[float, str, dict[str, Any]]] = []
        self.emitted: list[tuple[str, Any]] = []
        self.heartbeats = 0

    async def progress(self, percentage: float, message: str = "", **data: Any) -> None:
        self.reported.append((percentage, message, data))

    def progress_sync(self, percentage: float, message: str = "", **data: Any) -> None:
        self.reported.append((percentage, message, data))

    async def emit(self, subject: str, data: Any) -> str:
        self.emitted.append((subject, data))
        return f"workflow.emit.{self.tenant}.{subject}"

    def heartbeat(self) -> None:
        self.heartbeats += 1


def fake_context(**fields: Any) -> FakeContext:
    """A :class:`StepContext` for calling a step in a unit test; ``fields`` set its attributes."""
    return FakeContext(**fields)
