"""What must hold, whatever happened."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

from tests.sim.world import SKEW_MS, TENANT, SimWorld
from wpa.kernel.execution import Diverged, Execution
from wpa.kernel.fold import fold
from wpa.model import events as ev
from wpa.model.ids import idempotency_key
from wpa.model.limits import Limits
from wpa.model.state import State, decode_state, encode_state, is_terminal
from wpa.model.tasks import CHILD_ENDED, START, STEP_RESULT, TIMER_DUE
from wpa.model.times import parse_ms
from wpa.testing.journal import state_of

__all__ = ["check"]

SEEN_WITHIN_MS = 3_000
"""A pause that the driver doesn't hear of reaches it at its next append, or when its nap is over."""


def check(world: SimWorld) -> None:
    """Raise AssertionError with what does not hold."""
    states = {execution: check_journal(world, execution) for execution in world.executions()}
    for execution, state in states.items():
        check_end(world, state)
        check_undone(world, state)
        check_pauses(world, execution)
        check_times(world, execution)
        check_children(state, states)
        check_replay(world, execution)
    check_at_most_once(world, states)
    check_letters(world)
    held = [*world.server.tasks.subjects, *world.server.due.subjects]
    assert not held, f"tasks are left: {held}"


def check_journal(world: SimWorld, execution: str) -> State:
    """One legal chain, in which each slot is settled once between two openings; the snapshot is its fold."""
    state: State | None = None
    epoch = 0
    for position, (_, event) in zip(_positions(world, execution), world.journal(execution), strict=True):
        if event.event == ev.COMPENSATING and event.workflow_id in world.undoable:
            assert state is not None
            undoable = world.undoable[event.workflow_id]
            done = (state.slots[slot_id] for slot_id in reversed(state.order))
            to_undo = [
                slot.id
                for slot in done
                if slot.status == "completed" and slot.kind != "timer" and slot.step in undoable
            ]
            assert event.data["undo"] == [f"{slot_id}:undo" for slot_id in to_undo], f"{execution}: {to_undo}"
        open_before = set(state.open) if state is not None else set()
        state = fold(state, event)
        state.position = position
        assert event.epoch >= epoch, f"{execution}: epoch {event.epoch} after {epoch} at {event.seq}"
        assert state.epoch == event.epoch
        epoch = event.epoch
        settled = open_before - set(state.open)
        for slot in settled:
            ended = state.slots.get(slot)
            assert ended is None or ended.status != "open" or is_terminal(state.status), (execution, slot)
        assert len(set(state.open)) == len(state.open)
        assert len(set(state.order)) == len(state.order)
    assert state is not None
    found = world.server.executions.get(f"{TENANT}.{execution}")
    assert found is not None, f"{execution} has no snapshot"
    kept = decode_state(found[0])
    assert kept.seq <= state.seq
    if kept.seq == state.seq:
        assert encode_state(kept) == encode_state(state), f"{execution}: the snapshot is not the fold"
    return state


def _positions(world: SimWorld, execution: str) -> list[int]:
    return [message.sequence for message in world.server.events.read(f"workflow.events.{TENANT}.{execution}")]


def check_replay(world: SimWorld, execution: str) -> None:
    """Rebuilt from any part of its journal, the program asks for what is recorded."""
    events = [event for _, event in world.journal(execution)]
    program = world.programs[events[0].workflow_id]
    lengths = {len(events), *(world.chance.randint(1, len(events)) for _ in range(3))}
    for length in sorted(lengths):
        state = state_of(events[:length])
        assert state is not None
        try:
            Execution.rebuild(program, state, Limits())
        except Diverged as error:
            raise AssertionError(f"{execution} can't be rebuilt from {length} events: {error}") from None


def check_letters(world: SimWorld) -> None:
    """What is rejected is what somebody should not have asked; never what the engine says to itself."""
    ended = {
        name
        for name in world.executions()
        if any(event.event in ev.TERMINAL for _, event in world.journal(name))
    }
    recorded = {
        event.data["ask"].rpartition(":")[2]: stored_ms
        for name in world.executions()
        for stored_ms, event in world.journal(name)
        if "ask" in event.data
    }
    for letter in world.server.dead.read(f"workflow.dlq.{TENANT}"):
        task, code = json.loads(letter.data), letter.headers["Wpa-Code"]
        about = f"{letter.headers}: {task}"
        sequence = int(letter.headers["Wpa-Task-Sequence"])
        before = [at for asked, at in recorded.items() if int(asked.rpartition("-")[2], 16) == sequence]
        assert not before or letter.stored_ms < before[0], f"recorded, and then rejected: {about}"
        assert task["type"] not in (TIMER_DUE, CHILD_ENDED, STEP_RESULT) or task.get("forged"), about
        assert not task.get("payload", {}).get("parent"), about
        if code == "execution_ended":
            assert task["execution_id"] in ended, about
        if task["type"] == START:
            assert code in ("unknown_workflow", "invalid_input", "conflict"), about


def check_end(world: SimWorld, state: State) -> None:
    assert is_terminal(state.status), f"{state.execution} is stuck: {state.status}, open {state.open}"
    assert state.at_rest
    found = world.server.executions.get(f"{TENANT}.{state.execution}")
    assert found is not None
    assert decode_state(found[0]).seq == state.seq, f"{state.execution} ended, and its snapshot is older"


def check_undone(world: SimWorld, state: State) -> None:
    """What was to be undone was, in the opposite order, unless it says otherwise."""
    completed = [slot for slot in state.order if state.slots[slot].status == "completed"]
    undo = state.undo
    expected = [f"{slot}:undo" for slot in reversed(completed)]
    assert undo == [slot for slot in expected if slot in undo], f"{state.execution}: {undo} not of {expected}"
    done = [slot for slot in undo if state.slots.get(slot) and state.slots[slot].status == "completed"]
    assert done == undo[: len(done)], f"{state.execution}: undone out of order: {done} of {undo}"
    if state.status == "ROLLED_BACK":
        assert done == undo
    undos = Counter(
        event.data["slot"]
        for _, event in world.journal(state.execution)
        if event.event == ev.STEP_COMPENSATED
    )
    assert set(undos.values()) <= {1}, f"{state.execution}: undone twice: {undos}"


def check_pauses(world: SimWorld, execution: str) -> None:
    """Nothing begins between a pause and its end; what had been sent to a queue before may."""
    elsewhere = _keys_elsewhere(world, execution)
    for since, until in _pauses(world, execution):
        for began in world.began:
            if began.execution == execution and not began.was_frozen and began.key not in elsewhere:
                assert not since + SEEN_WITHIN_MS < began.at_ms < until, (
                    f"{began} during the pause from {since} to {until}"
                )


def _keys_elsewhere(world: SimWorld, execution: str) -> set[str]:
    """The idempotency keys of the steps that are run by a queue's workers."""
    keys = set()
    state: State | None = None
    for _, event in world.journal(execution):
        state = fold(state, event)
        keys |= {idempotency_key(state.key, s.id) for s in state.slots.values() if s.kind == "remote"}
    return keys


def _pauses(world: SimWorld, execution: str) -> Iterator[tuple[int, int]]:
    since = 0
    state: State | None = None
    for stored_ms, event in world.journal(execution):
        paused = state is not None and state.status == "PAUSED"
        state = fold(state, event)
        if not paused and state.status == "PAUSED":
            since = stored_ms
        elif paused and state.status != "PAUSED":
            yield since, stored_ms


def check_times(world: SimWorld, execution: str) -> None:
    """No timer, no time-out, and no retry is early."""
    state: State | None = None
    retry_at: dict[tuple[str, int], int] = {}
    for stored_ms, event in world.journal(execution):
        data = event.data
        slot = state.slots.get(data.get("slot", "")) if state is not None else None
        if slot is not None and slot.status == "open" and slot.until:
            over = slot.kind == "timer" or data.get("timed_out")
            if over and event.event in (ev.STEP_COMPLETED, ev.STEP_FAILED):
                assert stored_ms >= parse_ms(slot.until) - 2 * SKEW_MS, f"{execution}: {slot.id} is early"
        state = fold(state, event)
        if event.event == ev.STEP_FAILED and not data["final"]:
            failed = state.slots[data["slot"]]
            key = idempotency_key(state.key, failed.id)
            retry_at[key, failed.attempt] = parse_ms(failed.retry_at)
        if event.event == ev.RESUMED and data.get("reopen"):
            retry_at.clear()
    for began in world.began:
        due = retry_at.get((began.key, began.attempt))
        if began.execution == execution and due is not None:
            assert began.at_ms >= due - 2 * SKEW_MS, f"{began} is early: due {due}"


def check_children(state: State, states: dict[str, State]) -> None:
    """What a parent says of a child is what the child says."""
    for slot in state.slots.values():
        if slot.kind != "child" or slot.status != "completed" or _is_detached(slot.output):
            continue
        child = states.get(slot.name)
        assert child is not None, f"{state.execution}: {slot.id} completed without {slot.name}"
        assert child.status == "COMPLETED"
        assert child.output == slot.output


def _is_detached(output: object) -> bool:
    return isinstance(output, dict) and set(output) == {"execution_id"}


def check_at_most_once(world: SimWorld, states: dict[str, State]) -> None:
    begun = Counter(
        (began.key, began.attempt)
        for began in world.began
        if began.key.split(":")[1] in world.once and not began.key.endswith(":undo")
    )
    assert set(begun.values()) <= {1}, f"begun more than once: {begun}"
