"""A program that cleans up before its execution ends: when it is told, what it loses against, what was before."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.kernel.table import EPOCH_MS, Table
from wpa.errors import Conflict
from wpa.flows import FlowProgram, call, continue_as_new, flow, flow_of, saga, signal
from wpa.kernel import requests
from wpa.kernel.draft import Draft
from wpa.kernel.execution import Attempt
from wpa.kernel.rebase import rebase
from wpa.model import events as ev
from wpa.model.state import Signal
from wpa.model.times import parse_ms


def program(declared: object) -> FlowProgram:
    found = flow_of(declared)
    assert found is not None
    return found


@flow("stay", timeout=600)
async def stay() -> str:
    await call("room.book", step_name="book", undo="room.free")
    try:
        await signal("leave")
        await call("room.clean", step_name="clean")
    finally:
        await call("desk.tell", step_name="tell")
    return "left"


def cancel(table: Table, *, compensate: bool = True) -> Draft:
    draft = requests.cancel_requested(table.state, {"user_id": "ana"}, "why", compensate, table.now_ms, "t2")
    assert draft is not None
    return draft


def finished(table: Table, slot: str) -> Draft:
    """The draft of a step's success, not recorded."""
    table.now_ms += 10
    attempt = Attempt(slot=slot, started_ms=table.now_ms, output=slot, stored=slot)
    return table.execution.attempted(attempt, table.now_ms)


def lost(table: Table, draft: Draft, against: Draft) -> Draft | None:
    """What is left of a draft when another one was recorded first."""
    table.record(against)
    return rebase(draft, table.execution.state)


def at_its_end(table: Table) -> Table:
    table.ok("tell")
    while table.state.open:
        table.ok(table.state.open[0])
    return table


# -- the order of things ---------------------------------------------------------------------


def test_it_is_told_then_undone_and_cancelled() -> None:
    table = Table(program(stay))
    table.ok("book")
    table.rest()
    table.ask(cancel(table))
    assert table.last.data["cleanup"] == {
        "because": "Cancelled",
        "until": "2026-11-18T12:06:40.010Z",
        "compensate": True,
    }
    assert (table.last.data["dropped"], table.state.open) == (["signal_leave"], ["tell"])
    table.crash()
    assert at_its_end(table).events[4:] == [
        "resumed", "recovered", "step_completed", "compensating", "step_compensated", "cancelled",
    ]  # fmt: skip
    assert table.state == table.folded()


def test_what_has_happened_is_recorded_and_told_before_the_cancel() -> None:
    table = Table(program(stay))
    table.ok("book")
    table.signal("leave")
    draft = lost(table, finished(table, "clean"), cancel(table))
    assert draft is not None
    assert draft.data["next"] == []
    table.record(draft)
    table.follow()
    assert table.events[-4:] == ["cancel_requested", "step_completed", "resumed", "compensating"]
    assert table.state.cleanup is not None
    assert table.state.cleanup.after == 3
    # By then it was in its `finally`: it is the wait there that the cancel has ended, as in asyncio.
    assert "tell" not in table.state.slots


def test_a_result_that_comes_between_request_and_clean_up_is_at_its_place_after_a_crash() -> None:
    @flow("pair")
    async def pair() -> None:
        one = asyncio.ensure_future(call("a.do", step_name="one", undo="a.undo"))
        two = asyncio.ensure_future(call("a.do", step_name="two", undo="a.undo"))
        try:
            await asyncio.gather(one, two)
        finally:
            await call("a.do", step_name=f"tell_{one.done()}_{one.cancelled()}_{two.cancelled()}")

    table = Table(program(pair))
    draft = lost(table, finished(table, "one"), cancel(table))
    assert draft is not None
    table.record(draft)
    table.follow()
    assert table.state.open == ["tell_True_False_True"]
    table.crash()
    table.ok("tell_True_False_True", "one:undo")
    assert (table.state.status, table.state.undone) == ("CANCELLED", ["one"])


def test_being_told_holds_against_what_is_asked_meanwhile() -> None:
    table = Table(program(stay))
    table.ok("book")
    table.record(cancel(table))
    draft = table.execution.follow_up(table.now_ms)
    assert draft is not None
    told = requests.signalled(table.state, Signal(id="s", name="leave"), table.now_ms, "t3")
    assert told is not None
    assert lost(table, draft, told) is draft
    table.record(draft)
    table.follow()
    table.crash()
    assert at_its_end(table).state.status == "CANCELLED"


def test_a_deadline_that_loses_against_a_pause_is_decided_again_from_what_is_recorded() -> None:
    table = Table(program(stay))
    table.ok("book")
    table.now_ms = EPOCH_MS + 600_000
    draft = table.execution.follow_up(table.now_ms)
    assert draft is not None
    assert draft.data["cleanup"]["because"] == "DeadlineExceeded"
    paused = requests.paused(table.state, {}, "", table.now_ms)
    assert paused is not None
    with pytest.raises(Conflict, match="paused just as"):
        lost(table, draft, paused)
    table.crash()
    assert (table.state.status, table.state.cleanup) == ("PAUSED", None)
    table.ask(requests.resumed(table.state, {}, "", table.now_ms, "t3"))
    assert at_its_end(table).state.status == "ROLLED_BACK"


def test_a_cancel_while_it_cleans_up_at_its_deadline_is_what_it_ends_with() -> None:
    table = Table(program(stay))
    table.ok("book")
    table.now_ms = EPOCH_MS + 600_000
    table.follow()
    table.ask(cancel(table, compensate=False))
    assert table.events.count("resumed") == 1
    table.ok("tell")
    assert (table.state.status, table.state.not_undone) == ("CANCELLED", ["book"])


def test_a_deadline_is_over_by_every_clock_once_it_was() -> None:
    table = Table(program(stay))
    table.ok("book")
    table.now_ms = EPOCH_MS + 600_000
    table.follow()
    table.now_ms -= 5_000
    at_its_end(table)
    assert (table.state.status, table.state.error and table.state.error.type) == (
        "ROLLED_BACK",
        "DeadlineExceeded",
    )


@pytest.mark.parametrize("again", [False, True])
def test_one_that_has_ended_just_before_has_nothing_to_clean_up(again: bool) -> None:
    @flow("quick")
    async def quick() -> None:
        await call("a.do", step_name="do", undo="a.undo")
        if again:
            continue_as_new()

    table = Table(program(quick))
    table.record(finished(table, "do"))
    draft = table.execution.follow_up(table.now_ms)
    assert draft is not None
    assert draft.event == (ev.CONTINUED if again else ev.COMPLETED)
    assert lost(table, draft, cancel(table)) is None
    table.follow()
    table.ok("do:undo")
    assert (table.state.status, table.state.undone, table.state.cleanup) == ("CANCELLED", ["do"], None)


# -- its time --------------------------------------------------------------------------------


def test_its_own_time_counts_and_the_deadline_no_more() -> None:
    @flow("slow", timeout=600, cleanup_timeout=60)
    async def slow() -> None:
        try:
            await signal("leave")
        finally:
            await asyncio.sleep(3600)

    table = Table(program(slow))
    table.now_ms += 590_000
    table.ask(cancel(table))
    assert table.execution.wake_ms() == table.now_ms + 60_000
    table.now_ms += 59_999
    table.follow()
    assert table.state.open == ["sleep"]
    table.rest()
    table.wake()
    assert table.state.status == "CANCELLED"
    assert table.state.error is not None
    assert "clean-up was not done by" in table.state.error.message


@pytest.mark.parametrize("dies", [False, True])
def test_what_it_is_undoing_when_its_time_is_over_comes_to_its_end_and_nothing_after(dies: bool) -> None:
    @flow("undoing", cleanup_timeout=60)
    async def undoing() -> None:
        async with saga():
            await call("room.book", step_name="book", undo="room.free")
            await signal("leave")

    table = Table(program(undoing))
    table.ok("book")
    table.ask(cancel(table))
    table.follow()
    assert table.state.open == ["undo_book"]
    table.now_ms += 60_000
    table.follow()
    if dies:
        table.crash()
    table.fail("undo_book")  # the next attempt has the same key; one by the execution itself would not
    retry_at = table.state.slots["undo_book"].retry_at
    assert (table.state.status, table.execution.wake_ms()) == ("RUNNING", parse_ms(retry_at))
    assert table.execution.ending(table.now_ms) is None
    table.ok("undo_book")
    assert (table.state.status, table.state.undo, table.state.error) == ("CANCELLED", [], None)


def test_what_it_could_not_undo_when_its_time_was_over_the_execution_tries_to() -> None:
    @flow("undoing", cleanup_timeout=60)
    async def undoing() -> None:
        try:
            async with saga():
                await call("room.book", step_name="book", undo="room.free")
                await signal("leave")
        finally:
            await asyncio.sleep(3600)

    table = Table(program(undoing))
    table.ok("book")
    table.ask(cancel(table))
    table.follow()
    table.now_ms += 60_000
    table.fail("undo_book", retryable=False)
    assert (table.state.status, table.state.undo) == ("COMPENSATING", ["book:undo"])


def test_only_what_its_own_task_waits_for_is_sure_to_stop() -> None:
    @flow("shields")
    async def shields() -> None:
        await call("a.do", step_name="bare")
        await asyncio.shield(call("a.do", step_name="shielded"))

    table = Table(program(shields))
    assert table.execution.stops("bare")
    table.ok("bare")
    assert not table.execution.stops("shielded")


# -- journals of before ----------------------------------------------------------------------


def test_a_cancel_that_was_asked_of_a_worker_that_knew_no_clean_up_is_told_by_the_next() -> None:
    table = Table(program(stay))
    table.ok("book")
    table.rest()
    request = cancel(table)
    table.epoch += 1
    table.record(request)  # and nothing follows: the worker is replaced
    table.crash()
    assert table.state.open == ["tell"]
    assert at_its_end(table).state.status == "CANCELLED"


def test_one_that_compensated_at_once_goes_on_with_that() -> None:
    table = Table(program(stay))
    table.ok("book")
    table.record(cancel(table))
    # What was recorded next when a flow was not told of its cancel.
    error = {"type": "Cancelled", "message": "why", "retryable": False}
    undo = {"failed_step": "", "error": error, "undo": ["book:undo"], "next": ["book:undo"]}
    table.record(Draft(ev.COMPENSATING, undo, table.now_ms))
    table.crash()
    table.ok("book:undo")
    assert (table.state.status, table.state.undone, table.state.cleanup) == ("CANCELLED", ["book"], None)
    assert "desk.tell" not in {slot.uses for slot in table.state.slots.values()}


def test_a_result_that_comes_just_before_the_program_is_told_is_told_to_it_first() -> None:
    @flow("far")
    async def far() -> None:
        await call("room.book", step_name="book", queue="far", undo="room.free")

    table = Table(program(far))
    table.record(cancel(table))
    draft = table.execution.follow_up(table.now_ms)
    assert draft is not None
    assert draft.data["dropped"] == ["book"]
    result = Signal(id="result:book:1:1", slot="book", payload={"attempt": 1, "output": "r-1"})
    told = requests.signalled(table.state, result, table.now_ms, "t3")
    assert told is not None
    with pytest.raises(Conflict, match="was told a result"):
        lost(table, draft, told)
    table.crash()
    assert table.state.undo == ["book:undo"]
