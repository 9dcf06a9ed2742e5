"""A rerun: what a new execution takes over from the journal of an old one.

Done work belongs to one execution, which may go on from it, and undo it. So only what stands is taken over,
and only from an execution that has ended. With the settled slots comes what led to them: what the program
came by, and the seeds that it drew from. From the step on, all happens anew.
"""

from __future__ import annotations

import msgspec

from wpa.errors import TaskRejected
from wpa.kernel.telling import Taken
from wpa.model.ids import undo_slot
from wpa.model.state import Seed, Slot, State, is_terminal

__all__ = ["first_undone", "taken_over"]


def taken_over(state: State, step: str) -> Taken:
    """What was settled before ``step`` was, and what belongs to it: the new execution begins with that.

    Args:
        state: the old execution.
        step: a step's id, or a slot's; "" takes nothing over. Where the step never succeeded, everything
            that was settled is taken over.

    Raises TaskRejected where the old execution knows no such step, or has not ended, or where what is to be
    taken over has been undone.
    """
    if not step:
        return Taken()
    if not any(step in (slot.id, slot.step) for slot in state.slots.values()):
        known = ", ".join(list(dict.fromkeys(slot.step for slot in state.slots.values()))[:20])
        raise TaskRejected(
            "unknown_step", f"execution {state.execution} has not come to a step {step!r}; it has: {known}"
        )
    settled = _settled_before(state, step)
    if not settled:
        return Taken()
    _check_standing(state, settled)
    told = len(settled)
    recorded = (value for value in state.recorded if value.get("at", 0) < told)
    return Taken(settled=settled, recorded=tuple(recorded), seeds=_seeds(state, told))


def first_undone(state: State) -> str:
    """The first slot that can't be taken over because it was undone; a rerun may begin with it. Empty where
    all that was settled stands."""
    told = _told(state)
    standing = _standing(state, len(told))
    return told[standing] if standing < len(told) else ""


def _standing(state: State, count: int) -> int:
    """How many of the first ``count`` slots that were settled can be taken over together: none of them was
    undone by what is not among them."""
    told = _told(state)
    undone: int | None = count
    while undone is not None:
        count = undone
        before = set(told[:count])
        # By what was still open at the end, too: nobody knows what that has done.
        undone_later = {slot.undoes for slot in state.slots.values() if slot.id not in before}
        undone = next(
            (
                index
                for index, slot_id in enumerate(told[:count])
                if slot_id in undone_later or undo_slot(slot_id) in state.slots
            ),
            None,
        )
    return count


def _told(state: State) -> list[str]:
    # What was settled while it cleaned up, the new one, which is not cancelled, will not ask for.
    return state.order if state.cleanup is None else state.order[: state.cleanup.after]


def _settled_before(state: State, step: str) -> tuple[Slot, ...]:
    taken = []
    for slot_id in _told(state):
        slot = state.slots[slot_id]
        if step in (slot.id, slot.step):
            break
        taken.append(msgspec.structs.replace(slot, retry_at="", until="", escalations=0))
    return tuple(taken)


def _check_standing(state: State, settled: tuple[Slot, ...]) -> None:
    if not is_terminal(state.status):
        raise TaskRejected(
            "not_ended",
            f"execution {state.execution} is {state.status}: what it has done is its own until it ends; wait "
            "for its end, terminate it first, or rerun it from its beginning",
        )
    standing = _standing(state, len(settled))
    if standing < len(settled):
        undone = settled[standing].id
        raise TaskRejected(
            "undone",
            f"step {undone} of execution {state.execution} can't be taken over, because it was undone; rerun "
            f"from there, or from an earlier step: `wpa rerun {state.execution} --from {undone}`",
        )


def _seeds(state: State, told: int) -> tuple[Seed, ...]:
    """What was drawn from until the program had been told of so many settlements."""
    if not state.seed:
        return ()
    before = [seed for seed in state.taken_seeds if seed.until < told]
    last = next((seed.seed for seed in state.taken_seeds if seed.until >= told), state.seed)
    return (*before, Seed(seed=last, until=told))
