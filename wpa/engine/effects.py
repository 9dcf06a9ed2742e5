"""What a recorded state asks of the world: children to start and to stop, steps to send, alarms to set.

Nothing here is remembered: every effect follows from the state, carries a deterministic id, and may be issued
again after a crash; whoever receives it knows it by its id.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from wpa.engine.door import letter_headers
from wpa.engine.letters import bury
from wpa.engine.patience import until_done
from wpa.engine.services import Services
from wpa.errors import OverLimit, TooLarge
from wpa.kernel.execution import Execution
from wpa.kernel.mail import CHILD_FAILED
from wpa.model.events import Failure
from wpa.model.ids import idempotency_key
from wpa.model.state import Parent, Slot, State, is_terminal
from wpa.model.tasks import (
    CANCEL,
    CHILD_ENDED,
    START,
    STEP_RESULT,
    CancelPayload,
    CancelTask,
    ChildEndedPayload,
    ChildEndedTask,
    StartPayload,
    StepResultPayload,
    StepResultTask,
    StepTask,
    Task,
    TaskMetadata,
    timer_due,
)
from wpa.model.times import parse_ms, rfc3339
from wpa.ports.tasks import Source

__all__ = ["Effects", "alarm_of", "is_left"]

log = logging.getLogger("wpa.engine")


class Effects:
    """Issues the effects of one worker's executions. Waits out a server that is away; cancellable."""

    def __init__(self, services: Services) -> None:
        self._services = services

    # -- slots that others work on -----------------------------------------------------------

    async def open_slot(self, execution: Execution, slot_id: str) -> None:
        """A child to be started, or a step for another worker group. Idempotent."""
        slot = execution.state.slots[slot_id]
        if execution.wants[slot_id].fault is not None:
            return  # an undo whose inputs can't be computed: it is about to be given up
        if slot.kind == "child":
            await self._start_child(execution, slot)
        elif slot.kind == "remote":
            await self._send_step(execution, slot)

    async def close(self, state: State, slots: Iterable[Slot]) -> None:
        """Nobody waits for these slots any more: stop what others do for them. Idempotent."""
        for slot in slots:
            if slot.kind == "child" and not slot.abandon:
                task = CancelTask(
                    type=CANCEL,
                    execution_id=slot.name,
                    metadata=_asker(state),
                    payload=CancelPayload(
                        compensate=state.cancel is None or state.cancel.compensate,
                        reason=f"its parent {state.execution} does not wait for it any more",
                        parent=Parent(execution_id=state.execution, slot=slot.id),
                    ),
                )
                await self._publish(state.tenant, task)
            elif slot.kind == "remote":
                body = {"execution_id": state.execution, "slot": slot.id}
                self._services.ports.live.publish(
                    f"workflow.stop.{state.tenant}.{slot.name}", msgspec.json.encode(body)
                )

    async def close_left(self, state: State) -> None:
        """Close every slot that nobody waits for any more, whoever may have done so before. Idempotent."""
        await self.close(state, [slot for slot in state.slots.values() if is_left(slot, state)])

    async def _start_child(self, execution: Execution, slot: Slot) -> None:
        state = execution.state
        want = execution.wants[slot.id]
        child = want.wait.child if want.wait is not None else None
        if child is None:
            return
        parent = None if child.detached else Parent(execution_id=state.execution, slot=slot.id)
        context = {
            "parent": {"execution_id": state.execution, "workflow_id": state.workflow, "slot": slot.id}
        }
        task = Task(
            type=START,
            workflow_id=child.workflow,
            version=child.version,
            execution_id=slot.name,
            global_task_id=state.global_task_id,
            created_at=slot.opened_at,
            parent=parent,
            metadata=_metadata(state.metadata),
            payload=StartPayload(
                input_data={} if child.input is None else child.input, execution_context=context
            ),
        )
        data, most = msgspec.json.encode(task), self._services.limits.task_bytes_max
        if len(data) > most:
            await self._reject_child(state, slot, data, parent, f"{len(data)} bytes; the most is {most}")
            return
        headers = {"traceparent": state.traceparent} if state.traceparent else {}
        try:
            await self._publish(state.tenant, task, headers)
        except TooLarge as error:  # its max_payload was lowered since this worker has begun
            await self._reject_child(state, slot, data, parent, str(error))

    async def _reject_child(
        self, state: State, slot: Slot, start: bytes, parent: Parent | None, why: str
    ) -> None:
        """The door would reject this start, but it may not even fit through the server to get there."""
        services = self._services
        error = OverLimit(f"the start of {slot.name} has {why}")
        subject = Source(state.tenant).subject
        headers = letter_headers(subject, error, services.worker, services.clock.now_ms())
        await until_done(lambda: bury(services, state.tenant, start, headers))
        if parent is not None:
            payload = ChildEndedPayload(
                slot=slot.id,
                child=slot.name,
                status="REJECTED",
                error=Failure(type=error.code, message=error.message, retryable=False),
            )
            task = ChildEndedTask(type=CHILD_ENDED, execution_id=state.execution, payload=payload)
            await self._publish(state.tenant, task)

    async def _send_step(self, execution: Execution, slot: Slot) -> None:
        state = execution.state
        if slot.retry_at:
            return
        want = execution.wants[slot.id]
        payloads, key = self._services.payloads, idempotency_key(state.key, slot.id)
        # Large inputs go by reference: the message has to fit through the server.
        try:
            inputs = await until_done(lambda: payloads.store(state.tenant, state.execution, want.inputs))
        except OverLimit as error:
            failure = Failure(type="InputTooLarge", message=error.message, retryable=False)
            result = StepResultPayload(
                slot=slot.id, attempt=slot.attempt, key=key, error=failure, seq=state.seq
            )
            told = StepResultTask(type=STEP_RESULT, execution_id=state.execution, payload=result)
            await self._publish(state.tenant, told)
            return
        task = StepTask(
            tenant_id=state.tenant,
            workflow_id=state.workflow,
            execution_id=state.execution,
            step=want.step,
            slot=slot.id,
            uses=want.uses,
            inputs=inputs,
            attempt=slot.attempt,
            idempotency_key=key,
            metadata=state.metadata,
            timeout_ms=want.policy.timeout_ms,
            deadline_at=slot.until,
            at_most_once=want.policy.at_most_once,
            trim=want.trim,
            traceparent=state.traceparent,
            seq=state.seq,
        )
        data = msgspec.json.encode(task)
        tasks = self._services.ports.tasks
        await until_done(lambda: tasks.publish_step(state.tenant, slot.name, data, {}))

    # -- rest and end ------------------------------------------------------------------------

    async def set_alarm(self, state: State) -> None:
        """The alarm of an execution at rest: one, for whatever is due first. Idempotent.

        Each rest has an alarm of its own. Somebody may stand still before this call, or the network keep it
        back, until others have taken over and set the next: then this one rings for nothing, and does not
        replace theirs.
        """
        if state.wake_at:
            timers, alarm = self._services.ports.timers, alarm_of(state)
            body = timer_due(state.execution, state.rest_epoch)
            await until_done(lambda: timers.set(state.tenant, alarm.name, parse_ms(alarm.rings_at), body))

    async def clear_alarm(self, tenant: str, alarm: Alarm) -> None:
        """Forget the alarm of a rest that is over, if it has not rung yet. That of no other rest."""
        if alarm.rings_at > rfc3339(self._services.clock.now_ms()):
            timers = self._services.ports.timers
            await until_done(lambda: timers.clear(tenant, alarm.name))

    async def ended(self, state: State) -> None:
        """An execution has ended: stop its children, tell its parent. Idempotent."""
        await self.close_left(state)
        await self.clear_alarm(state.tenant, alarm_of(state))
        if state.parent is not None:
            payload = ChildEndedPayload(
                slot=state.parent.slot,
                child=state.execution,
                status=state.status,
                output=state.output,
                error=state.error,
            )
            task = ChildEndedTask(type=CHILD_ENDED, execution_id=state.parent.execution_id, payload=payload)
            await self._publish(state.tenant, task)

    # -- how ---------------------------------------------------------------------------------

    async def _publish(
        self, tenant: str, task: msgspec.Struct, headers: dict[str, str] | None = None
    ) -> None:
        data = msgspec.json.encode(task)
        tasks = self._services.ports.tasks
        await until_done(lambda: tasks.publish(tenant, data, headers or {}))


def is_left(slot: Slot, state: State) -> bool:
    """Whether others may still work on a slot that nobody waits for any more.

    It was dropped, or open at the end; or it is a child that was given up, and not because it had failed: it
    took too long, say. A remote step that was given up finds that out by itself.
    """
    if slot.status == "failed":
        return slot.kind == "child" and slot.error is not None and slot.error.type != CHILD_FAILED
    return slot.status == "cancelled" or (slot.status == "open" and is_terminal(state.status))


class Alarm(NamedTuple):
    """What was set for an execution when it came to rest."""

    name: str
    rings_at: str
    """Empty: none was set."""


def alarm_of(state: State) -> Alarm:
    """The alarm of the rest that an execution is in, or was in last."""
    rest = f"-{state.rest_epoch}" if state.rest_epoch else ""
    return Alarm(f"{state.execution}.wake{rest}", state.wake_at)


def _asker(state: State) -> TaskMetadata:
    """Who asked for a child's cancel: whoever cancelled its parent, or else the engine."""
    if state.cancel is None or not state.cancel.by:
        return TaskMetadata(source="wpa")
    return _metadata(state.cancel.by)


def _metadata(recorded: dict[str, Any]) -> TaskMetadata:
    return msgspec.convert(recorded, TaskMetadata, strict=False)
