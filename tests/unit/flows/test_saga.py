from __future__ import annotations

import asyncio

import pytest

from tests.unit.flows.table import Table, run
from wpa.errors import StepFailed
from wpa.flows import call, continue_as_new, flow, saga


@flow("trip")
async def trip() -> str:
    async with saga():
        await call("car.book", id=1, undo="car.cancel")
        await call("car.look")
        await call("hotel.book", id=2, undo="hotel.cancel")
        await call("flight.book", id=3, undo="flight.cancel")
    return "booked"


def test_a_failure_undoes_what_was_done_last_first() -> None:
    table = Table(trip)
    table.settle("car_book", {"ref": "c"})
    table.ok("car_look", "hotel_book")
    table.fail("flight_book", "Full")
    [want] = table.wants.values()
    assert (want.slot, want.uses, want.trim) == ("undo_hotel_book", "hotel.cancel", True)
    table.crash()
    table.ok("undo_hotel_book")
    [want] = table.wants.values()
    assert (want.slot, want.inputs) == ("undo_car_book", {"id": 1, "ref": "c"})
    assert want.policy.retry.max_attempts == 10
    assert table.run.undo("car_book") is not None
    table.ok("undo_car_book")
    assert table.error.type == "Full"
    assert [table.run.undo(slot) for slot in ("car_book", "hotel_book", "flight_book")] == [None] * 3


def test_without_a_failure_nothing_is_undone_but_could_be() -> None:
    table = Table(trip)
    table.ok("car_book", "car_look", "hotel_book", "flight_book")
    assert table.output == "booked"
    assert table.run.undo("car_book") is not None
    run(trip)


def test_an_undo_that_gives_up_stops_the_rest_and_leaves_it_to_the_execution() -> None:
    table = Table(trip)
    table.ok("car_book", "car_look", "hotel_book")
    table.fail("flight_book", "Full")
    table.fail("undo_hotel_book", "Down", "no answer")
    assert table.error.type == "CompensationFailed"
    assert table.error.message == "undo_hotel_book gave up (no answer), after StepFailed: flight_book failed"
    assert table.run.undo("hotel_book") is not None
    assert table.run.undo("car_book") is not None


def test_sagas_in_tasks_and_in_each_other() -> None:
    @flow("nested")
    async def nested() -> str:
        try:
            async with saga():
                async with saga():
                    await asyncio.gather(call("a.do", undo="a.undo"), call("b.do", undo="b.undo"))
                try:
                    async with saga():
                        await call("c.do", undo="c.undo")
                        raise ValueError("inner")
                except ValueError:
                    await call("d.do", undo="d.undo")
                raise KeyError("outer")
        except KeyError:
            return "undone"

    table = Table(nested)
    table.ok("b_do", "a_do", "c_do", "undo_c_do", "d_do", "undo_d_do", "undo_a_do", "undo_b_do")
    assert table.output == "undone"
    run(nested)


def test_time_outs_undo_too() -> None:
    @flow("slow")
    async def slow() -> str:
        try:
            async with asyncio.timeout(10), saga():
                await call("a.do", undo="a.undo")
                await call("b.do", undo="b.undo")
        except TimeoutError:
            return "too late"
        return "in time"

    table = Table(slow)
    table.ok("a_do")
    table.ring("sleep")
    assert table.outcome.dropped == ("b_do",)
    assert table.slots == ["undo_a_do"]
    table.ok("undo_a_do")
    assert table.output == "too late"
    run(slow)


def test_what_completes_as_it_is_cancelled_is_undone() -> None:
    @flow("tight")
    async def tight() -> None:
        async with saga(), asyncio.TaskGroup() as group:
            first = group.create_task(call("a.do", undo="a.undo"))

            async def spoil() -> None:
                await asyncio.wait([first])
                raise StepFailed("spoilt", type="Spoilt")

            group.create_task(spoil())

    table = Table(tight)
    table.ok("a_do")
    assert table.slots == ["undo_a_do"]
    table.ok("undo_a_do")
    assert table.error.type == "Spoilt"


def test_going_on_as_new_undoes_nothing() -> None:
    @flow("again")
    async def again() -> None:
        async with saga():
            await call("a.do", undo="a.undo")
            continue_as_new()

    table = Table(again)
    table.ok("a_do")
    assert table.continued == {}


# -- cancelled while it undoes ---------------------------------------------------------------


@flow("refunded")
async def refunded() -> str:
    try:
        async with asyncio.timeout(10), saga():
            await call("a.do", undo="a.undo")
            await call("b.do", undo="b.undo")
            raise ValueError("no")
    except TimeoutError:
        return "too late"


def test_a_time_out_waits_until_all_is_undone() -> None:
    table = Table(refunded)
    table.ok("a_do", "b_do")
    table.ring("sleep")
    assert table.slots == ["undo_b_do"]
    table.crash()
    assert not table.run.lets_go("undo_b_do")
    table.ok("undo_b_do", "undo_a_do")
    assert table.output == "too late"
    assert [table.run.undo(slot) for slot in ("a_do", "b_do")] == [None, None]
    run(refunded)


@pytest.mark.parametrize("after", ["b_do", "undo_b_do"])
@pytest.mark.parametrize("cancels", [1, 2])
def test_a_cancel_waits_until_all_is_undone(after: str, cancels: int) -> None:
    table = Table(refunded)
    table.ok("a_do", "b_do", *([after] if after == "undo_b_do" else []))
    undoing = table.slots[-1]
    for _ in range(cancels):
        table.cancel()
    assert undoing in table.slots
    table.crash()
    table.ok(*(slot for slot in ("undo_b_do", "undo_a_do") if slot != after))
    assert table.error.type == "Cancelled"
    assert [table.run.undo(slot) for slot in ("a_do", "b_do")] == [None, None]


def test_a_cancel_that_is_to_undo_nothing_lets_end_what_it_undoes_and_begins_no_more() -> None:
    table = Table(refunded)
    table.ok("a_do", "b_do")
    table.cancel(compensate=False)
    table.ok("undo_b_do")
    assert table.error.type == "Cancelled"
    assert table.run.undo("a_do") is not None


def test_a_cancel_is_not_lost_to_an_undo_that_gives_up() -> None:
    table = Table(refunded)
    table.ok("a_do", "b_do")
    table.cancel()
    table.fail("undo_b_do", "Down")
    assert table.error.type == "Cancelled"
    assert [table.run.undo(slot) is None for slot in ("a_do", "b_do")] == [False, False]


def test_a_task_that_undoes_when_its_flow_ends_is_waited_for() -> None:
    async def side() -> None:
        async with saga():
            await call("a.do", undo="a.undo")
            raise ValueError("no")

    @flow("sides")
    async def sides() -> str:
        task = asyncio.create_task(side())
        await call("b.do")
        return f"done, {task.done()}"

    table = Table(sides)
    table.ok("a_do", "b_do")
    assert table.slots == ["undo_a_do"]
    table.ok("undo_a_do")
    assert table.output == "done, False"
    assert table.run.undo("a_do") is None


def test_an_older_journal_tells_of_an_undo_that_a_time_out_has_dropped() -> None:
    table = Table(refunded)
    table.ok("a_do", "b_do")
    assert len(table.recorded) == 1
    table.recorded.clear()  # as an older version would have left it
    table.transcript[-1][2] = []
    table.crash()
    table.ring("sleep")
    assert table.outcome.dropped == ("undo_b_do",)
    assert table.output == "too late"
    assert table.run.undo("b_do") is not None


def test_what_another_worker_group_did_it_undoes() -> None:
    @flow("far")
    async def far() -> None:
        async with saga():
            await call("a.do", undo="a.undo", queue="far")
            raise ValueError("no")

    table = Table(far)
    table.ok("a_do")
    own = table.run.undo("a_do")
    assert own is not None
    assert table.wants["undo_a_do"].policy == own.policy
    assert own.policy.queue == "far"
