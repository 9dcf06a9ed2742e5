from __future__ import annotations

import contextlib

import pytest

from tests.unit.kernel.programs import Node, Toy
from tests.unit.kernel.table import Table
from wpa.kernel.draft import Draft, seal
from wpa.kernel.fold import LEGAL, IllegalTransition, fold
from wpa.model import events as ev
from wpa.model.events import Event
from wpa.model.state import Status, is_terminal

ALL_EVENTS = sorted({event for _, event in LEGAL})
ALL_STATUSES = sorted({status for status, _ in LEGAL} | set(LEGAL.values()))


def event(name: str, seq: int = 2, **data: object) -> Event:
    return Event(
        id="x", seq=seq, event=name, tenant_id="t", workflow_id="w", execution_id="e",
        timestamp="2026-11-20T10:00:00.000Z", data=dict(data),
    )  # fmt: skip


def test_nothing_follows_a_terminal_status() -> None:
    # But for one that failed, which may be tried again in place.
    assert [pair for pair in LEGAL if is_terminal(pair[0])] == [("FAILED", "workflow_resumed")]


@pytest.mark.parametrize("name", [name for name in ALL_EVENTS if name != ev.STARTED])
def test_nothing_but_a_start_begins_a_journal(name: str) -> None:
    with pytest.raises(IllegalTransition, match="status none"):
        fold(None, event(name, 1))


@pytest.mark.parametrize("name", ALL_EVENTS)
def test_an_illegal_event_raises_and_says_which(name: str) -> None:
    table = Table(Toy(Node("a")))
    table.ok("a")
    with pytest.raises(IllegalTransition, match=name):
        fold(table.state, event(name, 99))


@pytest.mark.parametrize("status", sorted(set(ALL_STATUSES) - {""}))
def test_what_can_not_be_folded_is_not_sealed(status: Status) -> None:
    state = Table(Toy(Node("a"))).state
    state.status = status
    for name in ALL_EVENTS:
        legal = (status, name) in LEGAL
        with contextlib.nullcontext() if legal else pytest.raises(IllegalTransition, match=name):
            seal(Draft(name, {"slot": "a"}, 0), state, id="x", worker="w", epoch=1)


def test_an_attempt_at_a_slot_that_is_settled_is_not_sealed() -> None:
    table = Table(Toy(Node("a"), Node("b")))
    table.ok("a")
    with pytest.raises(IllegalTransition, match="settled already"):
        seal(Draft(ev.STEP_FAILED, {"slot": "a"}, 0), table.state, id="x", worker="w", epoch=1)


def test_a_gap_in_the_sequence_is_refused() -> None:
    table = Table(Toy(Node("a")))
    with pytest.raises(IllegalTransition, match="seq 5 follows seq 1"):
        fold(table.state, event(ev.RECOVERED, 5))


def test_a_slot_is_settled_once() -> None:
    table = Table(Toy(Node("a"), Node("b")))
    table.ok("a")
    with pytest.raises(IllegalTransition, match="settled already"):
        fold(table.state, event(ev.STEP_COMPLETED, 3, step="a", slot="a", output=1))


def test_an_end_may_drop_what_is_open_still() -> None:
    # A loop gives up during a pause: what else it had open is dropped by the end itself.
    table = Table(Toy(Node("a"), Node("b")))
    state = fold(table.state, event(ev.COMPLETED, 2, output=None, dropped=["b"], progress_percentage=100))
    assert (state.open, state.slots["b"].status) == ([], "cancelled")


@pytest.mark.parametrize("told", [{}, {"deadline_at": "2026-11-20T15:00:00.000Z"}])
def test_a_retry_keeps_the_deadline_unless_it_names_another(told: dict[str, str]) -> None:
    table = Table(Toy(Node("a")))
    table.fail("a", retryable=False)
    state = table.folded()
    state.deadline_at = "2026-11-20T12:00:00.000Z"
    state = fold(state, event(ev.RESUMED, state.seq + 1, reason="retry", reopen=["a"], **told))
    assert state.deadline_at == told.get("deadline_at", "2026-11-20T12:00:00.000Z")


def test_what_was_told_to_a_slot_is_not_taken_by_the_next_run() -> None:
    state = Table(Toy(Node("a"))).state
    for seq, signal in enumerate(({"id": "1", "slot": "a"}, {"id": "2", "name": "go"}), 2):
        state = fold(state, event(ev.SIGNALLED, seq, signal=signal))
    state = fold(state, event(ev.CONTINUED, 4, input=None, run=2, next=["a"]))
    assert [signal.id for signal in state.signals] == ["2"]
