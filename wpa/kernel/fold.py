"""state = fold(events): the only code that changes state.

``LEGAL`` is the whole state machine (:mod:`wpa.kernel.transitions`): what is not in it raises, whoever asks.
Each event has one function below that says what it changes.

``fold`` consumes its argument (the state it is given is changed and returned): an execution of ten
thousand events must not copy ten thousand slots ten thousand times. It still depends on nothing but
the state and the event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from wpa.kernel import cleanup
from wpa.kernel.transitions import LEGAL, IllegalTransition, status_after
from wpa.kernel.waits import next_child_id
from wpa.model import events as ev
from wpa.model.events import Event, Failure
from wpa.model.state import SEEDS_FORMAT, Cancel, Parent, Seed, Signal, Slot, State
from wpa.model.times import parse_ms, rfc3339

__all__ = ["LEGAL", "IllegalTransition", "advance", "fold"]

SIGNAL_IDS_KEPT: Final = 1_000
"""So many of an execution's last signals are known again; those not yet taken are, in any case."""


def fold(state: State | None, event: Event) -> State:
    """The state after ``event``. Raises IllegalTransition for an event that may not follow."""
    return advance(state, event)[0]


def advance(state: State | None, event: Event) -> tuple[State, list[str]]:
    """The same, and the slots that ``event`` opens, in order."""
    name, data = event.event, event.data
    after = status_after(state, event)
    if state is None:
        state = _started(event)
    else:
        _CHANGES[name](state, event)
    state.status = after
    state.seq = event.seq
    state.updated_at = event.timestamp
    lease = data.get("lease")
    if lease or name not in ev.ASKED:
        state.epoch = event.epoch
        state.worker = event.worker
    if lease:
        state.lease = lease
        state.blocked = None
    if asked := data.get("ask"):
        _remember(state, asked)
    return state, _follow(state, data, event.timestamp)


def _follow(state: State, data: dict[str, Any], at: str) -> list[str]:
    """What any event may carry: values to keep, slots to close, and slots that are open from now on, of which
    the new ones are returned."""
    if recorded := data.get("recorded"):
        state.recorded += recorded
    if state.start_at and "next" in data and at >= state.start_at:
        state.start_at = ""
    slots = state.slots
    for slot_id in data.get("dropped", ()):
        slot = slots.get(slot_id)
        if slot is not None and slot.status == "open":
            slot.status, slot.retry_at = "cancelled", ""
            slot.finished_at = at
            if slot_id in state.open:  # an end has closed them all
                state.open.remove(slot_id)
    for slot_id in data.get("retry", ()):
        slots[slot_id].retry_at = ""
    opened: list[str] = []
    following = data.get("next")
    if not following or following == state.open:
        return opened
    known = len(state.open)
    if known and following[:known] == state.open:  # what else is open stays so, and nobody needs to look
        following = following[known:]
    waits = data.get("waits")
    for slot_id in following:
        if slot_id not in slots:
            slot = slots[slot_id] = Slot(id=slot_id, opened_at=at)
            opened.append(slot_id)
            if waits and slot_id in waits:
                _describe(slot, waits[slot_id])
    state.open += opened
    return opened


def _describe(slot: Slot, about: dict[str, Any]) -> None:
    """What is told of a slot with the event that opens it."""
    if about["kind"] != slot.kind:  # else it is a step, which a snapshot does not mention
        slot.kind = about["kind"]
    slot.uses, slot.undoes = about.get("uses", ""), about.get("undoes", "")
    slot.until, slot.name = about.get("until", ""), about.get("name", "")
    slot.abandon = about.get("abandon", False)


def _started(event: Event) -> State:
    data = event.data
    state = State(
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
        start_at=data.get("start_at", ""),
        deadline_at=data.get("deadline_at", ""),
        run_started_at=data.get("start_at") or event.timestamp,
        input=data.get("input"),
        variables=data.get("variables") or {},
        metadata=data.get("metadata") or {},
        context=data.get("context") or {},
        parent=msgspec.convert(data["parent"], Parent) if data.get("parent") else None,
        seed=data.get("seed", ""),
    )
    state.forked_from = data.get("forked_from", "")
    if "taken_seeds" in data:
        state.taken_seeds = msgspec.convert(data["taken_seeds"], list[Seed])
        state.format = SEEDS_FORMAT
    for settled in data.get("settled", ()):
        slot = msgspec.convert(settled, Slot)
        state.slots[slot.id] = slot
        state.order.append(slot.id)
    return state


def _slot(state: State, event: Event) -> Slot:
    """The slot that an event settles or retries; decisions and faults were never opened."""
    slot_id: str = event.data["slot"]
    slot = state.slots.get(slot_id)
    if slot is None:
        slot = state.slots[slot_id] = Slot(id=slot_id, opened_at=event.timestamp)
    return slot


def _settle(state: State, slot: Slot, event: Event) -> None:
    slot.retry_at = ""
    slot.finished_at = event.data.get("finished_at") or event.timestamp
    slot.undoes = event.data.get("undoes", "")
    if slot.id in state.open:
        state.open.remove(slot.id)


def _attempt(slot: Slot, data: dict[str, Any]) -> None:
    slot.uses = data.get("uses", "")
    slot.attempt = data.get("attempt", slot.attempt)
    slot.started_at = data.get("started_at", "")


def _failure(value: Any) -> Failure:
    return value if isinstance(value, Failure) else msgspec.convert(value, Failure)


def _step_completed(state: State, event: Event) -> None:
    data = event.data
    slot = _slot(state, event)
    _attempt(slot, data)
    _settle(state, slot, event)
    slot.status = "completed"
    slot.output = data.get("output")
    slot.error = None
    if "signals" in data:
        _take_signals(state, event)
    state.order.append(slot.id)


def _take_signals(state: State, event: Event) -> None:
    taken = event.data.get("signals")
    if taken:
        state.signals = [signal for signal in state.signals if signal.id not in taken]


def _step_failed(state: State, event: Event) -> None:
    data = event.data
    slot = _slot(state, event)
    _attempt(slot, data)
    _take_signals(state, event)
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
    for slot_id, uses in event.data.get("uses", {}).items():
        state.slots[slot_id].uses = uses
    for slot_id in state.open:
        slot = state.slots[slot_id]
        if slot.retry_at > event.timestamp:
            continue  # its next attempt had not begun
        if slot.kind != "step":
            continue  # nothing of it ran in the worker that is gone
        slot.attempt += slot.in_flight  # a waited-for retry was numbered when it was decided
        slot.retry_at = ""
        slot.lost += 1
        state.lost += 1


def _compensating(state: State, event: Event) -> None:
    data = event.data
    for slot_id in state.open:
        # What still waited, for a retry or for anything else, is given up: nothing of it is running.
        slot = state.slots[slot_id]
        slot.status = "failed" if slot.kind == "step" else "cancelled"
        slot.retry_at = ""
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
    _take_signals(state, event)
    state.undone.append(slot.step)


def _ended(state: State, event: Event) -> None:
    data = event.data
    state.finished_at = event.timestamp
    state.lease = ""
    if not state.ends_workers:  # else whoever looks at it still must not run its code
        state.blocked = None
    state.open.clear()
    state.output = data.get("output")
    if "error" in data:
        state.error = _failure(data["error"])
        state.failed_step = data.get("failed_step", "")
    state.not_undone = list(data.get("not_undone", ()))
    if data.get("terminated"):
        state.cancel = Cancel(compensate=False, reason=data.get("reason", ""), by=data.get("by") or {})


# -- waiting ---------------------------------------------------------------------------------


def _waiting(state: State, event: Event) -> None:
    data = event.data
    state.lease = ""
    state.wake_at = data.get("until", "")
    state.rest_epoch = event.epoch
    state.blocked = _failure(data["blocked"]) if "blocked" in data else None


def _signalled(state: State, event: Event) -> None:
    signal = msgspec.convert(event.data["signal"], Signal)
    if signal.id in state.signal_ids:
        return  # told twice: it counts once
    state.signals.append(msgspec.structs.replace(signal, at=event.timestamp))
    _remember(state, signal.id)


def _remember(state: State, asked: str) -> None:
    """Something was asked or told under this id: the same once more is no news."""
    state.signal_ids.append(asked)
    if len(state.signal_ids) > SIGNAL_IDS_KEPT:
        kept = {waiting.id for waiting in state.signals}
        state.signal_ids = [
            known for known in state.signal_ids[:-SIGNAL_IDS_KEPT] if known in kept
        ] + state.signal_ids[-SIGNAL_IDS_KEPT:]


def _escalated(state: State, event: Event) -> None:
    state.slots[event.data["slot"]].escalations += 1


def _paused(state: State, event: Event) -> None:
    pass


def _resumed(state: State, event: Event) -> None:
    if "cleanup" in event.data:
        cleanup.fold_into(state, event)
    if state.status == "FAILED":
        _reopen(state, event.data, event.timestamp)
        state.deadline_at = event.data.get("deadline_at", state.deadline_at)


def _reopen(state: State, data: dict[str, Any], at: str) -> None:
    """A failed execution is tried again: what had given up, or was cut short, is open once more."""
    kept = data.get("kept", ())
    state.failing = state.on_error = state.failed_step = state.finished_at = ""
    state.error, state.not_undone = None, []
    for slot_id in data.get("reopen", ()):
        slot = state.slots[slot_id]
        slot.status, slot.retry_at, slot.finished_at = "open", "", ""
        slot.failures, slot.lost = 0, 0
        if slot.kind == "child" and not slot.abandon and slot_id not in kept:  # the one before has ended
            slot.name = next_child_id(slot.name, state.key, slot_id, slot.attempt)
        slot.attempt += 1
        if slot.kind != "timer":
            _begin_anew(slot, at)
        state.open.append(slot_id)


def _begin_anew(slot: Slot, at: str) -> None:
    """Its time counts from now: what had timed out would be over at once otherwise."""
    if slot.until:
        slot.until = rfc3339(parse_ms(slot.until) - parse_ms(slot.opened_at) + parse_ms(at))
    slot.opened_at, slot.escalations = at, 0


def _cancel_requested(state: State, event: Event) -> None:
    data = event.data
    state.cancel = Cancel(
        compensate=data.get("compensate", True), reason=data.get("reason", ""), by=data.get("by") or {}
    )


def _continued(state: State, event: Event) -> None:
    """The same execution from the beginning: no slots, other input."""
    state.input = event.data.get("input")
    if seed := event.data.get("seed"):
        state.seed, state.format = seed, SEEDS_FORMAT
    state.run += 1
    state.run_seq = event.seq
    state.run_started_at = event.timestamp
    state.slots.clear()
    state.order.clear()
    state.open.clear()
    state.recorded.clear()
    state.taken_seeds.clear()
    # What was told to a slot of the run before must not be taken for the next one's of the same name.
    state.signals = [signal for signal in state.signals if not signal.slot]


def _migrated(state: State, event: Event) -> None:
    state.version, state.definition_hash = event.data["version"], event.data["definition_hash"]


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
    ev.CANCELLED: _ended,
    ev.WAITING: _waiting,
    ev.SIGNALLED: _signalled,
    ev.ESCALATED: _escalated,
    ev.PAUSED: _paused,
    ev.RESUMED: _resumed,
    ev.CANCEL_REQUESTED: _cancel_requested,
    ev.CONTINUED: _continued,
    ev.MIGRATED: _migrated,
}
