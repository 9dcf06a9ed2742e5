"""A rerun: what a new execution takes over from the journal of an old one."""

from __future__ import annotations

import msgspec

from wpa.errors import TaskRejected
from wpa.model.state import Slot, State

__all__ = ["settled_before"]


def settled_before(state: State, step: str) -> tuple[Slot, ...]:
    """The slots that were settled before ``step`` was, in their order: the new execution begins with them.

    Args:
        state: the old execution, running or ended.
        step: a step's id, or a slot's; "" takes nothing over. Where the step never succeeded, everything
            that was settled is taken over.

    Raises TaskRejected where the old execution knows no such step.
    """
    if not step:
        return ()
    if not any(step in (slot.id, slot.step) for slot in state.slots.values()):
        known = ", ".join(list(dict.fromkeys(slot.step for slot in state.slots.values()))[:20])
        raise TaskRejected(
            "unknown_step", f"execution {state.execution} has not come to a step {step!r}; it has: {known}"
        )
    taken = []
    # What was settled while it cleaned up, the new one, which is not cancelled, will not ask for.
    for slot_id in state.order if state.cleanup is None else state.order[: state.cleanup.after]:
        slot = state.slots[slot_id]
        if step in (slot.id, slot.step):
            break
        taken.append(
            msgspec.structs.replace(slot, attempt=slot.attempt, retry_at="", until="", escalations=0)
        )
    return tuple(taken)
