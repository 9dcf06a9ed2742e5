"""What becomes of a draft whose append lost against somebody's request, which is recorded by now."""

from __future__ import annotations

from collections.abc import Iterable

from wpa.errors import Conflict
from wpa.kernel.draft import Draft
from wpa.kernel.opening import held
from wpa.model import events as ev
from wpa.model.events import Event
from wpa.model.state import State, is_terminal

__all__ = ["is_overtaken", "rebase"]


def is_overtaken(draft: Draft, state: State, before: Iterable[Event]) -> bool:
    """Whether a draft ends a wait because its time is over, and something was told before: that comes first.

    ``before`` are the events against which the append lost; ``state`` has them in it. The execution has to be
    rebuilt, and to decide again: what it would have recorded, its program has been told already.
    """
    if is_terminal(state.status) or all(event.event != ev.SIGNALLED for event in before):
        return False
    if draft.event not in (ev.STEP_COMPLETED, ev.STEP_FAILED):
        return False
    slot = state.slots.get(draft.data["slot"])
    return bool(draft.data.get("timed_out")) or (slot is not None and slot.kind == "timer")


def rebase(draft: Draft, state: State) -> Draft | None:
    """The draft as it is to be recorded after ``state``, which has the request in it.

    What has happened has happened: it is still to be recorded, and only opens what may be opened now. What
    was derived is to be derived again: None.

    Raises Conflict where the execution has to be picked up anew.
    """
    status = state.status
    if draft.event == ev.RESUMED and "cleanup" in draft.data and not is_terminal(status):
        if status != "RUNNING":
            raise Conflict(f"{state.execution} was paused just as its program was told to clean up")
        told = {signal.slot for signal in state.signals}
        if not told.isdisjoint(draft.data.get("dropped", ())):
            raise Conflict(f"{state.execution} was told a result just as its program let go of it")
        return draft  # the program is told: what was asked meanwhile changes nothing of what it wants
    if draft.event not in (ev.STEP_COMPLETED, ev.STEP_FAILED, ev.DECIDED, ev.STEP_COMPENSATED):
        return None
    if is_terminal(status):
        return None
    if draft.event != ev.STEP_COMPENSATED and held(state):
        slots = state.slots
        draft.data["next"] = [slot_id for slot_id in draft.data["next"] if slot_id in slots]
        draft.data.pop("waits", None)
    return draft
