"""What ends late, is held back, or is tried again: pauses, deadlines, dropped slots, retries in place."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.kernel.programs import Node, Toy
from tests.unit.kernel.table import EPOCH_MS, Table
from wpa import approval, call, child, flow, plan, signal
from wpa.flows import flow_of
from wpa.kernel import requests
from wpa.kernel.execution import Attempt, Execution, Start
from wpa.kernel.program import Child, Program, Retry, StepPolicy, Wait
from wpa.model.state import decode_state, encode_state
from wpa.model.times import parse_ms, rfc3339

HOUR = 3_600_000
ONCE = StepPolicy(retry=Retry(max_attempts=1))


def race() -> Program:
    """``a`` against a nap of an hour; ``after`` follows whichever is first."""
    steps: list[dict[str, Any]] = [
        {"id": "nap", "uses": "core.sleep", "with": {"for": "1h"}},
        {"id": "a", "uses": "toy.step"},
        {"id": "other", "uses": "toy.step"},
        {"id": "after", "uses": "toy.step", "needs": ["nap", "a"], "join": "race"},
    ]
    return plan.load({"id": "toy", "version": "1", "steps": steps})


def pause(table: Table) -> None:
    assert table.ask(requests.paused(table.state, {}, "", table.now_ms))


def retry(table: Table) -> None:
    assert table.ask(requests.retried(table.state, {}, table.now_ms, "task-9"))


def rebuilt(table: Table) -> Execution:
    """The execution as another worker would load it."""
    return Execution.rebuild(table.program, decode_state(encode_state(table.folded())), table.limits)


# -- delayed starts --------------------------------------------------------------------------


def test_a_delayed_start_is_over_when_it_is_due_even_where_nothing_can_be_opened_first() -> None:
    program = Toy(Node("if", decision={"taken": []}), Node("a", "if"))
    start = Start(tenant="acme", execution="x1", start_hash="h", lease="1-1", start_at_ms=EPOCH_MS + HOUR)
    table = Table(program, start=start)
    assert table.execution.wake_ms() == EPOCH_MS + HOUR
    table.now_ms += HOUR
    table.follow()
    assert table.events == ["started", "resumed", "decision_point"]
    assert table.state.start_at == ""
    assert table.execution.wake_ms() is None  # or a driver would look again, and again, at once


def test_one_that_is_paused_when_it_is_due_begins_after_the_pause() -> None:
    start = Start(tenant="acme", execution="x1", start_hash="h", lease="1-1", start_at_ms=EPOCH_MS + HOUR)
    table = Table(Toy(Node("a")), start=start)
    table.rest()
    pause(table)
    table.now_ms += 2 * HOUR
    assert rebuilt(table).wake_ms() is None
    table.ask(requests.resumed(table.state, {}, "", table.now_ms, "task-2"))
    assert (table.events[-2:], table.state.start_at, table.state.open) == (["resumed", "resumed"], "", ["a"])


def test_a_crash_just_before_a_delayed_start_changes_nothing() -> None:
    start = Start(tenant="acme", execution="x1", start_hash="h", lease="1-1", start_at_ms=EPOCH_MS + HOUR)
    table = Table(Toy(Node("a")), start=start)
    table.rest()
    table.now_ms += HOUR
    woken = requests.woken(table.state, table.now_ms, "due-1")
    table.epoch += 1
    table.record(woken)  # and no more: its driver dies
    assert (table.state.begun, table.state.open) == (False, [])
    table.crash()
    assert (table.state.begun, table.state.open) == (True, ["a"])


# -- deadlines -------------------------------------------------------------------------------


def expiring(*nodes: Node) -> Toy:
    toy = Toy(*nodes)
    toy.timeout_ms = HOUR
    return toy


def test_a_deadline_that_has_passed_does_not_end_what_undoes_the_work() -> None:
    table = Table(expiring(Node("a", undo=True), Node("b", "a")))
    table.ok("a")
    table.now_ms += HOUR
    table.follow()
    assert table.state.status == "COMPENSATING"
    assert table.execution.ending(table.now_ms) is None


def test_a_deadline_that_passes_in_a_pause_takes_effect_when_the_pause_ends() -> None:
    table = Table(expiring(Node("a", undo=True), Node("b", "a")))
    table.ok("a")
    pause(table)
    table.now_ms += HOUR
    table.follow()
    assert table.execution.ending(table.now_ms) is None
    assert table.execution.wake_ms() is None
    assert table.state.status == "PAUSED"
    assert table.ask(requests.resumed(table.state, {}, "", table.now_ms, "task-9"))
    assert table.state.status == "COMPENSATING"


# -- a plan that can't go on -----------------------------------------------------------------


def breaking(*beside: dict[str, Any], **more: Any) -> Table:
    """``a`` can be undone, and breaks the plan when it completes, ``beside`` other steps."""
    a = {"id": "a", "uses": "toy.step", "set": {"x": "${steps.a.output.missing}"}}
    steps = [{**a, "compensate": {"uses": "toy.undo"}}, *beside]
    return Table(plan.load({"id": "toy", "version": "1", "steps": steps, **more}))


WAIT = {"id": "w", "uses": "core.wait", "with": {"signal": "go"}}


def test_a_plan_that_its_set_breaks_gives_up_what_it_waits_for() -> None:
    table = breaking(WAIT)
    table.ok("a")
    assert table.state.status == "COMPENSATING"
    assert table.state.error is not None
    assert "steps.a.output.missing" in table.state.error.message
    assert table.state.slots["w"].status == "cancelled"
    table.ok("a:undo")
    assert (table.state.status, table.state.undone) == ("ROLLED_BACK", ["a"])


def test_a_plan_that_its_set_breaks_lets_what_runs_end_and_undoes_it_too() -> None:
    b = {"id": "b", "uses": "toy.step", "compensate": {"uses": "toy.undo"}}
    c = {"id": "c", "uses": "toy.step"}
    table = breaking(b, c, WAIT, max_parallel=2)
    assert table.state.open == ["w", "a", "b"]
    table.ok("a")
    assert (table.state.status, table.last.data["next"]) == ("RUNNING", ["w", "b"])
    table.crash()
    assert (table.state.status, table.state.open) == ("RUNNING", ["w", "b"])
    table.ok("b")
    assert (table.state.status, table.state.undo) == ("COMPENSATING", ["b:undo", "a:undo"])
    assert "c" not in table.state.slots


def test_what_an_older_worker_began_after_a_plan_was_broken_may_end() -> None:
    table = breaking({"id": "b", "uses": "toy.step"}, {"id": "c", "uses": "toy.step"}, max_parallel=2)
    table.ok("a")
    table.last.data["next"].append("c")
    table.crash()
    assert (table.state.status, table.state.open) == ("RUNNING", ["b", "c"])
    table.ok("b", "c")
    assert (table.state.status, table.state.order) == ("COMPENSATING", ["a", "b", "c"])


@pytest.mark.parametrize("on_error", ["fail", "compensate"])
@pytest.mark.parametrize("retryable", [True, False])
def test_a_plan_that_its_set_breaks_is_undone_however_another_step_fails(
    on_error: str, retryable: bool
) -> None:
    table = breaking({"id": "b", "uses": "toy.step", "on_error": on_error})
    table.ok("a")
    table.fail("b", retryable=retryable)
    assert table.state.status == "COMPENSATING"
    assert table.state.error is not None
    assert "steps.a.output.missing" in table.state.error.message
    assert table.state.undo == ["a:undo"]


def test_a_plan_that_its_set_breaks_begins_no_other_attempt() -> None:
    b = {"id": "b", "uses": "toy.step", "retry": {"max_attempts": 9}}
    table = breaking(b, {"id": "c", "uses": "toy.step"})
    table.fail("b")
    table.ok("a")
    assert (table.state.status, table.state.slots["b"].attempt) == ("RUNNING", 2)
    assert table.execution.fails
    assert table.execution.wake_ms() is None
    table.fail("c")
    assert (table.last.event, table.state.undo) == ("workflow_compensating", ["a:undo"])
    assert table.state.slots["c"].status == "failed"


def test_a_plan_that_its_set_breaks_lets_another_attempt_end_that_has_begun() -> None:
    table = breaking(
        {"id": "b", "uses": "toy.step", "retry": {"max_attempts": 9}}, {"id": "c", "uses": "toy.step"}
    )
    table.fail("b")
    table.ok("a")
    table.record(table.execution.attempted(Attempt(slot="c", started_ms=table.now_ms), table.now_ms))
    assert table.execution.follow_up(table.now_ms, busy={"b"}) is None
    table.ok("b")
    assert table.state.order == ["a", "c", "b"]
    assert table.state.status == "COMPENSATING"


FAR = {"id": "far", "uses": "toy.step", "queue": "gpu", "deadline": "2h", "compensate": {"uses": "toy.undo"}}


def test_a_plan_that_its_set_breaks_waits_for_another_worker_that_runs_a_step() -> None:
    table = breaking(FAR)
    table.ok("a")
    table.rest()
    assert table.state.status == "WAITING"
    table.tell("far", {"attempt": 1, "output": 1})
    assert (table.state.status, table.state.undo) == ("COMPENSATING", ["far:undo", "a:undo"])


def test_a_plan_that_its_set_breaks_waits_no_longer_than_a_steps_deadline() -> None:
    table = breaking(FAR, {"id": "b", "uses": "toy.step", "on_error": "fail"}, timeout="1h")
    table.ok("a")
    table.fail("b", retryable=False)
    table.rest()
    assert parse_ms(table.state.wake_at) == EPOCH_MS + 2 * HOUR
    table.wake()
    assert (table.state.status, table.state.undo) == ("COMPENSATING", ["a:undo"])


# -- dropped slots ---------------------------------------------------------------------------


def test_what_loses_a_race_in_a_pause_is_dropped_in_the_pause() -> None:
    table = Table(race())
    pause(table)
    table.ok("a")
    assert table.last.data["dropped"] == ["nap"]
    assert table.last.data["next"] == ["other"]
    assert table.state.open == ["other"]


def test_what_lost_a_race_and_is_still_recorded_as_open_is_dropped_after_a_rebuild() -> None:
    table = Table(race())
    pause(table)
    table.ok("a")
    del table.journal[-1].data["dropped"]  # as an older version would have written it
    table.journal[-1].data["next"].insert(0, "nap")
    execution = rebuilt(table)
    assert execution.state.open == ["nap", "other"]
    assert execution.state.seq == len(table.journal)
    draft = requests.resumed(execution.state, {}, "", table.now_ms, "task-9")
    table.execution = execution
    assert table.ask(draft)
    assert table.last.data["dropped"] == ["nap"]
    assert table.state.open == ["other", "after"]


@pytest.mark.parametrize("kind", ["sleep", "signal", "approval", "child", "remote"])
def test_what_newer_code_does_not_wait_for_is_dropped_whatever_was_told(kind: str) -> None:
    code = "old"

    async def wait() -> Any:
        match kind:
            case "sleep":
                return await asyncio.sleep(3600)
            case "signal":
                return await signal("go")
            case "approval":
                return await approval("?", users=["ana"])
            case "child":
                return await child("other")
            case _:
                return await call("toy.far", queue="gpu", step_name="far")

    @flow("f")
    async def waiter() -> Any:
        waiting = asyncio.create_task(wait())
        await call("toy.step", step_name="one")
        if code == "new":
            waiting.cancel()
        return await call("toy.step", step_name="a")

    program = flow_of(waiter)
    assert program is not None
    table = Table(program)
    table.ok("one")
    [loser] = [slot_id for slot_id in table.state.open if slot_id != "a"]
    before = len(table.journal)
    table.signal("go") if kind == "signal" else table.tell(loser, {"approved": True, "status": "COMPLETED"})
    del table.journal[before + 1 :]  # it is told, and nobody was there to take it
    code = "new"
    table.crash()
    assert table.last.data["dropped"] == [loser]
    table.ok("a")
    assert table.state.status == "COMPLETED"


# -- tried again -----------------------------------------------------------------------------


def test_a_child_that_failed_is_started_anew_under_another_id() -> None:
    table = Table(Toy(Node("c", kind="child", wait=Wait(child=Child(workflow="w")), policy=ONCE)))
    assert table.state.slots["c"].name == "x1-c"
    table.tell("c", {"status": "FAILED"}, id="child:c:1:1")
    assert table.state.status == "FAILED"
    retry(table)
    assert table.state.slots["c"].name == "x1-c-retry2"
    table.tell("c", {"status": "COMPLETED", "output": 1}, id="child:c:1:2")
    assert table.state.status == "COMPLETED"


def test_a_child_that_an_older_journal_names_is_awaited_and_tried_again_under_that_name() -> None:
    table = Table(Toy(Node("c-2", kind="child", wait=Wait(child=Child(workflow="w")), policy=ONCE)))
    opened = next(event for event in table.journal if "waits" in event.data)
    opened.data["waits"]["c-2"]["name"] = "x1-c-2"
    table.crash()
    assert table.state.slots["c-2"].name == "x1-c-2"
    table.tell("c-2", {"status": "FAILED"}, id="child:c-2:1:1")
    retry(table)
    table.crash()
    assert table.state.slots["c-2"].name == "x1-c-2-retry2"
    table.tell("c-2", {"status": "COMPLETED", "output": 1}, id="child:c-2:1:2")
    assert table.state.status == "COMPLETED"


def test_a_wait_that_timed_out_waits_as_long_once_more() -> None:
    table = Table(Toy(Node("w", kind="signal", wait=Wait(signal="go", delay_ms=HOUR), policy=ONCE)))
    table.now_ms += HOUR
    table.follow()
    assert table.state.status == "FAILED"
    table.now_ms += HOUR
    retry(table)
    assert table.state.status == "RUNNING"
    assert parse_ms(table.state.slots["w"].until) == table.now_ms + HOUR
    table.signal("go")
    assert table.state.status == "COMPLETED"


def test_what_is_tried_again_ends_by_its_new_deadline() -> None:
    table = Table(
        expiring(Node("a", policy=ONCE), Node("b", "a", kind="timer", wait=Wait(delay_ms=9 * HOUR)))
    )
    table.fail("a")
    table.now_ms += 3 * HOUR
    draft = requests.retried(table.state, {}, table.now_ms, "task-9")
    assert draft is not None
    draft.data["deadline_at"] = rfc3339(table.now_ms + HOUR)
    table.ask(draft)
    assert table.state.status == "RUNNING"
    table.ok("a")
    assert table.execution.wake_ms() == parse_ms(table.state.deadline_at)
    table.now_ms += HOUR
    table.follow()
    assert table.state.status == "FAILED"


def test_everything_that_had_given_up_is_tried_again() -> None:
    once = StepPolicy(at_most_once=True)
    table = Table(Toy(Node("a", policy=once), Node("b", policy=once)))
    table.crash()
    assert table.events[-3:] == ["step_failed", "step_failed", "failed"]
    retry(table)
    assert sorted(table.state.open) == ["a", "b"]
    table.ok("a", "b")
    assert table.state.status == "COMPLETED"
