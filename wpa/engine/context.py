"""What a running step is given. One for each attempt; cheap to make, because most are never asked."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec

from wpa.model import events as ev
from wpa.model.times import rfc3339
from wpa.ports.clock import Clock
from wpa.ports.live import Live

__all__ = ["Context", "StepCall"]

PROGRESS_PER_S = 20.0
PROGRESS_BURST = 50.0

_STEPS = logging.getLogger("wpa.step")


class StepCall(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at one slot, as the driver asks for it."""

    tenant: str
    workflow: str
    execution: str
    step: str
    slot: str
    uses: str
    inputs: Any
    attempt: int
    idempotency_key: str
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    timeout_s: float | None = None


class _BoundLogger(logging.LoggerAdapter[logging.Logger]):
    """Puts the execution's names in front of each line, and into the record for structured handlers."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        extra = self.extra or {}
        return f"[{extra['tenant']}.{extra['execution']} {extra['step']}#{extra['attempt']}] {msg}", kwargs


class Context:
    """See :class:`wpa.ports.steps.StepContext`."""

    def __init__(
        self, call: StepCall, live: Live, clock: Clock, worker: str, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._call = call
        self._live = live
        self._clock = clock
        self._worker = worker
        self._loop = loop
        self._log: _BoundLogger | None = None
        self._allowance = PROGRESS_BURST
        self._reported_at = 0.0

    @property
    def tenant(self) -> str:
        return self._call.tenant

    @property
    def workflow(self) -> str:
        return self._call.workflow

    @property
    def execution(self) -> str:
        return self._call.execution

    @property
    def step(self) -> str:
        return self._call.step

    @property
    def attempt(self) -> int:
        return self._call.attempt

    @property
    def idempotency_key(self) -> str:
        return self._call.idempotency_key

    @property
    def metadata(self) -> dict[str, Any]:
        return self._call.metadata

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        if self._log is None:
            fields = ("tenant", "workflow", "execution", "step", "attempt")
            self._log = _BoundLogger(_STEPS, {name: getattr(self._call, name) for name in fields})
        return self._log

    async def progress(self, percentage: float, message: str = "", **data: Any) -> None:
        self._progress(percentage, message, data)

    def progress_sync(self, percentage: float, message: str = "", **data: Any) -> None:
        self._loop.call_soon_threadsafe(self._progress, percentage, message, data)

    def heartbeat(self) -> None:
        self._loop.call_soon_threadsafe(self._publish, {"event": "step_heartbeat"})

    async def emit(self, subject: str, data: Any) -> str:
        whole = f"workflow.emit.{self._call.tenant}.{subject}"
        self._live.publish(whole, msgspec.json.encode(data))
        return whole

    def _progress(self, percentage: float, message: str, data: dict[str, Any]) -> None:
        now = self._clock.monotonic_s()
        # A step may report as often as it likes; watchers see a burst, then so many a second, and the end.
        earned = (now - self._reported_at) * PROGRESS_PER_S
        self._reported_at = now
        self._allowance = min(PROGRESS_BURST, self._allowance + earned)
        if percentage < 100 and self._allowance < 1:
            return
        self._allowance -= 1
        share = min(100.0, max(0.0, float(percentage)))
        body = {"event": ev.LIVE_PROGRESS, "percentage": share, "message": str(message)[:500]}
        if data:
            body["data"] = data
        self._publish(body)

    def _publish(self, body: dict[str, Any]) -> None:
        call = self._call
        names = {
            "tenant_id": call.tenant,
            "workflow_id": call.workflow,
            "execution_id": call.execution,
            "step": call.step,
            "slot": call.slot,
            "attempt": call.attempt,
            "timestamp": rfc3339(self._clock.now_ms()),
            "worker": self._worker,
        }
        try:
            self._live.publish_event(call.tenant, call.execution, {**body, **names})
        except (TypeError, ValueError, RecursionError) as error:
            self.log.warning("this progress can't be published: %s", error)
