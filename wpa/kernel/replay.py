"""Telling a program of all that is recorded, as if it happened again: how an execution is rebuilt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wpa.kernel.match import check_open, check_settled
from wpa.kernel.program import Program
from wpa.kernel.script import Script
from wpa.model.state import Slot, State, is_terminal
from wpa.model.times import parse_ms

__all__ = ["replay", "replay_slot"]

Resolve = Callable[[Any], Any]
"""Turns a stored value into the value itself."""


def replay(program: Program, script: Script, state: State, resolve: Resolve) -> None:
    """Tell a new run what was settled and, at its place, the clean-up.

    Raises Diverged where the program doesn't ask for what is recorded.
    """
    after = len(state.order) if state.cleanup is None else state.cleanup.after
    for slot_id in state.order[:after]:
        replay_slot(program, script, state, state.slots[slot_id], resolve)
    if state.cleanup is not None:
        script.cancel(parse_ms(state.cleanup.began_at), compensate=state.cleanup.compensate)
    for slot_id in state.order[after:]:
        replay_slot(program, script, state, state.slots[slot_id], resolve)
    if state.status != "COMPENSATING" and not is_terminal(state.status):
        check_open(program, script, state)


def replay_slot(program: Program, script: Script, state: State | None, slot: Slot, resolve: Resolve) -> None:
    """Tell a run of one slot that is settled already; in a rerun that begins, there is no state yet."""
    check_settled(program, script, state, slot)
    at_ms = parse_ms(slot.finished_at) if slot.finished_at else 0
    script.tell(slot.id, slot.status, resolve(slot.output), slot.error, at_ms)
