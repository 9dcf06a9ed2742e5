"""How an execution that can't succeed ends: undo what was done, last first, and say what is left.

Compensations run one at a time, in the reverse order of completion, each only when the one before
it is done. One that gives up stops the rest: what came before it may depend on it, and a person has
to look. The execution then ends FAILED and names what is undone and what is not.
ROLLED_BACK therefore always means: nothing is left behind.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from wpa.kernel import waits
from wpa.kernel.draft import Draft, with_duration
from wpa.kernel.match import Diverged
from wpa.kernel.program import Run
from wpa.kernel.script import Script
from wpa.model import events as ev
from wpa.model.events import Failure
from wpa.model.state import State

__all__ = [
    "UNDONE_TOLD",
    "begin",
    "cancelled",
    "compensable",
    "failed",
    "next_undo",
    "standing",
    "undone_with",
    "waits_into",
    "want_undos",
    "wind_down",
    "wind_up",
]

UNDONE_TOLD: Final = 100
"""So many names of undone steps are told with each one more. All of them would make a journal grow with the
square of what is undone; its end names them all."""


def compensable(state: State, run: Run) -> list[str]:
    """The undo slots of all completed steps that have one, last completed first."""
    undo: list[str] = []
    for slot_id in reversed(state.order):
        if state.slots[slot_id].status == "completed":
            want = run.undo(slot_id)
            if want is not None:
                undo.append(want.slot)
    return undo


def begin(state: State, run: Run, error: Failure, failed_step: str, undo: list[str], now_ms: int) -> Draft:
    """Start to compensate: ``undo`` are the undo slots, in the order in which they are to be run."""
    data = {"failed_step": failed_step, "error": error, "undo": undo, "next": undo[:1]}
    waits_into(data, state, run, now_ms)
    return Draft(ev.COMPENSATING, data, now_ms)


def want_undos(state: State, script: Script) -> None:
    """Want what is to be undone and is not yet. Raises Diverged where the program has no way to undo it."""
    for undo in state.undo:
        slot = state.slots.get(undo)
        if undo in script.wants or (slot is not None and slot.status != "open"):
            continue
        want = script.run.undo(undo.removesuffix(":undo"))
        if want is None:
            raise Diverged(f"{state.execution}: {undo} is to be undone, but the definition has no way")
        script.wants[undo] = want


def waits_into(data: dict[str, Any], state: State, run: Run, now_ms: int) -> None:
    """Say of the undo slots that open with an event whether others work on them."""
    for slot_id in data["next"]:
        want = run.undo(slot_id.removesuffix(":undo"))
        told = waits.about(want, state.key, now_ms) if want is not None else None
        if told is not None:
            data.setdefault("waits", {})[slot_id] = told


def next_undo(state: State, after: str) -> list[str]:
    """The undo slot that follows ``after``, as a list of one, or none."""
    following = state.undo.index(after) + 1
    return state.undo[following : following + 1]


def undone_with(state: State, step: str) -> list[str]:
    """The steps that are undone once ``step`` is, in that order; the last ``UNDONE_TOLD`` of them."""
    return [*state.undone[1 - UNDONE_TOLD :], step]


def standing(state: State, run: Run) -> list[str]:
    """The undo slots of what would stand if the execution ended now, in the order of their undoing."""
    if state.status != "COMPENSATING":
        return compensable(state, run)
    slots = state.slots
    return [undo for undo in state.undo if undo not in slots or slots[undo].status != "completed"]


def wind_down(state: State, run: Run, busy: Collection[str], now_ms: int) -> Draft | None:
    """A step has given up: fail at once, or let what runs (``busy``, too), here or elsewhere, end and then
    compensate: what it has done by then is undone, too."""
    error = state.error or Failure(type="Unknown", message="no reason was recorded")
    if state.on_error != "compensate":
        return failed(state, error, state.failed_step, compensable(state, run), now_ms)
    running = (state.slots[slot_id] for slot_id in state.open)
    if any(slot.under_way or slot.id in busy for slot in running):
        return None
    return begin(state, run, error, state.failed_step, compensable(state, run), now_ms)


def wind_up(state: State, now_ms: int) -> Draft | None:
    """The end of the compensation, when it has come; None while undo slots are running."""
    error = state.error or Failure(type="Unknown", message="no reason was recorded")
    if state.not_undone:
        slot = state.slots[next(s for s in state.undo if state.slots[s].status == "failed")]
        reason = slot.error.message if slot.error else ""
        told = Failure(
            type="CompensationFailed",
            message=f"the compensation of {slot.step} gave up ({reason}), after "
            f"{state.failed_step or 'the plan'} had failed: {error.type}: {error.message}",
            retryable=False,
        )
        return _failed(state, told, state.failed_step, state.not_undone, now_ms)
    if len(state.undone) == len(state.undo) and state.cancel is not None:
        return cancelled(state, [], now_ms)
    if len(state.undone) == len(state.undo):
        data = with_duration(state, _reason(state, error, state.failed_step), now_ms)
        return Draft(ev.ROLLED_BACK, data, now_ms)
    return None


def failed(state: State, error: Failure, failed_step: str, compensable: list[str], now_ms: int) -> Draft:
    """End without (further) compensation; what could have been undone is named."""
    not_undone = [slot.partition(":")[0] for slot in compensable]
    return _failed(state, error, failed_step, not_undone, now_ms)


def cancelled(state: State, compensable: list[str], now_ms: int, error: Failure | None = None) -> Draft:
    """The end of an execution that was cancelled, with what is undone and what is not. ``error`` is what
    went wrong on the way there."""
    cancel = state.cancel
    data: dict[str, Any] = {
        "by": cancel.by if cancel else {},
        "reason": cancel.reason if cancel else "",
        "terminated": False,
        "undone": list(state.undone),
        "not_undone": [slot.partition(":")[0] for slot in compensable],
    }
    if error is not None:
        data["error"] = error
    return Draft(ev.CANCELLED, with_duration(state, data, now_ms), now_ms)


def _failed(state: State, error: Failure, failed_step: str, not_undone: list[str], now_ms: int) -> Draft:
    data = {**_reason(state, error, failed_step), "not_undone": not_undone}
    return Draft(ev.FAILED, with_duration(state, data, now_ms), now_ms)


def _reason(state: State, error: Failure, failed_step: str) -> dict[str, Any]:
    return {"error": error, "failed_step": failed_step, "undone": list(state.undone)}
