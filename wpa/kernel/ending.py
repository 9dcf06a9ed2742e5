"""The end of an execution of which nothing failed: it is cancelled, or its time is over.

A program that cleans up (:class:`wpa.kernel.program.CleansUp`) is told first, and once. The event that says
so is the place at which it is told at each rebuild; what had happened between the request and that event is
recorded before it, for the order in which a run is told things is its driver's to make. What the program
wants from then on is opened as ever. The end comes when it has ended, or has had its time; for any other
program, at once.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from wpa.kernel import cleanup, saga
from wpa.kernel.draft import Draft
from wpa.kernel.opening import open_into, room_beside
from wpa.kernel.program import CANCELLED, CleansUp, Failed, Outcome, Waiting
from wpa.kernel.script import Script
from wpa.model import events as ev
from wpa.model.events import Failure
from wpa.model.state import State
from wpa.model.times import parse_ms

__all__ = ["Ending"]

NEVER: Final = 1 << 62


class Ending:
    """Decides for one execution. What it keeps, it could compute again.

    Args:
        max_parallel: how many of the program's steps may run at a time, those of its clean-up, too.
    """

    def __init__(self, max_parallel: int) -> None:
        self._max_parallel = max_parallel
        self._deadline_at, self._deadline_ms = "", NEVER

    def due(self, state: State, script: Script, now_ms: int) -> Failure | None:
        """Why the execution is to end now. None while there is no reason, and while its program cleans up."""
        reason = self._reason(state, script, now_ms)
        return reason if reason is None or _cleaner(state, script, now_ms) is None else None

    def begins(self, state: State, script: Script, now_ms: int) -> bool:
        """Whether :meth:`follow_up` would answer with a draft: nothing else is to begin any more."""
        if (state.cancel is None and not state.deadline_at) or self._reason(state, script, now_ms) is None:
            return False
        return state.cleanup is None or _cleaner(state, script, now_ms) is None

    def follow_up(self, state: State, script: Script, now_ms: int) -> Draft | None:
        """The end, or the begin of the compensation or of the clean-up before it; None where none is due."""
        reason = self._reason(state, script, now_ms)
        if reason is None:
            return None
        cleaner = _cleaner(state, script, now_ms)
        if cleaner is None:
            return _end(state, script, reason, now_ms)
        return self._tell(state, script, cleaner, reason, now_ms) if state.cleanup is None else None

    def _reason(self, state: State, script: Script, now_ms: int) -> Failure | None:
        if state.status in ("COMPENSATING", "PAUSED"):
            return None
        if state.cancel is not None:
            return Failure(type=CANCELLED, message=state.cancel.reason or "cancelled", retryable=False)
        if self._deadline_at != state.deadline_at:  # to parse it each time would take too long
            self._deadline_at, self._deadline_ms = state.deadline_at, parse_ms(state.deadline_at)
        if state.cleanup is not None:
            now_ms = self._deadline_ms  # it was over by the clock of whoever drove then
        elif isinstance(script.outcome, Failed):
            return None  # it has failed before, and what runs is let end, as after a step's failure
        if now_ms < self._deadline_ms or state.failing:
            return None
        message = f"the execution was to end by {state.deadline_at}"
        return Failure(type="DeadlineExceeded", message=message, retryable=False)

    def _tell(self, state: State, script: Script, cleaner: CleansUp, reason: Failure, now_ms: int) -> Draft:
        """Tell the program, and open what it wants before its end."""
        about = cleanup.told(state, cleaner, reason, now_ms)
        script.cancel(now_ms, compensate=about["compensate"])
        data: dict[str, Any] = {"reason": cleanup.REASON, "cleanup": about}
        running = [slot_id for slot_id in state.open if slot_id not in script.dropping]
        room = room_beside(state, running, self._max_parallel, waiting=True)
        open_into(data, script, running, room, state.key, now_ms)
        return Draft(ev.RESUMED, data, now_ms)


def _cleaner(state: State, script: Script, now_ms: int) -> CleansUp | None:
    """The program, if it has to be told, or is at work on it. One that has not begun has nothing to do."""
    over = script.cleaner is None or state.start_at or not isinstance(script.outcome, Waiting)
    late = state.cleanup is not None and now_ms >= parse_ms(state.cleanup.until)
    if late and script.undoes_any(state.open):
        late = False  # or the execution would undo the same once more, under another key
    return None if over or late else script.cleaner


def _end(state: State, script: Script, reason: Failure, now_ms: int) -> Draft:
    undo = saga.compensable(state, script.run)
    wrong = _what_went_wrong(state, script.outcome)
    if wrong:
        details = {"cleanup" if state.cleanup is not None else "before": wrong}
        reason = msgspec.structs.replace(reason, message=f"{reason.message}; {wrong}", details=details)
    if undo and (state.cancel is None or state.cancel.compensate):
        return saga.begin(state, script.run, reason, "", undo, now_ms)
    if state.cancel is None:
        return saga.failed(state, reason, "", undo, now_ms)
    return saga.cancelled(state, undo, now_ms, reason if wrong else None)


def _what_went_wrong(state: State, outcome: Outcome) -> str:
    """In the clean-up or, where there was none to make, before it; empty where nothing did."""
    error = outcome.error if isinstance(outcome, Failed) and outcome.error.type != CANCELLED else None
    if state.cleanup is not None and isinstance(outcome, Waiting):
        return f"its clean-up was not done by {state.cleanup.until}"
    if error is None:
        return ""
    what = "it had failed" if state.cleanup is None else "its clean-up failed"
    return f"{what}: {error.type}: {error.message}"
