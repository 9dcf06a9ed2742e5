"""Steps that other workers drive and this one runs: those of the queues that it serves.

The step's message is the lease, exactly as for a task: it is kept alive while the attempt is made, and acked
only when its result is stored as a task for the driver. A worker that dies loses the lease, and the next one
of its group makes the attempt again, under the same idempotency key; a result that comes twice counts once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import msgspec

from wpa.engine.outcome import encode
from wpa.engine.runner import StepCall, StepResult
from wpa.engine.services import Services
from wpa.errors import OverLimit, Unavailable
from wpa.model.events import Failure
from wpa.model.tasks import STEP_RESULT, StepResultPayload, StepResultTask, StepTask
from wpa.model.times import parse_ms, rfc3339
from wpa.ports.live import Unsubscribe
from wpa.ports.tasks import Feed, Lease, Source

__all__ = ["RemoteSteps"]

log = logging.getLogger("wpa.worker")

AT_A_TIME: Final = 64
HAND_BACK_S: Final = 1.0
_STEP = msgspec.json.Decoder(StepTask)


class _Stop(msgspec.Struct):
    """Nobody waits for this slot any more."""

    execution_id: str
    slot: str


class RemoteSteps:
    """The steps under way here for drivers elsewhere."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._feeds: dict[Source, Feed] = {}
        self._leases: dict[str, Lease] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._slots: dict[tuple[str, str, str], str] = {}
        """(tenant, execution, slot) to the lease's identity."""
        self._draining = False
        self._watches: list[Unsubscribe] = []
        self._starting: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> set[asyncio.Task[None]]:
        """The attempts under way."""
        return set(self._tasks.values())

    def serve(self, source: Source, feed: Feed) -> None:
        """Take steps from a feed that was opened for :meth:`take`."""
        self._feeds[source] = feed
        watching = asyncio.create_task(self._watch(source))
        self._starting.add(watching)
        watching.add_done_callback(self._starting.discard)
        feed.request(AT_A_TIME)

    async def _watch(self, source: Source) -> None:
        def on_stop(subject: str, data: bytes, headers: dict[str, str]) -> None:
            try:
                stop = msgspec.json.decode(data, type=_Stop)
            except msgspec.DecodeError:
                return
            identity = self._slots.get((source.tenant, stop.execution_id, stop.slot), "")
            if identity in self._tasks:
                self._tasks[identity].cancel()

        pattern = f"workflow.stop.{source.tenant}.{source.queue}"
        self._watches.append(await self._services.ports.live.watch(pattern, on_stop))

    def take(self, lease: Lease) -> None:
        """A step has come."""
        if lease.identity in self._tasks:
            self._leases[lease.identity] = lease  # a heartbeat came too late: the newest lease counts
            self._feeds[lease.source].request(1)
            return
        if self._draining:
            lease.nak()
            return
        self._leases[lease.identity] = lease
        self._tasks[lease.identity] = asyncio.create_task(self._serve(lease))

    def extend(self) -> None:
        """Keep the leases of what is under way alive."""
        for lease in self._leases.values():
            lease.extend()

    def drain(self) -> None:
        """Take no more."""
        self._draining = True

    async def _serve(self, lease: Lease) -> None:
        identity, key = lease.identity, ("", "", "")
        try:
            try:
                step = _STEP.decode(lease.data)
            except msgspec.DecodeError as error:
                log.error("a step on %s can't be read and is dropped: %s", lease.source.subject, error)
                self._leases[identity].ack()
                return
            key = (step.tenant_id, step.execution_id, step.slot)
            self._slots[key] = identity
            started = self._services.clock.now_ms()
            result = await self._attempt(step, lease, started)
            await self._report(step, result, started)
            self._leases[identity].ack()
        except asyncio.CancelledError:
            if self._draining:
                self._leases[identity].nak()
                raise
            # Nobody waits for it any more; the driver has recorded that.
            self._leases[identity].ack()
        except Unavailable as error:
            log.warning("the result of a step is handed back with its step: %s", error)
            self._leases[identity].nak(HAND_BACK_S)
        finally:
            self._slots.pop(key, None)
            self._leases.pop(identity, None)
            self._tasks.pop(identity, None)
            if not self._draining:
                self._feeds[lease.source].request(1)

    async def _attempt(self, step: StepTask, lease: Lease, started_ms: int) -> StepResult:
        if step.at_most_once and lease.delivered > 1:
            message = "the worker ended while this step ran, and at_most_once forbids a second run"
            return StepResult(error=Failure(type="OutcomeUnknown", message=message, retryable=False))
        timeout_ms = step.timeout_ms
        if step.deadline_at:
            left = max(1, parse_ms(step.deadline_at) - started_ms)
            timeout_ms = left if timeout_ms is None else min(left, timeout_ms)
        call = StepCall(
            tenant=step.tenant_id,
            workflow=step.workflow_id,
            execution=step.execution_id,
            step=step.step,
            slot=step.slot,
            uses=step.uses,
            inputs=step.inputs,
            attempt=step.attempt,
            idempotency_key=step.idempotency_key,
            metadata=step.metadata,
            timeout_s=None if timeout_ms is None else timeout_ms / 1000,
            trim=step.trim,
        )
        self._services.announce(call, started_ms)
        result = await self._services.runner.run(call)
        self._services.trace(call, step.traceparent, started_ms, result.error)
        return result

    async def _report(self, step: StepTask, result: StepResult, started_ms: int) -> None:
        services = self._services
        output, error = None, result.error
        if error is None:
            try:
                raw = result.raw or encode(result.output)
                output = await services.payloads.store(step.tenant_id, step.execution_id, result.output, raw)
            except OverLimit as over:
                error = Failure(type="OutputTooLarge", message=over.message, retryable=False)
        task = StepResultTask(
            type=STEP_RESULT,
            execution_id=step.execution_id,
            payload=StepResultPayload(
                slot=step.slot,
                attempt=step.attempt,
                worker=services.worker,
                started_at=rfc3339(started_ms),
                output=output,
                error=error,
            ),
        )
        await services.ports.tasks.publish(step.tenant_id, msgspec.json.encode(task), {})
