"""What an execution looks like from outside: a pure view of its state."""

from __future__ import annotations

from typing import Any

import msgspec

from wpa.kernel.execution import Execution
from wpa.kernel.program import StepView
from wpa.model.events import Failure
from wpa.model.ids import undo_slot
from wpa.model.state import Slot, State
from wpa.model.times import parse_ms

__all__ = ["status_document"]

SHOWN_BYTES_MAX = 1024 * 1024
"""About how much of inputs and outputs a status document shows in all; the history has the rest."""
ELIDE_FIELDS_MAX = 100


def status_document(execution: Execution, now_ms: int) -> dict[str, Any]:
    """The document that ``workflow.api.<tenant>.status`` answers with."""
    state = execution.state
    run = execution.run_view()
    progress = run.progress()
    most = max(256, SHOWN_BYTES_MAX // (2 * len(state.slots) + 2))
    return {
        "execution_id": state.execution,
        "workflow_id": state.workflow,
        "version": state.version,
        "tenant_id": state.tenant,
        "status": state.status,
        "created_at": state.created_at,
        "started_at": state.created_at,
        "finished_at": state.finished_at or None,
        "duration_ms": _duration(state.created_at, state.finished_at, now_ms),
        "epoch": state.epoch,
        "worker": state.worker,
        "current_steps": [state.slots[slot].step for slot in state.open],
        "progress": {
            "total": progress.total,
            "completed": progress.completed,
            # A step whose failure ends the execution is never settled in the program: count it here.
            "failed": sum(
                1 for slot in state.slots.values() if slot.status == "failed" and not _is_undo(slot)
            ),
            "skipped": progress.skipped,
            "percentage": 100 if state.status == "COMPLETED" else progress.percentage,
        },
        "steps": [_step(view, state, most, now_ms) for view in run.steps()],
        "input": _shown(state.input, most),
        "output": _shown(state.output, most),
        "error": state.error,
        "failed_step": state.failed_step or None,
        "undone": state.undone,
        "not_undone": state.not_undone,
        "metadata": state.metadata,
        "events": state.seq,
        "traceparent": state.traceparent,
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


def _step(view: StepView, state: State, most: int, now_ms: int) -> dict[str, Any]:
    slot = state.slots.get(view.slot)
    body: dict[str, Any] = {
        "step": view.step,
        "uses": view.uses,
        "kind": view.kind,
        "status": _phase(view, slot),
        "attempt": slot.attempt if slot else 0,
        "started_at": (slot.started_at or slot.opened_at or None) if slot else None,
        "finished_at": (slot.finished_at or None) if slot else None,
        "duration_ms": None,
        "retry_at": (slot.retry_at or None) if slot else None,
        "input": _shown(view.inputs, most),
        "output": _shown(slot.output, most) if slot else None,
        "error": slot.error if slot else None,
        "compensation": _compensation(view.slot, state),
    }
    if slot is not None and body["started_at"] and slot.status != "decided":
        body["duration_ms"] = _duration(body["started_at"], slot.finished_at, now_ms)
    return body


def _phase(view: StepView, slot: Slot | None) -> str:
    if slot is None:
        return "skipped" if view.phase == "skipped" else "pending"
    if slot.status == "open":
        return "retrying" if slot.retry_at else "running"
    return slot.status


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
