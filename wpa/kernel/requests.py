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
from wpa.model import events as ev
from wpa.model.events import Failure
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
"""So many signals may lie with an execution that takes none of them."""

By = dict[str, Any]


def signalled(state: State, signal: Signal, now_ms: int, lease: str) -> Draft | None:
    """Tell the execution something. Raises TaskRejected where it has ended."""
    if signal.id in state.signal_ids:
        return None
    _check_running(state, "be signalled")
    if len(state.signals) >= SIGNALS_MAX:
        raise OverLimit(f"execution {state.execution} has {SIGNALS_MAX} signals that it has not taken")
    told = {key: value for key, value in msgspec.structs.asdict(signal).items() if value not in ("", {})}
    return _taking_over(state, Draft(ev.SIGNALLED, {"signal": told}, now_ms), lease)


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


def blocked(state: State, failure: Failure, now_ms: int, retry_ms: int) -> Draft:
    """The definition can't go on with what is recorded; try again at ``retry_ms``."""
    data = {"blocked": failure, "waiting_for": [], "until": rfc3339(retry_ms)}
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
    standing = [
        slot.step for slot in state.slots.values() if slot.status == "completed" and slot.kind == "step"
    ]
    data = {
        "by": by,
        "reason": reason,
        "terminated": True,
        "undone": list(state.undone),
        "not_undone": [step for step in standing if step not in state.undone],
    }
    return Draft(ev.CANCELLED, with_duration(state, data, now_ms), now_ms)


def retried(state: State, by: By, now_ms: int, lease: str) -> Draft | None:
    """Try a failed execution again, in place, from what had failed.

    Raises TaskRejected where it has not failed, or where its work was undone (rerun it then).
    """
    if not is_terminal(state.status):
        return resumed(state, by, "retry", now_ms, lease)
    if state.status != "FAILED" or state.undo or not state.failing:
        why = "its work was undone" if state.undo else f"its status is {state.status}"
        raise TaskRejected(
            "not_retryable",
            f"execution {state.execution} can't be tried again in place: {why}; "
            f"`wpa rerun {state.execution} --from STEP` makes a new one from it",
        )
    # What was cut short, and what had given up: that is more than one slot where all were lost together.
    told = set(state.order)
    reopen = [
        slot_id
        for slot_id, slot in state.slots.items()
        if slot.status == "open" or (slot.status == "failed" and slot_id not in told)
    ]
    return Draft(ev.RESUMED, {"reason": "retry", "by": by, "lease": lease, "reopen": reopen}, now_ms)


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
