"""A cancel comes into the flow's own code: ``except``, ``finally``, ``async with`` and ``saga()`` run, durably."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from wpa.errors import StepFailed, TaskRejected
from wpa.flows import call, child, continue_as_new, flow, log, now, patched, saga, side_effect, signal
from wpa.flows.errors import FlowDeclarationError
from wpa.kernel.fork import taken_over
from wpa.model.state import decode_state, encode_state
from wpa.testing import Result, Run, assert_replays, fail, replay, run

MOCKS: dict[str, Any] = {
    "room.book": {"id": "r-1"},
    "room.free": None,
    "desk.tell": lambda **told: told,
}


def tell(what: str) -> Any:
    return call("desk.tell", what=what)


def told(result: Result) -> list[str]:
    """What the desk was told, in order."""
    return [call.inputs["what"] for call in result.calls if call.uses == "desk.tell"]


def cancelled(
    workflow: Any, *others: Any, at: str = "10m", everywhere: bool = False, mocks: Any = None, **how: Any
) -> Result:
    """The end of a flow that is cancelled; with ``everywhere``, the same wherever a worker dies."""

    def script(started: Run) -> None:
        started.cancel("no more", at=at, **how)

    mocks = MOCKS | (mocks or {})
    return run(workflow, others=others, mocks=mocks, script=script, crash_everywhere=everywhere)


@flow("stay")
async def stay() -> str:
    await call("room.book", step_name="book", undo="room.free")
    try:
        await signal("leave")
    except asyncio.CancelledError:
        await tell("cancelled")
        await asyncio.sleep(1200)
        raise
    finally:
        await tell("gone")
    return "left"


# -- what runs -------------------------------------------------------------------------------


def test_handlers_run_with_all_they_await_and_then_what_was_done_is_undone() -> None:
    result = cancelled(stay, everywhere=True)
    assert (result.status, result.undone, told(result)) == ("CANCELLED", ["book"], ["cancelled", "gone"])
    assert result.duration_ms == (600 + 1200) * 1000
    assert [call.uses for call in result.calls][-1] == "room.free"
    assert result.error is not None
    assert (result.error.type, result.error.message) == ("Cancelled", "no more")
    # So that a worker of before, which does not know this event, sees that it can't go on.
    points = list(result.crash_points)
    told_at = points.index("after the append of workflow_resumed of stay-1")
    assert points[told_at + 1] == "before the snapshot of stay-1"


def test_handlers_run_without_compensation_too() -> None:
    result = cancelled(stay, compensate=False)
    assert (result.status, result.undone, result.not_undone) == ("CANCELLED", [], ["book"])
    assert told(result) == ["cancelled", "gone"]
    assert result.error is None


def test_a_step_that_is_under_way_is_stopped_and_its_flow_told() -> None:
    stopped = []

    async def slow(what: str) -> None:
        try:
            await asyncio.sleep(3600 if what == "slow" else 0)
        except asyncio.CancelledError:
            stopped.append(what)
            raise

    @flow("under-way")
    async def under_way() -> None:
        try:
            await tell("slow")
        finally:
            await tell("over")

    result = cancelled(under_way, at="10s", mocks={"desk.tell": slow})
    assert (result.status, told(result), stopped) == ("CANCELLED", ["slow", "over"], ["slow"])
    assert result.duration_ms < 11_000


def test_a_shielded_step_goes_on_and_its_result_can_be_had() -> None:
    async def slow(what: str) -> str:
        await asyncio.sleep(60 if what == "slow" else 0)
        return what

    heard = []

    @flow("shielded")
    async def shielded() -> None:
        paying = asyncio.ensure_future(call("desk.tell", what="slow", at_most_once=True))
        try:
            await asyncio.shield(paying)
        except asyncio.CancelledError:
            await tell("wait")
            heard.append(await paying)
            raise

    result = cancelled(shielded, at="10s", mocks={"desk.tell": slow})
    assert (result.status, told(result), heard) == ("CANCELLED", ["slow", "wait"], ["slow"])
    assert result.duration_ms == 60_000


def test_async_with_exits_run_inside_out() -> None:
    @asynccontextmanager
    async def door(name: str) -> AsyncIterator[None]:
        await tell(f"open {name}")
        try:
            yield
        finally:
            await tell(f"close {name}")

    @flow("doors")
    async def doors() -> None:
        async with door("outer"), door("inner"):
            await signal("leave")

    result = cancelled(doors)
    assert (result.status, told(result)[2:]) == ("CANCELLED", ["close inner", "close outer"])


@flow("trip")
async def trip() -> None:
    await call("room.book", step_name="first", undo="room.free")
    async with saga():
        await call("room.book", step_name="second", undo="room.free")
        await call("room.book", step_name="third", undo="room.free")
        await signal("leave")


def test_a_saga_undoes_its_own_and_the_execution_the_rest() -> None:
    result = cancelled(trip, everywhere=True)
    assert (result.status, result.undone) == ("CANCELLED", ["first"])
    undoing = [call.step for call in result.calls if call.uses == "room.free"]
    assert undoing == ["undo_third", "undo_second", "first"]


@flow("giving_up")
async def giving_up() -> None:
    async with saga():
        await call("room.book", step_name="first", undo="room.free")
        await call("room.book", step_name="second", undo="room.free")
        raise ValueError("no")


@pytest.mark.parametrize("at", ["1s", "6s"])
def test_a_saga_that_undoes_already_undoes_each_once(at: str) -> None:
    async def free(id: str) -> None:
        await asyncio.sleep(5)

    result = cancelled(giving_up, at=at, everywhere=True, mocks={"room.free": free})
    assert (result.status, result.undone) == ("CANCELLED", [])
    undoing = [call.step for call in result.calls if call.uses == "room.free"]
    assert undoing == ["undo_second", "undo_first"]


def test_a_saga_undoes_nothing_where_nothing_is_to_be_undone() -> None:
    result = cancelled(trip, compensate=False)
    assert (result.status, result.not_undone) == ("CANCELLED", ["third", "second", "first"])
    assert "room.free" not in [call.uses for call in result.calls]


def test_a_task_group_passes_it_on_and_waits_for_its_tasks() -> None:
    async def guest(name: str) -> None:
        try:
            await signal(name)
        finally:
            await tell(f"bye {name}")

    @flow("group")
    async def group() -> None:
        async with asyncio.TaskGroup() as guests:
            for name in ("ada", "bob"):
                guests.create_task(guest(name))

    result = cancelled(group)
    assert (result.status, told(result)) == ("CANCELLED", ["bye ada", "bye bob"])


def test_tasks_of_its_own_are_cancelled_when_it_has_ended() -> None:
    async def watcher() -> None:
        try:
            await asyncio.sleep(10**6)
        finally:
            await tell("watched")

    @flow("watched")
    async def watched() -> None:
        watching = asyncio.create_task(watcher())
        try:
            await signal("leave")
        finally:
            await tell("main")
            assert not watching.done()

    result = cancelled(watched, everywhere=True)
    assert (result.status, told(result)) == ("CANCELLED", ["main", "watched"])


def test_time_outs_work_in_a_clean_up() -> None:
    @flow("hurried")
    async def hurried() -> None:
        try:
            await signal("leave")
        finally:
            try:
                await asyncio.wait_for(signal("never"), 60)
            except TimeoutError:
                await tell("late")

    result = cancelled(hurried)
    assert (result.status, told(result), result.duration_ms) == ("CANCELLED", ["late"], 660_000)


def test_a_wait_cut_short_by_a_time_out_of_its_own_is_cancelled_all_the_same() -> None:
    @flow("within")
    async def within() -> None:
        try:
            async with asyncio.timeout(3600):
                await signal("leave")
        except TimeoutError:
            await tell("it was the time-out")
        except asyncio.CancelledError:
            await tell("it was the cancel")
            raise

    assert told(cancelled(within)) == ["it was the cancel"]


def test_it_is_told_once_and_after_what_was_recorded_before() -> None:
    seen = []

    @flow("observant")
    async def observant() -> None:
        number = await side_effect(lambda: 7)
        try:
            await signal("leave")
        except asyncio.CancelledError:
            host = await side_effect(lambda: "host")
            seen.append((number, host, patched("new"), now().minute))
            log.info("cancelled")
            await tell("once")
            await asyncio.sleep(60)
            raise

    result = cancelled(observant)
    assert told(result) == ["once"]
    assert set(seen) == {(7, "host", True, 10)}


# -- how it ends -----------------------------------------------------------------------------


def test_whatever_way_it_ends_it_is_cancelled() -> None:
    @flow("returns")
    async def returns() -> str:
        try:
            await signal("leave")
        except asyncio.CancelledError:
            await tell("fine")
        return "as if nothing had happened"

    @flow("raises")
    async def raises() -> None:
        await call("room.book", step_name="book", undo="room.free")
        try:
            await signal("leave")
        finally:
            raise StepFailed("the door is locked", type="Locked")

    @flow("begins-anew")
    async def begins_anew() -> None:
        try:
            await signal("leave")
        except asyncio.CancelledError:
            continue_as_new()

    result = cancelled(returns)
    assert (result.status, result.output, result.error) == ("CANCELLED", None, None)
    result = cancelled(raises)
    assert (result.status, result.undone) == ("CANCELLED", ["book"])
    assert result.error is not None
    assert result.error.message == "no more; its clean-up failed: Locked: the door is locked"
    result = cancelled(raises, compensate=False)
    assert result.error is not None
    assert result.error.details == {"cleanup": "its clean-up failed: Locked: the door is locked"}
    assert cancelled(begins_anew).status == "CANCELLED"


def test_an_undo_that_gives_up_after_the_clean_up_fails_the_execution() -> None:
    result = cancelled(stay, mocks={"room.free": fail("Jammed", retryable=False)})
    assert (result.status, result.not_undone) == ("FAILED", ["book"])
    assert told(result) == ["cancelled", "gone"]


def test_a_flow_that_will_not_end_is_ended_when_its_time_is_over() -> None:
    @flow("stubborn", cleanup_timeout=1800)
    async def stubborn() -> None:
        await call("room.book", step_name="book", undo="room.free")
        while True:
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                await tell("not I")

    result = cancelled(stubborn)
    assert (result.status, result.undone, told(result)) == ("CANCELLED", ["book"], ["not I"])
    assert result.duration_ms == (600 + 1800) * 1000
    assert result.error is not None
    assert "its clean-up was not done by 2026-01-01T00:40:00.000Z" in result.error.message


def test_what_waits_for_nothing_that_can_come_ends_at_once() -> None:
    @flow("stuck")
    async def stuck() -> None:
        try:
            await signal("leave")
        finally:
            await asyncio.Event().wait()

    result = cancelled(stuck)
    assert result.status == "CANCELLED"
    assert result.error is not None
    assert "FlowStuck" in result.error.message


def test_terminate_ends_a_clean_up(wpa: Any) -> None:
    started = wpa(stay, mocks=MOCKS).start()
    started.cancel(at="1m")
    started.terminate("now", at="2m")
    result = started.result()
    assert (result.status, result.not_undone, told(result)) == (
        "CANCELLED",
        ["book", "desk_tell"],
        ["cancelled"],
    )


def test_its_own_deadline_is_told_in_the_same_way() -> None:
    @flow("limited", timeout=600)
    async def limited() -> None:
        await call("room.book", step_name="book", undo="room.free")
        try:
            await signal("leave")
        finally:
            await asyncio.sleep(60)
            await tell("late")

    result = run(limited, mocks=MOCKS, crash_everywhere=True)
    assert (result.status, result.undone, told(result)) == ("ROLLED_BACK", ["book"], ["late"])
    assert result.error is not None
    assert result.error.type == "DeadlineExceeded"
    assert result.duration_ms == 660_000


# -- when it comes ---------------------------------------------------------------------------


def test_the_second_cancel_changes_nothing(wpa: Any) -> None:
    started = wpa(stay, mocks=MOCKS).start()
    for at in ("1m", "2m", "3m"):
        started.cancel(at=at)
    result = started.result()
    assert (result.status, told(result)) == ("CANCELLED", ["cancelled", "gone"])
    started.cancel("once more")
    assert [event.event for event in result.events].count("workflow_cancel_requested") == 1


def test_while_it_cleans_up_it_says_so_and_can_not_be_paused(wpa: Any) -> None:
    started = wpa(stay, mocks=MOCKS).start()
    started.cancel(at="1m")
    started.skip("2m")
    assert (started.status, started.waiting_for[0]["slot"]) == ("WAITING", "sleep")
    assert started.state.cleanup is not None
    assert started.state.cleanup.until == "2026-01-01T01:01:00.000Z"
    with pytest.raises(TaskRejected, match="on its way to its end"):
        started.pause()
    started.signal("leave")
    assert started.result().status == "CANCELLED"


def test_a_paused_one_is_cancelled_at_once(wpa: Any) -> None:
    started = wpa(stay, mocks=MOCKS).start()
    started.pause(at="1m")
    started.cancel(at="2m")
    result = started.result()
    assert (result.status, told(result)) == ("CANCELLED", ["cancelled", "gone"])


def test_one_that_has_not_begun_has_nothing_to_clean_up(wpa: Any) -> None:
    started = wpa(stay, mocks=MOCKS).start(start_at="2026-01-01T10:00:00Z")
    started.cancel(at="1h")
    result = started.result()
    assert (result.status, result.calls, result.undone) == ("CANCELLED", [], [])


def test_after_months_at_rest() -> None:
    assert told(cancelled(stay, at="2000h")) == ["cancelled", "gone"]


def test_one_that_undoes_already_can_not_be_cancelled(wpa: Any) -> None:
    @flow("failing")
    async def failing() -> None:
        await call("room.book", step_name="book", undo="room.free")
        raise StepFailed("no", type="No")

    busy = MOCKS | {"room.free": fail("Busy", times=3)}
    started = wpa(failing, mocks=busy).start()
    assert started.status == "COMPENSATING"
    with pytest.raises(TaskRejected, match="undoes its steps already"):
        started.cancel()
    assert started.result().status == "ROLLED_BACK"


def test_children_are_cancelled_and_a_shielded_one_is_waited_for() -> None:
    @flow("parent")
    async def parent() -> None:
        kept = asyncio.ensure_future(child(stay, execution_id="kept"))
        try:
            await asyncio.gather(asyncio.shield(kept), child(stay, execution_id="lost"))
        finally:
            kept.cancel()
            await tell("parent")

    result = cancelled(parent, stay, everywhere=True)
    assert (result.status, told(result)) == ("CANCELLED", ["parent"])
    assert {slot.status for slot in result.steps.values() if slot.kind == "child"} == {"cancelled"}


def test_a_child_undoes_nothing_either_where_nothing_is_to_be_undone(wpa: Any) -> None:
    @flow("sends")
    async def sends() -> None:
        await child(stay, execution_id="sent")

    env = wpa(sends, stay, mocks=MOCKS)
    started = env.start()
    started.cancel(compensate=False, at="1m")
    assert started.result().status == "CANCELLED"
    result = env.execution("sent").result()
    assert (result.status, result.not_undone, told(result)) == ("CANCELLED", ["book"], ["cancelled", "gone"])


# -- what is made of it ----------------------------------------------------------------------


def test_its_journal_replays_and_other_code_is_found_out() -> None:
    result = cancelled(stay)
    for length in range(1, len(result.events) + 1):
        assert_replays(stay, result.events[:length])

    @flow("stay")
    async def changed() -> str:
        await call("room.book", step_name="book", undo="room.free")
        try:
            await signal("leave")
        finally:
            await call("desk.tell", step_name="other", what="gone")
        return "left"

    diverged = replay(changed, result.events[:6])
    assert diverged is not None
    assert "+ asked now: step other (desk.tell)" in diverged.reason


def test_a_rerun_takes_over_what_was_done_before_it_and_no_clean_up(wpa: Any) -> None:
    started = wpa(stay, mocks=MOCKS).start()
    started.cancel(compensate=False, at="1m")
    assert started.result().status == "CANCELLED"
    for step in ("desk_tell", "sleep"):
        assert [slot.id for slot in taken_over(started.state, step).settled] == ["book"]


def test_a_snapshot_says_that_an_older_worker_can_not_read_it(wpa: Any) -> None:
    started = wpa(stay, mocks=MOCKS).start()
    assert b'"format"' not in encode_state(started.state)
    started.cancel(at="1m")
    started.skip("2m")
    encoded = encode_state(started.state)
    assert b'"format":3' in encoded
    assert decode_state(encoded).cleanup == started.state.cleanup


def test_a_time_for_it_has_to_be_one() -> None:
    with pytest.raises(FlowDeclarationError, match="cleanup_timeout must be a positive number"):
        flow("no-time", cleanup_timeout=0)
