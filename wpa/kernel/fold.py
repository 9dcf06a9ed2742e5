"""state = fold(events): the only code that changes state.

``LEGAL`` is the whole state machine: status and event in, status out. What is not in it is illegal
and raises, whoever asks. Each event has one function below that says what it changes.

``fold`` consumes its argument (the state it is given is changed and returned): an execution of ten
thousand events must not copy ten thousand slots ten thousand times. It still depends on nothing but
the state and the event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from wpa.errors import WpaError
from wpa.model import events as ev
from wpa.model.events import Event, Failure
from wpa.model.state import Slot, State, Status

__all__ = ["LEGAL", "IllegalTransition", "fold"]


class IllegalTransition(WpaError):
    """An event that may not follow. The journal, or this code, is broken: stop, don't guess."""


LEGAL: Final[dict[tuple[str, str], Status]] = {
    ("", ev.STARTED): "RUNNING",
    ("RUNNING", ev.STEP_COMPLETED): "RUNNING",
    ("RUNNING", ev.STEP_FAILED): "RUNNING",
    ("RUNNING", ev.DECIDED): "RUNNING",
    ("RUNNING", ev.RECOVERED): "RUNNING",
    ("RUNNING", ev.COMPENSATING): "COMPENSATING",
    ("RUNNING", ev.COMPLETED): "COMPLETED",
    ("RUNNING", ev.FAILED): "FAILED",
    ("COMPENSATING", ev.STEP_COMPENSATED): "COMPENSATING",
    ("COMPENSATING", ev.STEP_FAILED): "COMPENSATING",
    ("COMPENSATING", ev.RECOVERED): "COMPENSATING",
    ("COMPENSATING", ev.ROLLED_BACK): "ROLLED_BACK",
    ("COMPENSATING", ev.FAILED): "FAILED",
}


def fold(state: State | None, event: Event) -> State:
    """The state after ``event``. Raises IllegalTransition for an event that may not follow."""
    before = state.status if state is not None else ""
    after = LEGAL.get((before, event.event))
    if after is None:
        raise IllegalTransition(
            f"{event.tenant_id}.{event.execution_id}: {event.event} (seq {event.seq}) can't follow "
            f"status {before or 'none'}"
        )
    if state is None:
        state = _started(event)
    elif event.seq != state.seq + 1:
        raise IllegalTransition(
            f"{event.tenant_id}.{event.execution_id}: event seq {event.seq} follows seq {state.seq}"
        )
    else:
        _CHANGES[event.event](state, event)
    state.status = after
    state.seq = event.seq
    state.epoch = event.epoch
    state.worker = event.worker
    state.updated_at = event.timestamp
    _open(state, event)
    return state


def _open(state: State, event: Event) -> None:
    """Open the slots that the event says are running now and that were not."""
    for slot_id in event.data.get("next", ()):
        if slot_id not in state.slots:
            state.slots[slot_id] = Slot(id=slot_id, opened_at=event.timestamp)
            state.open.append(slot_id)


def _started(event: Event) -> State:
    data = event.data
    return State(
        tenant=event.tenant_id,
        workflow=event.workflow_id,
        execution=event.execution_id,
        task_id=event.task_id,
        global_task_id=event.global_task_id,
        version=data["version"],
        definition_hash=data["definition_hash"],
        start_hash=data["start_hash"],
        lease=data.get("lease", ""),
        traceparent=event.traceparent,
        created_at=event.timestamp,
        input=data.get("input"),
        variables=data.get("variables") or {},
        metadata=data.get("metadata") or {},
        context=data.get("context") or {},
    )


def _slot(state: State, event: Event) -> Slot:
    """The slot that an event settles or retries; decisions and faults were never opened."""
    slot_id: str = event.data["slot"]
    slot = state.slots.get(slot_id)
    if slot is None:
        slot = state.slots[slot_id] = Slot(id=slot_id, opened_at=event.timestamp)
        return slot
    if slot.status != "open":
        raise IllegalTransition(f"{event.execution_id}: slot {slot_id} is settled already ({slot.status})")
    return slot


def _settle(state: State, slot: Slot, event: Event) -> None:
    slot.retry_at = ""
    slot.finished_at = event.data.get("finished_at") or event.timestamp
    if slot.id in state.open:
        state.open.remove(slot.id)


def _attempt(slot: Slot, data: dict[str, Any]) -> None:
    slot.uses = data.get("uses", "")
    slot.attempt = data.get("attempt", slot.attempt)
    slot.started_at = data.get("started_at", "")


def _failure(value: Any) -> Failure:
    return value if isinstance(value, Failure) else msgspec.convert(value, Failure)


def _step_completed(state: State, event: Event) -> None:
    slot = _slot(state, event)
    _attempt(slot, event.data)
    _settle(state, slot, event)
    slot.status = "completed"
    slot.output = event.data.get("output")
    slot.error = None
    state.order.append(slot.id)


def _step_failed(state: State, event: Event) -> None:
    data = event.data
    slot = _slot(state, event)
    _attempt(slot, data)
    slot.failures += 1
    slot.error = _failure(data["error"])
    if not data["final"]:
        slot.retry_at = data["retry_at"]
        slot.attempt += 1
        return
    _settle(state, slot, event)
    slot.status = "failed"
    on_error = data.get("on_error", "fail")
    if state.status == "COMPENSATING":
        state.not_undone = [undo.partition(":")[0] for undo in state.undo[state.undo.index(slot.id) :]]
    elif on_error == "continue":
        state.order.append(slot.id)
    elif not state.failing:
        # The first one to give up is the reason; others that fail while it winds down are recorded.
        state.failing, state.on_error = slot.id, on_error
        state.failed_step, state.error = slot.step, slot.error


def _decided(state: State, event: Event) -> None:
    slot = _slot(state, event)
    _settle(state, slot, event)
    slot.status = "decided"
    slot.output = event.data["decision"]
    state.order.append(slot.id)


def _recovered(state: State, event: Event) -> None:
    for slot_id in state.open:
        slot = state.slots[slot_id]
        if slot.retry_at > event.timestamp:
            continue  # its next attempt had not begun
        slot.attempt += slot.in_flight  # a waited-for retry was numbered when it was decided
        slot.retry_at = ""
        slot.lost += 1


def _compensating(state: State, event: Event) -> None:
    data = event.data
    for slot_id in state.open:
        # What still waited for a retry is given up: nothing of it is running.
        state.slots[slot_id].status = "failed"
        state.slots[slot_id].retry_at = ""
    state.open.clear()
    state.undo = list(data["undo"])
    state.failed_step = data.get("failed_step", "")
    state.error = _failure(data["error"])


def _step_compensated(state: State, event: Event) -> None:
    slot = _slot(state, event)
    _attempt(slot, event.data)
    _settle(state, slot, event)
    slot.status = "completed"
    slot.error = None
    slot.output = event.data.get("output")
    state.undone.append(slot.step)


def _ended(state: State, event: Event) -> None:
    data = event.data
    state.finished_at = event.timestamp
    state.open.clear()
    state.output = data.get("output")
    if "error" in data:
        state.error = _failure(data["error"])
        state.failed_step = data.get("failed_step", "")
        state.not_undone = list(data.get("not_undone", ()))


_CHANGES: Final[dict[str, Callable[[State, Event], None]]] = {
    ev.STEP_COMPLETED: _step_completed,
    ev.STEP_FAILED: _step_failed,
    ev.DECIDED: _decided,
    ev.RECOVERED: _recovered,
    ev.COMPENSATING: _compensating,
    ev.STEP_COMPENSATED: _step_compensated,
    ev.COMPLETED: _ended,
    ev.FAILED: _ended,
    ev.ROLLED_BACK: _ended,
}
