"""What a running step is given. One for each attempt; cheap to make, because most are never asked.

What a step says of itself is for whoever listens now: best effort, bounded in rate and size, so that a
chatty step costs its neighbours nothing. Of what is held back, the newest report is always published: a
moment later, or at the end of the attempt. An attempt that has ended (one abandoned in its thread, say) is
heard no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import msgspec

from wpa.errors import InvalidName, StepFailed
from wpa.model import events as ev
from wpa.model.ids import check_emit_subject
from wpa.model.recordable import check_integers
from wpa.model.times import rfc3339
from wpa.ports.clock import Clock
from wpa.ports.live import Live

__all__ = ["Context", "StepCall", "bound_logger", "emission"]

PROGRESS_PER_S = 20.0
PROGRESS_BURST = 50.0
MESSAGE_CHARS_MAX = 500
DATA_BYTES_MAX = 64 * 1024
EMIT_BYTES_MAX = 512 * 1024
"""Half of what a NATS server takes unless configured otherwise; beyond it, it would drop the connection."""

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
    trim: bool = False
    """Leave out the inputs that the step doesn't take."""


class _BoundLogger(logging.LoggerAdapter[logging.Logger]):
    """Puts the execution's names in front of each line, and into the record for structured handlers."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        extra = self.extra or {}
        kwargs["extra"] = {**extra, **(kwargs.get("extra") or {})}
        return f"[{extra['tenant']}.{extra['execution']} {extra['step']}#{extra['attempt']}] {msg}", kwargs


def bound_logger(call: StepCall) -> logging.LoggerAdapter[logging.Logger]:
    """The logger of one attempt."""
    fields = ("tenant", "workflow", "execution", "step", "attempt")
    return _BoundLogger(_STEPS, {name: getattr(call, name) for name in fields})


def emission(tenant: str, subject: str, data: Any) -> tuple[str, bytes]:
    """The whole subject and the bytes of what a step emits.

    Raises StepFailed, not retryable, for a subject or data that may not be published.
    """
    try:
        suffix = check_emit_subject(subject)
    except InvalidName as error:
        raise StepFailed(error.message, type="InvalidInput", retryable=False) from None
    try:
        raw = msgspec.json.encode(data)
        check_integers(raw)
    except (TypeError, ValueError, RecursionError) as error:
        message = f"what is emitted on {suffix} can't be sent as JSON: {error}"
        raise StepFailed(message, type="InvalidInput", retryable=False) from None
    if len(raw) > EMIT_BYTES_MAX:
        message = f"{len(raw)} bytes are emitted on {suffix}; the most is {EMIT_BYTES_MAX}"
        raise StepFailed(message, type="InvalidInput", retryable=False)
    return f"workflow.emit.{tenant}.{suffix}", raw


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
        self._log: logging.LoggerAdapter[logging.Logger] | None = None
        self._allowance = PROGRESS_BURST
        self._reported_at = 0.0
        self._held_back: dict[str, Any] | None = None
        self._later: asyncio.TimerHandle | None = None
        self._closed = False
        self._task: asyncio.Task[Any] | None = None

    def runs_in(self, task: asyncio.Task[Any] | None) -> None:
        """The attempt is made in ``task``, and cancelled as soon as that is."""
        self._task = task

    def close(self) -> None:
        """The attempt has ended: publish what was held back, and nothing more."""
        if self._held_back is not None:
            self._publish_held_back()
        self._closed = True

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
        return dict(self._call.metadata)  # the execution's own must not change under it

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        if self._log is None:
            self._log = bound_logger(self._call)
        return self._log

    # -- what a step says --------------------------------------------------------------------

    async def progress(self, percentage: float, message: str = "", **data: Any) -> None:
        self._report(self._progress(percentage, message, data))

    def progress_sync(self, percentage: float, message: str = "", **data: Any) -> None:
        body = self._progress(percentage, message, data)
        with contextlib.suppress(RuntimeError):  # the loop is closed: an abandoned attempt, long after
            self._loop.call_soon_threadsafe(self._report, body)

    def heartbeat(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._report, {"event": "step_heartbeat"})

    @property
    def cancelled(self) -> bool:
        return self._closed or (self._task is not None and self._task.cancelling() > 0)

    async def emit(self, subject: str, data: Any) -> str:
        whole, raw = emission(self._call.tenant, subject, data)
        self._live.publish(whole, raw)
        return whole

    def _progress(self, percentage: float, message: str, data: dict[str, Any]) -> dict[str, Any]:
        # max before min: max(0.0, nan) is 0.0.
        share = min(100.0, max(0.0, float(percentage)))
        body = {"event": ev.LIVE_PROGRESS, "percentage": share, "message": str(message)[:MESSAGE_CHARS_MAX]}
        if data:
            # Encoded at once: what the step goes on to change is not what it reported.
            try:
                raw = msgspec.json.encode(data)
                if len(raw) > DATA_BYTES_MAX:
                    raise ValueError(f"{len(raw)} bytes; the most is {DATA_BYTES_MAX}")
                check_integers(raw)
                body["data"] = msgspec.Raw(raw)
            except (TypeError, ValueError, RecursionError) as error:
                self.log.warning("progress is published without its data: %s", error)
        return body

    def _report(self, body: dict[str, Any]) -> None:
        if self._closed:
            return
        now = self._clock.monotonic_s()
        # A step may report as often as it likes; watchers see a burst, then so many a second, and the last.
        earned = (now - self._reported_at) * PROGRESS_PER_S
        self._reported_at = now
        self._allowance = min(PROGRESS_BURST, self._allowance + earned)
        if self._allowance >= 1 and self._later is None:
            self._allowance -= 1
            self._publish(body)
        elif body["event"] == ev.LIVE_PROGRESS:
            self._held_back = body
            if self._later is None:
                self._later = self._loop.call_later(1 / PROGRESS_PER_S, self._publish_held_back)

    def _publish_held_back(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        body, self._held_back = self._held_back, None
        if body is not None:
            self._allowance = max(0.0, self._allowance - 1)
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
