"""What children and other worker groups have done when an execution ends early: undone, or at least named."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.kernel.programs import Node, Toy
from tests.unit.kernel.table import Table
from wpa import plan
from wpa.kernel import requests
from wpa.kernel.execution import Attempt
from wpa.kernel.program import Child, Retry, StepPolicy, Wait

HOUR = 3_600_000
MINUTE = 60_000
ONCE = Retry(max_attempts=1)
UNDOES = StepPolicy(retry=ONCE, on_error="compensate")
KINDS = ("child", "remote")


def elsewhere(kind: str, **policy: Any) -> Node:
    """A step that can be undone, and that others do."""
    if kind == "remote":
        policy = {"retry": ONCE, "on_error": "compensate", **policy}
        return Node("k", undo=True, policy=StepPolicy(queue="far", **policy))
    return Node("k", kind="child", undo=True, wait=Wait(child=Child(workflow="w")), policy=UNDOES)


def go() -> Node:
    return Node("w", kind="signal", wait=Wait(signal="go"))


def pause(table: Table) -> None:
    assert table.ask(requests.paused(table.state, {}, "", table.now_ms))


def resume(table: Table) -> None:
    assert table.ask(requests.resumed(table.state, {}, "", table.now_ms, f"r-{table.serial}"))


def cancel(table: Table, *, compensate: bool = True) -> None:
    assert table.ask(requests.cancel_requested(table.state, {}, "", compensate, table.now_ms, "c-1"))


def report(table: Table, *, error: dict[str, Any] | None = None, attempt: int = 1) -> None:
    """The end of ``k``, wherever it was."""
    status = "FAILED" if error else "COMPLETED"
    told = {"status": status, "attempt": attempt, "output": {"paid": 1}, "error": error}
    assert table.tell("k", told, id=f"result:k:{attempt}")


# -- what is recorded already ----------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("crash", [False, True])
def test_what_had_been_done_in_a_pause_is_undone_where_a_cancel_ends_it(kind: str, crash: bool) -> None:
    table = Table(Toy(elsewhere(kind), Node("after", "k"), go()))
    pause(table)
    report(table)
    cancel(table)
    if crash:
        table.crash()
    assert (table.state.status, table.state.undo) == ("COMPENSATING", ["k:undo"])
    assert "after" not in table.state.slots
    table.ok("k:undo")
    assert (table.state.status, table.state.undone) == ("CANCELLED", ["k"])


def test_a_child_that_nobody_waits_for_has_been_started_when_a_cancel_comes_just_then() -> None:
    started = Node("k", "a", kind="child", undo=True, wait=Wait(child=Child(workflow="w", detached=True)))
    table = Table(Toy(Node("a"), started))
    table.record(table.execution.attempted(Attempt(slot="a", started_ms=table.now_ms), table.now_ms))
    assert table.state.open == ["k"]
    cancel(table)
    assert table.state.undo == ["k:undo"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_had_been_done_is_named_where_nothing_is_to_be_undone(kind: str) -> None:
    table = Table(Toy(elsewhere(kind), go()))
    pause(table)
    report(table)
    cancel(table, compensate=False)
    assert (table.state.status, table.state.not_undone) == ("CANCELLED", ["k"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("on_error", "status"), [("compensate", "ROLLED_BACK"), ("fail", "FAILED")])
def test_what_had_been_done_is_undone_or_named_where_another_step_fails(
    kind: str, on_error: Any, status: str
) -> None:
    bad = Node("b", policy=StepPolicy(retry=ONCE, on_error=on_error))
    table = Table(Toy(elsewhere(kind), Node("after", "k"), bad, go()))
    pause(table)
    report(table)
    table.fail("b")
    resume(table)
    assert "after" not in table.state.slots
    if on_error == "compensate":
        table.ok("k:undo")
    assert (table.state.status, table.state.undone) == (status, ["k"] if on_error == "compensate" else [])
    assert table.state.not_undone == ([] if on_error == "compensate" else ["k"])


@pytest.mark.parametrize("kind", KINDS)
def test_what_had_been_done_is_undone_where_the_time_is_over_and_nothing_more_begins(kind: str) -> None:
    toy = Toy(elsewhere(kind), Node("after", "k"), go())
    toy.timeout_ms = HOUR
    table = Table(toy)
    pause(table)
    report(table)
    table.now_ms += HOUR
    resume(table)
    assert table.state.slots["k"].status == "completed"
    assert "after" not in table.state.slots
    table.ok("k:undo")
    assert (table.state.status, table.state.undone) == ("ROLLED_BACK", ["k"])


@pytest.mark.parametrize(
    "where", [{"uses": "o.k", "queue": "far"}, {"uses": "core.workflow", "with": {"workflow": "w"}}]
)
def test_what_had_been_done_is_undone_where_the_plan_itself_breaks(where: dict[str, Any]) -> None:
    steps = [
        {"id": "k", "compensate": {"uses": "o.undo"}, **where},
        {"id": "a", "uses": "o.a", "set": {"x": "${steps.a.output.missing}"}},
        {"id": "w", "uses": "core.wait", "with": {"signal": "go"}},
    ]
    table = Table(plan.load({"id": "p", "version": "1", "steps": steps}))
    pause(table)
    report(table)
    table.ok("a")
    resume(table)
    table.ok("k:undo")
    assert (table.state.status, table.state.undone) == ("ROLLED_BACK", ["k"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_elsewhere_is_no_second_reason_to_end(kind: str) -> None:
    """Recorded, it would have what was stopped for the first one waited for."""
    table = Table(Toy(elsewhere(kind), go()))
    pause(table)
    report(table, error={"type": "Boom", "message": "no"})
    cancel(table)
    assert table.events[-1] == "cancelled"
    assert "step_failed" not in table.events


# -- what is under way -----------------------------------------------------------------------


def failing(**policy: Any) -> Table:
    """``k`` is under way elsewhere when ``b`` gives up."""
    table = Table(Toy(elsewhere("remote", **policy), Node("after", "k"), Node("b", policy=UNDOES), go()))
    table.fail("b")
    assert (table.state.status, table.state.open) == ("RUNNING", ["w", "k"])
    return table


@pytest.mark.parametrize("crash", [False, True])
def test_a_step_elsewhere_is_waited_for_and_undone_when_another_gives_up(crash: bool) -> None:
    table = failing()
    assert table.execution.wake_ms() is None
    table.crash() if crash else table.rest()
    table.signal("go")  # what only waits is not waited for
    assert table.state.slots["k"].status == "open"
    report(table)
    assert (table.state.status, table.state.slots["w"].status) == ("COMPENSATING", "cancelled")
    table.ok("k:undo")
    assert (table.state.status, table.state.undone) == ("ROLLED_BACK", ["k"])
    assert table.state.failed_step == "b"
    assert "after" not in table.state.slots


def test_a_step_elsewhere_that_fails_then_is_not_tried_again() -> None:
    table = failing(retry=Retry(max_attempts=9, initial_ms=HOUR))
    report(table, error={"type": "Boom", "message": "no"})
    assert (table.state.status, table.state.failed_step) == ("ROLLED_BACK", "b")
    assert table.state.slots["k"].failures == 1


def test_a_step_elsewhere_that_waits_for_its_next_attempt_is_not_waited_for() -> None:
    again = Retry(max_attempts=9, initial_ms=HOUR)
    table = Table(Toy(elsewhere("remote", retry=again), Node("b", policy=UNDOES)))
    report(table, error={"type": "Boom", "message": "no"})
    assert table.state.slots["k"].retry_at
    table.fail("b")
    assert table.state.status == "ROLLED_BACK"


def test_a_step_elsewhere_is_waited_for_until_its_deadline() -> None:
    table = failing(deadline_ms=MINUTE)
    table.rest()
    table.wake()
    assert table.state.status == "ROLLED_BACK"
    assert table.state.slots["k"].error is not None
    assert table.state.slots["k"].error.type == "DeadlineExceeded"
    assert table.state.failed_step == "b"


def test_a_cancel_does_not_wait_for_what_is_under_way_elsewhere() -> None:
    table = failing()
    table.rest()
    cancel(table)
    assert table.state.status == "CANCELLED"
