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

from wpa.errors import InvalidName, StepFailed
from wpa.hooks.specs import hookimpl
from wpa.hooks.steps import step
from wpa.model.ids import check_emit_subject
from wpa.ports.steps import StepContext, StepType

__all__ = ["StepContext", "StepFailed", "StepType", "fake_context", "hookimpl", "step"]


class FakeContext:
    """A context for unit tests: no server, and everything published is kept for the test to look at.

    ``reported`` holds (percentage, message, data) of each progress report, ``emitted`` (subject, data) of
    each emission, ``heartbeats`` their number.
    """

    def __init__(
        self,
        *,
        tenant: str = "test",
        workflow: str = "test",
        execution: str = "test-1",
        step: str = "step",
        attempt: int = 1,
        metadata: dict[str, Any] | None = None,
        idempotency_key: str = "",
    ) -> None:
        self.tenant = tenant
        self.workflow = workflow
        self.execution = execution
        self.step = step
        self.attempt = attempt
        self.metadata: dict[str, Any] = metadata or {}
        self.idempotency_key = idempotency_key or f"{execution}:{step}:1"
        self.log = logging.LoggerAdapter(logging.getLogger("wpa.step"), {})
        self.cancelled = False
        self.reported: list[tuple[float, str, dict[str, Any]]] = []
        self.emitted: list[tuple[str, Any]] = []
        self.heartbeats = 0

    async def progress(self, percentage: float, message: str = "", **data: Any) -> None:
        self.reported.append((percentage, message, data))

    def progress_sync(self, percentage: float, message: str = "", **data: Any) -> None:
        self.reported.append((percentage, message, data))

    async def emit(self, subject: str, data: Any) -> str:
        try:
            check_emit_subject(subject)
        except InvalidName as error:
            raise StepFailed(error.message, type="InvalidInput", retryable=False) from None
        self.emitted.append((subject, data))
        return f"workflow.emit.{self.tenant}.{subject}"

    def heartbeat(self) -> None:
        self.heartbeats += 1


def fake_context(**fields: Any) -> FakeContext:
    """A :class:`StepContext` for calling a step in a unit test.

    Args:
        fields: any of tenant, workflow, execution, step, attempt, metadata and idempotency_key.
    """
    return FakeContext(**fields)
