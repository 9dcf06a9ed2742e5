"""Telling a program of all that is recorded, as if it happened again: how an execution is rebuilt."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any, Final, TypeVar

from wpa.kernel.match import check_open, check_settled
from wpa.kernel.program import Program
from wpa.kernel.script import Script
from wpa.model.state import Slot, State, is_terminal
from wpa.model.times import parse_ms

__all__ = ["at_once", "replay", "replay_slot"]

T = TypeVar("T")

Resolve = Callable[[Any], Any]
"""Turns a stored value into the value itself."""

AT_A_TIME: Final = 200
"""So many slots are told between two breaths; a long history takes seconds, and others wait meanwhile."""


def replay(program: Program, script: Script, state: State, resolve: Resolve) -> Iterator[None]:
    """Tell a new run what was settled and, at its place, the clean-up. Done when it is gone through; where it
    yields, somebody else may have a turn.

    Raises Diverged where the program doesn't ask for what is recorded.
    """
    after = len(state.order) if state.cleanup is None else state.cleanup.after
    for place, slot_id in enumerate(state.order):
        if place == after:
            _clean_up(script, state)
        replay_slot(program, script, state, state.slots[slot_id], resolve)
        if place % AT_A_TIME == AT_A_TIME - 1:
            yield
    if after == len(state.order):
        _clean_up(script, state)
    if state.status != "COMPENSATING" and not is_terminal(state.status):
        check_open(program, script, state)


def _clean_up(script: Script, state: State) -> None:
    if state.cleanup is not None:
        script.cancel(parse_ms(state.cleanup.began_at), compensate=state.cleanup.compensate)


def replay_slot(program: Program, script: Script, state: State | None, slot: Slot, resolve: Resolve) -> None:
    """Tell a run of one slot that is settled already; in a rerun that begins, there is no state yet."""
    check_settled(program, script, state, slot)
    at_ms = parse_ms(slot.finished_at) if slot.finished_at else 0
    script.tell(slot.id, slot.status, resolve(slot.output), slot.error, at_ms)


def at_once(going: Generator[None, None, T]) -> T:
    """What it returns in the end, without a turn for anybody else."""
    try:
        while True:
            next(going)
    except StopIteration as done:
        found: T = done.value
        return found
