"""A flow fails while calls run that may have to be undone: they end first, and are undone then."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from tests.unit.flows.table import Table
from wpa.errors import StepFailed
from wpa.flows import call, flow, flow_of, saga
from wpa.kernel.execution import Execution, Start
from wpa.kernel.telling import Taken
from wpa.model.events import Failure
from wpa.model.limits import Limits
from wpa.model.state import Slot
from wpa.testing import Result, Run, run

BOOKED_AFTER_S = 60


@flow("order")
async def order() -> None:
    await asyncio.gather(call("a.do", undo="a.undo"), call("b.do"), call("c.do"))


@flow("shielded")
async def shielded() -> None:
    async with saga(), asyncio.TaskGroup() as group:
        group.create_task(call("b.do"))
        await asyncio.shield(call("a.do", undo="a.undo"))


@flow("loose")
async def loose() -> None:
    async with saga():
        booking = asyncio.create_task(call("a.do", undo="a.undo"))
        await call("b.do")
        await booking


@flow("tidy")
async def tidy() -> None:
    async def book() -> None:
        try:
            await call("a.do", undo="a.undo")
        finally:
            await call("c.do")

    await asyncio.gather(book(), call("b.do"))


@flow("cancelling")
async def cancelling() -> None:
    booking = asyncio.create_task(call("a.do", undo="a.undo"))
    with contextlib.suppress(StepFailed):
        await call("b.do")
    other = asyncio.create_task(call("c.do"))
    other.cancel()
    await other
    await booking


@flow("unfit")
async def unfit() -> Any:
    booking = asyncio.create_task(call("a.do", undo="a.undo"))
    await asyncio.sleep(1)
    return booking


FLOWS = [order, shielded, loose, tidy, cancelling, unfit]
TYPES = {cancelling: "Cancelled", unfit: "InvalidOutput"}


def booked(workflow: Any, *, script: Any = None, fails: bool = False, **how: Any) -> Result:
    """The end of a flow that books for a minute, and fails meanwhile."""

    async def book() -> dict[str, str]:
        await asyncio.sleep(BOOKED_AFTER_S)
        if fails:
            raise StepFailed("full", type="Full", retryable=False)
        return {"id": "a-1"}

    async def spoil() -> None:
        await asyncio.sleep(1)
        raise StepFailed("no", type="No", retryable=False)

    async def look() -> None:
        await asyncio.sleep(5)

    mocks = {"a.do": book, "b.do": spoil, "c.do": None, "d.do": look, "a.undo": lambda **given: given}
    return run(workflow, mocks=mocks, script=script, **how)


@pytest.mark.parametrize("workflow", FLOWS, ids=lambda declared: declared.__name__)
def test_what_succeeds_after_all_is_undone_wherever_a_worker_dies(workflow: Any) -> None:
    result = booked(workflow, crash_everywhere=True)
    kind = TYPES.get(workflow, "No")
    assert (result.status, result.undone, result.error.type) == ("ROLLED_BACK", ["a_do"], kind)
    [undone] = [call for call in result.calls if call.uses == "a.undo"]
    assert undone.inputs == {"id": "a-1"}
    assert result.duration_ms >= BOOKED_AFTER_S * 1000


@pytest.mark.parametrize("workflow", FLOWS, ids=lambda declared: declared.__name__)
def test_what_fails_after_all_is_not(workflow: Any) -> None:
    result = booked(workflow, fails=True)
    assert (result.status, result.undone, result.not_undone) == ("FAILED", [], [])
    assert result.error.type == TYPES.get(workflow, "No")


def test_a_cancel_does_not_wait_for_it() -> None:
    def script(started: Run) -> None:
        started.cancel("enough", at="10s")

    result = booked(order, script=script)
    assert (result.status, result.undone) == ("CANCELLED", [])
    assert result.error.message == "enough; it had failed: No: no"
    assert result.duration_ms < 11_000


def test_the_flows_own_time_does_not_cut_it_short() -> None:
    @flow("urgent", timeout=10)
    async def urgent() -> None:
        await asyncio.gather(call("a.do", undo="a.undo"), call("b.do"))

    result = booked(urgent)
    assert (result.status, result.undone, result.error.type) == ("ROLLED_BACK", ["a_do"], "No")
    assert result.duration_ms >= BOOKED_AFTER_S * 1000


def test_the_rest_is_dropped_and_told_once() -> None:
    table = Table(order)
    table.fail("b_do", "No")
    assert table.error.type == "No"
    assert table.outcome.dropped == ("c_do",)
    assert list(table.wants) == ["a_do"]
    table.crash()
    table.ok("a_do")
    assert table.outcome.dropped == ()
    assert table.run.undo("a_do") is not None


def test_what_was_not_asked_for_yet_is_not_begun() -> None:
    @flow("hasty")
    async def hasty() -> None:
        await call("b.do")
        booking = asyncio.create_task(call("a.do", undo="a.undo"))
        await asyncio.sleep(0)
        booking.add_done_callback(lambda _: None)
        raise ValueError("no")

    table = Table(hasty)
    table.ok("b_do")
    assert table.error.type == "ValueError"
    assert not table.wants


@flow("narrow", max_parallel=2)
async def narrow() -> None:
    async def tidy() -> None:
        try:
            await asyncio.sleep(3_600)
        finally:
            await call("c.do")

    await asyncio.gather(tidy(), call("b.do"), call("d.do"), call("a.do", undo="a.undo"))


def test_what_had_no_room_to_begin_is_not_begun_while_others_clean_up() -> None:
    result = booked(narrow, crash_everywhere=True)
    assert (result.status, result.undone, result.error.type) == ("FAILED", [], "No")
    assert [call.uses for call in result.calls] == ["b.do", "d.do", "c.do"]


def test_a_rerun_that_takes_over_the_failure_begins_nothing() -> None:
    program = flow_of(order)
    assert program is not None
    no = Failure(type="No", message="no", retryable=False)
    settled = Slot(id="b_do", status="failed", uses="b.do", error=no, finished_at="2026-01-01T00:00:00.000Z")
    start = Start(tenant="acme", execution="x2", start_hash="h", taken=Taken(settled=(settled,)))
    _, draft = Execution.start(program, start, 0, Limits())
    assert draft.data["next"] == []


def test_who_cancels_a_call_stops_it() -> None:
    @flow("within")
    async def within() -> None:
        async with saga(), asyncio.timeout(10):
            await call("a.do", undo="a.undo")

    result = booked(within)
    assert (result.status, result.undone, result.error.type) == ("FAILED", [], "TimeoutError")
    assert result.duration_ms < 11_000


def test_a_flow_that_succeeds_stops_what_it_leaves_running() -> None:
    @flow("content")
    async def content() -> str:
        booking = asyncio.create_task(call("a.do", undo="a.undo"))
        await asyncio.sleep(1)
        return "enough" if not booking.done() else "late"

    result = booked(content)
    assert (result.status, result.output) == ("COMPLETED", "enough")
    assert result.duration_ms < 2_000


def test_journals_of_before_tell_of_what_was_stopped() -> None:
    table = Table(order)
    table.fail("b_do", "No")
    table.recorded.clear()
    table.transcript.clear()
    table.begin(rebuilt=True)
    for told in table.history:
        table.tell(told)
    assert table.outcome.dropped == ("a_do", "c_do")
    assert not table.wants
