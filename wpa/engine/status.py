"""What an execution looks like from outside: a pure view of its state."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from wpa.kernel import waits
from wpa.kernel.execution import Execution
from wpa.kernel.program import Approval, Progress, StepView, WantKind
from wpa.model.events import Failure
from wpa.model.ids import undo_slot
from wpa.model.state import Slot, State, is_terminal
from wpa.model.times import parse_ms

__all__ = ["open_approvals", "status_document"]

SHOWN_BYTES_MAX = 1024 * 1024
"""About how much of inputs and outputs a status document shows in all; the history has the rest."""
SHOWN_OF_ALL: Final = 4
"""Inputs and outputs get one part of so many, where an answer has less room."""
ELIDE_FIELDS_MAX = 100
WAITING_SHOWN: Final = 20
CHILDREN_SHOWN: Final = 100
NAMES_SHOWN: Final = 20


def status_document(
    state: State,
    execution: Execution | None,
    now_ms: int,
    trouble: Failure | None = None,
    *,
    bytes_max: int,
) -> dict[str, Any]:
    """The document that ``workflow.api.<tenant>.status`` answers with.

    Args:
        state: the execution as its journal says it is.
        execution: the same with its program; None where the definition can't go on with what is
            recorded: then only what has a slot is shown.
        now_ms: what durations of what still runs are counted to.
        trouble: why there is no ``execution``.
        bytes_max: so much an answer has room for. Inputs and outputs are shown accordingly; with very many
            steps the document may be larger all the same.
    """
    run = execution.run_view() if execution is not None else None
    views = run.steps() if run is not None else _recorded_steps(state)
    shown_bytes = min(SHOWN_BYTES_MAX, bytes_max // SHOWN_OF_ALL)
    most = max(256, shown_bytes // (2 * len(state.slots) + 2))
    ended = is_terminal(state.status)
    return {
        "execution_id": state.execution,
        "workflow_id": state.workflow,
        "version": state.version,
        "tenant_id": state.tenant,
        "status": state.status,
        "created_at": state.created_at,
        "started_at": state.created_at,
        "start_at": state.start_at or None,
        "deadline_at": state.deadline_at or None,
        "finished_at": state.finished_at or None,
        "duration_ms": _duration(state.created_at, state.finished_at, now_ms),
        "run": state.run,
        "epoch": state.epoch,
        "worker": state.worker,
        "at_rest": state.at_rest,
        "current_steps": [state.slots[slot].step for slot in state.open],
        "waiting_for": _waiting_for(state, execution),
        "wake_at": (state.wake_at or None) if state.at_rest and not ended else None,
        "blocked": None if ended else state.blocked or trouble,
        "cancel": state.cancel,
        "cleans_up_until": _cleans_up_until(state),
        "parent": state.parent,
        "children": _children(state),
        "signals": _signals(state),
        "forked_from": state.forked_from or None,
        "progress": _progress(state, run.progress() if run is not None else _recorded_progress(views, state)),
        "steps": _steps(views, state, most, now_ms),
        "input": _shown(state.input, most),
        "output": _shown(state.output, most),
        "error": state.error or (execution.failure if execution is not None else None),
        "failed_step": state.failed_step or None,
        "undone": state.undone,
        "not_undone": state.not_undone,
        "metadata": state.metadata,
        "events": state.seq,
        "traceparent": state.traceparent,
    }


def open_approvals(state: State, execution: Execution | None, after: str = "") -> list[dict[str, Any]]:
    """Every approval that waits for answers: who may give one, and what was answered so far.

    With ``after``, a slot's id, only those that were opened after that one, whether it is still open or not.
    """
    opened = list(state.slots)
    later = set(opened[opened.index(after) + 1 :] if after in state.slots else opened)
    slots = (state.slots[slot_id] for slot_id in state.open if slot_id in later)
    return [_waiting(slot, state, execution) for slot in slots if slot.kind == "approval"]


def _cleans_up_until(state: State) -> str | None:
    if state.cleanup is None or state.status not in ("RUNNING", "WAITING"):
        return None
    return state.cleanup.until


# -- what is waited for ----------------------------------------------------------------------


def _waiting_for(state: State, execution: Execution | None) -> list[dict[str, Any]]:
    slots = (state.slots[slot_id] for slot_id in state.open)
    waiting = [slot for slot in slots if slot.kind != "step" or slot.retry_at]
    return [_waiting(slot, state, execution) for slot in waiting[:WAITING_SHOWN]]


def _waiting(slot: Slot, state: State, execution: Execution | None) -> dict[str, Any]:
    told: dict[str, Any] = {
        "slot": slot.id,
        "step": slot.step,
        "kind": "retry" if slot.retry_at else slot.kind,
        "since": slot.opened_at,
    }
    if until := slot.retry_at or slot.until:
        told["until"] = until
    if slot.name:
        told["name"] = slot.name
    if slot.kind == "approval":
        told["approval"] = _approval(slot, state, execution)
    return told


def _approval(slot: Slot, state: State, execution: Execution | None) -> dict[str, Any]:
    want = execution.wants.get(slot.id) if execution is not None else None
    asked = want.wait.approval if want is not None and want.wait is not None else None
    approval = asked or Approval()
    users, roles = waits.allowed(approval, slot)
    answers = [signal for signal in state.signals if signal.slot == slot.id]
    shown = {
        "message": approval.message,
        "users": sorted(users),
        "roles": sorted(roles),
        "count": approval.count,
        "answers": [
            {
                "by": answer.by,
                "decision": "approved" if answer.payload.get("approved") is True else "rejected",
                "comment": str(answer.payload.get("comment") or ""),
                "at": answer.at,
            }
            for answer in answers
            if isinstance(answer.payload, dict)
        ],
    }
    # Whom it asks, and what, only its program says: "anybody" would be made up.
    return shown if asked is not None else shown | {"unknown": True}


def _children(state: State) -> list[dict[str, Any]]:
    children = [slot for slot in state.slots.values() if slot.kind == "child"]
    unsettled = "cancelled" if is_terminal(state.status) else "waiting"
    return [
        {
            "slot": slot.id,
            "execution_id": slot.name,
            "status": unsettled if slot.status == "open" else slot.status,
        }
        for slot in children[:CHILDREN_SHOWN]
    ]


def _signals(state: State) -> dict[str, Any]:
    waiting = [signal.name for signal in state.signals if not signal.slot]
    return {"count": len(waiting), "names": list(dict.fromkeys(waiting))[:NAMES_SHOWN]}


# -- steps -----------------------------------------------------------------------------------


def _recorded_steps(state: State) -> list[StepView]:
    """The steps that have a slot, where no program tells of those that have none yet."""
    return [
        StepView(step=slot.step, slot=slot.id, kind=_kind(slot), uses=slot.uses, phase="settled")
        for slot in state.slots.values()
        if not _is_undo(slot)
    ]


def _kind(slot: Slot) -> WantKind:
    if slot.status == "decided":
        return "decision"
    return "step" if slot.kind == "remote" else slot.kind


def _recorded_progress(views: list[StepView], state: State) -> Progress:
    steps = [state.slots[view.slot] for view in views if view.kind != "decision"]
    completed = sum(slot.status == "completed" for slot in steps)
    return Progress(total=len(steps), completed=completed, failed=0)


def _progress(state: State, progress: Progress) -> dict[str, int]:
    # A step whose failure ends the execution is never settled in the program: count it here.
    failed = sum(slot.status == "failed" and not _is_undo(slot) for slot in state.slots.values())
    return {
        "total": progress.total,
        "completed": progress.completed,
        "failed": failed,
        "skipped": progress.skipped,
        "percentage": 100 if state.status == "COMPLETED" else progress.percentage * state.begun,
    }


def _shown(value: Any, most: int) -> Any:
    """``value``, with what is longer than ``most`` bytes as JSON replaced by its size."""
    size = len(msgspec.json.encode(value))
    if size <= most:
        return value
    if isinstance(value, dict) and len(value) <= ELIDE_FIELDS_MAX:
        return {key: _shown(item, most // 2) for key, item in value.items()}
    return {"$omitted": {"size": size}}


def _is_undo(slot: Slot) -> bool:
    return slot.id.endswith(":undo")


def _duration(start: str, end: str, now_ms: int) -> int | None:
    if not start:
        return None
    return max(0, (parse_ms(end) if end else now_ms) - parse_ms(start))


def _steps(views: list[StepView], state: State, most: int, now_ms: int) -> list[dict[str, Any]]:
    looping = {view.step: view for view in views if view.turns is not None}
    slots: dict[str, list[Slot]] = {step: [] for step in looping}
    for slot in state.slots.values():
        if slot.step in slots and not _is_undo(slot):
            slots[slot.step].append(slot)
    return [
        _step(view, state, most, now_ms)
        if view.turns is None
        else _loop(view, slots[view.step], state, most, now_ms)
        for view in views
    ]


def _loop(view: StepView, slots: list[Slot], state: State, most: int, now_ms: int) -> dict[str, Any]:
    """A step that runs more than once: all its turns as one."""
    body = _step(view, state, most, now_ms)
    phases = {_phase(view, slot, state) for slot in slots}
    over = view.phase == "settled"
    if view.error is not None or (over is False and "failed" in phases and is_terminal(state.status)):
        body["status"] = "failed"
    elif over:
        body["status"] = "completed"
    elif slots:
        order = ("running", "retrying", "waiting", "cancelled")
        body["status"] = next((phase for phase in order if phase in phases), "running")
    # Between two turns nothing is open, and yet the step is not over.
    ended = over or is_terminal(state.status)
    body["finished_at"] = (max((slot.finished_at for slot in slots), default="") or None) if ended else None
    if body["started_at"]:
        body["duration_ms"] = _duration(body["started_at"], body["finished_at"] or state.finished_at, now_ms)
    body["attempt"] = max((slot.attempt for slot in slots), default=0)
    body["output"] = _shown(view.output, most)
    body["error"] = view.error or next((slot.error for slot in slots if slot.error and slot.retry_at), None)
    return body | {"turns": view.turns}


def _step(view: StepView, state: State, most: int, now_ms: int) -> dict[str, Any]:
    slot = state.slots.get(view.slot)
    body: dict[str, Any] = {
        "step": view.step,
        "slot": view.slot,
        "uses": view.uses,
        "kind": "remote" if slot is not None and slot.kind == "remote" else view.kind,
        "status": _phase(view, slot, state),
        "attempt": slot.attempt if slot else 0,
        "started_at": (slot.started_at or slot.opened_at or None) if slot else None,
        "finished_at": (slot.finished_at or None) if slot else None,
        "duration_ms": None,
        "retry_at": (slot.retry_at or None) if slot else None,
        "until": (slot.until or None) if slot else None,
        "name": (slot.name or None) if slot else None,
        "input": _shown(view.inputs, most),
        "output": _shown(slot.output, most) if slot else None,
        "error": slot.error if slot else None,
        "compensation": _compensation(view.slot, state),
    }
    if slot is not None and body["started_at"] and slot.status != "decided":
        body["duration_ms"] = _duration(body["started_at"], slot.finished_at or state.finished_at, now_ms)
    return body


def _phase(view: StepView, slot: Slot | None, state: State) -> str:
    if slot is None:
        return "skipped" if view.phase == "skipped" else "pending"
    if slot.status != "open":
        return slot.status
    if is_terminal(state.status):
        return "cancelled"  # the end came first
    if slot.retry_at:
        return "retrying"
    return "running" if slot.kind == "step" else "waiting"


def _compensation(slot_id: str, state: State) -> dict[str, Any] | None:
    undo = undo_slot(slot_id)
    if undo not in state.undo:
        return None
    slot = state.slots.get(undo)
    error: Failure | None = slot.error if slot else None
    status = "pending" if slot is None else "running" if slot.status == "open" else slot.status
    return {
        "uses": slot.uses if slot else "",
        "status": status,
        "attempt": slot.attempt if slot else 0,
        "started_at": (slot.started_at or None) if slot else None,
        "finished_at": (slot.finished_at or None) if slot else None,
        "error": error,
    }
