"""What somebody asks of an execution, as drafts: pure functions of its state.

Anyone who may append can write these, whether the execution has a driver at the moment or not. Where it
is at rest and has to be driven on, the draft carries the ``lease``: whoever appends it becomes the driver.
None means that there is nothing to record, because it was asked before.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from wpa.errors import OverLimit, TaskRejected
from wpa.kernel.draft import Draft, with_duration
from wpa.kernel.fork import first_undone
from wpa.kernel.mail import done_elsewhere
from wpa.model import events as ev
from wpa.model.events import Failure
from wpa.model.ids import undo_slot
from wpa.model.state import Signal, State, is_terminal
from wpa.model.times import rfc3339

__all__ = [
    "blocked",
    "cancel_requested",
    "migrated",
    "paused",
    "resumed",
    "retried",
    "signalled",
    "terminated",
    "woken",
]

SIGNALS_MAX: Final = 10_000
"""So many signals and answers may lie with an execution that takes none of them."""
_RESULTS: Final = ("child", "remote")
"""Slots for which what they wait for is told once an attempt. No sender can be asked to tell it later."""

By = dict[str, Any]


def signalled(state: State, signal: Signal, now_ms: int, lease: str) -> Draft | None:
    """Tell the execution something. Raises TaskRejected where it has ended."""
    if signal.id in state.signal_ids:
        return None
    _check_running(state, "be signalled")
    if not _is_result(state, signal) and _untaken(state) >= SIGNALS_MAX:
        raise OverLimit(f"execution {state.execution} has {SIGNALS_MAX} signals that it has not taken")
    told = {key: value for key, value in msgspec.structs.asdict(signal).items() if value not in ("", {})}
    return _taking_over(state, Draft(ev.SIGNALLED, {"signal": told}, now_ms), lease)


def _is_result(state: State, signal: Signal) -> bool:
    slot = state.slots.get(signal.slot)
    return slot is not None and slot.kind in _RESULTS


def _untaken(state: State) -> int:
    if len(state.signals) < SIGNALS_MAX:  # nearly always: there is nothing to be counted
        return len(state.signals)
    return sum(not _is_result(state, signal) for signal in state.signals)


def paused(state: State, by: By, reason: str, now_ms: int) -> Draft | None:
    """Begin nothing new until it is resumed. Raises TaskRejected where it has ended, or compensates."""
    if state.status == "PAUSED":
        return None
    _check_running(state, "be paused")
    _check_not_ending(state, "paused")
    return Draft(ev.PAUSED, {"by": by, "reason": reason}, now_ms)


def resumed(state: State, by: By, reason: str, now_ms: int, lease: str) -> Draft | None:
    """End a pause, or try a blocked execution again now. Raises TaskRejected where it has ended."""
    _check_running(state, "be resumed")
    if state.status != "PAUSED" and state.blocked is None:
        return None
    draft = Draft(ev.RESUMED, {"by": by, "reason": reason or "asked"}, now_ms)
    if state.at_rest:
        draft.data["lease"] = lease
    return draft


def woken(state: State, now_ms: int, lease: str) -> Draft:
    """The alarm of an execution at rest has rung."""
    return Draft(ev.RESUMED, {"reason": "timer", "lease": lease}, now_ms)


def blocked(state: State, failure: Failure, now_ms: int, retry_ms: int | None) -> Draft:
    """The definition can't go on with what is recorded; try again at ``retry_ms``, or when somebody asks."""
    data: dict[str, Any] = {"blocked": failure, "waiting_for": []}
    if retry_ms is not None:
        data["until"] = rfc3339(retry_ms)
    if state.status in ("PAUSED", "COMPENSATING"):
        data["status"] = state.status
    return Draft(ev.WAITING, data, now_ms)


def cancel_requested(
    state: State, by: By, reason: str, compensate: bool, now_ms: int, lease: str
) -> Draft | None:
    """Stop it, and undo what was done where ``compensate``. Raises TaskRejected where it has ended."""
    if state.cancel is not None or state.status == "CANCELLED":
        return None
    _check_running(state, "be cancelled")
    if state.status == "COMPENSATING":
        raise TaskRejected(
            "compensating",
            f"execution {state.execution} undoes its steps already; wait for its end, or terminate it",
        )
    draft = Draft(ev.CANCEL_REQUESTED, {"by": by, "reason": reason, "compensate": compensate}, now_ms)
    if state.at_rest:
        draft.data["lease"] = lease
    return draft


def terminated(state: State, by: By, reason: str, now_ms: int) -> Draft | None:
    """End it now, as it is: nothing is undone, nothing is waited for."""
    if state.status == "CANCELLED":
        return None
    _check_running(state, "be terminated")
    data = {
        "by": by,
        "reason": reason,
        "terminated": True,
        "undone": list(state.undone),
        "not_undone": _standing(state),
    }
    return Draft(ev.CANCELLED, with_duration(state, data, now_ms), now_ms)


def _standing(state: State) -> list[str]:
    """The steps of all work that was done, here or by others, and is not undone."""
    reported = set(done_elsewhere(state))
    done = [
        slot
        for slot in state.slots.values()
        if slot.kind in ("step", "remote", "child") and (slot.status == "completed" or slot.id in reported)
    ]
    undoing, ids = set(state.undo), {slot.id for slot in done}
    standing = [slot for slot in done if not slot.undoes and slot.id not in undoing]
    by_the_flow = {slot.undoes for slot in done}
    return [slot.step for slot in standing if slot.id not in by_the_flow and undo_slot(slot.id) not in ids]


def retried(state: State, by: By, now_ms: int, lease: str) -> Draft | None:
    """Try a failed execution again, in place, from what had failed.

    Whoever knows its definition adds ``deadline_at`` where that limits its time, which counts anew, or did.

    Raises TaskRejected where no step of it has failed, or where its work was undone (rerun it then).
    """
    if not is_terminal(state.status):
        return resumed(state, by, "retry", now_ms, lease)
    if state.status != "FAILED" or state.undo or not state.failing:
        raise TaskRejected(
            "not_retryable",
            f"execution {state.execution} can't be tried again in place: {_why_not_retried(state)}; "
            f"`{_rerun(state)}` makes a new one from it",
        )
    # What was cut short, and what had given up: that is more than one slot where all were lost together.
    told = set(state.order)
    reopen = [
        slot_id
        for slot_id, slot in state.slots.items()
        if slot.status == "open" or (slot.status == "failed" and slot_id not in told)
    ]
    return Draft(ev.RESUMED, {"reason": "retry", "by": by, "lease": lease, "reopen": reopen}, now_ms)


def _why_not_retried(state: State) -> str:
    """Why one that has ended, and not failed at a step, stays as it is."""
    if state.undo:
        return "its work was undone"
    if state.status != "FAILED" or state.error is None:
        return f"its status is {state.status}"
    return f"no step of it had given up: {state.error.type}: {state.error.message}"


def migrated(state: State, version: str, digest: str, by: By, now_ms: int, lease: str) -> Draft | None:
    """Go on with another version. Whether what is settled fits it has been checked by the caller."""
    if state.definition_hash == digest and state.version == version:
        return None
    _check_running(state, "be migrated")
    if state.status not in ("WAITING", "PAUSED") or not state.at_rest:
        raise TaskRejected(
            "not_at_rest",
            f"execution {state.execution} is {state.status}; only a waiting or paused one can be "
            "migrated: pause it first",
        )
    data = {"version": version, "definition_hash": digest, "previous_version": state.version, "by": by}
    return _taking_over(state, Draft(ev.MIGRATED, data, now_ms), lease)


def _rerun(state: State) -> str:
    """The command that makes a new execution with as much of this one's work as still stands."""
    step = first_undone(state) or state.failed_step
    return f"wpa rerun {state.execution} --from {step}" if step else f"wpa rerun {state.execution}"


def _taking_over(state: State, draft: Draft, lease: str) -> Draft:
    """An execution at rest has to be driven on, unless it is paused."""
    if state.at_rest and state.status in ("WAITING", "COMPENSATING"):
        draft.data["lease"] = lease
    return draft


def _check_running(state: State, what: str) -> None:
    if is_terminal(state.status):
        raise TaskRejected(
            "execution_ended", f"execution {state.execution} can't {what}: it has ended, {state.status}"
        )


def _check_not_ending(state: State, what: str) -> None:
    ends = state.cancel is not None or state.cleanup is not None
    if state.status == "COMPENSATING" or ends or state.failing:
        raise TaskRejected(
            "compensating", f"execution {state.execution} is on its way to its end; it can't be {what}"
        )
