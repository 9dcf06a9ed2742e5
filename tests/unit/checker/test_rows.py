"""What a status says of steps, falsified in any of these ways, breaks I6: each row is held against the fold."""

from __future__ import annotations

from typing import Any

import pytest

from tests.checker.judge import judge
from tests.checker.promises.rows import shows
from tests.unit.checker.tampering import Falsify, Run

NOTHING_UNDONE: dict[str, Any] = {
    "uses": "", "status": "pending", "attempt": 0, "started_at": None, "finished_at": None, "error": None,
}  # fmt: skip


# -- steps that run once ---------------------------------------------------------------------


def another_status(run: Run) -> None:
    run.row("line-0", "a").update(status="failed")


def another_attempt(run: Run) -> None:
    run.row("line-0", "a").update(attempt=9)


def another_output(run: Run) -> None:
    run.row("line-0", "a").update(output="else")


def an_error_of_a_step_that_has_none(run: Run) -> None:
    run.row("line-0", "a").update(error={"type": "Odd", "message": "no"})


def another_error(run: Run) -> None:
    row = run.row("stubborn-2", "lose")
    row["error"] = {**row["error"], "message": "something else"}


def no_error(run: Run) -> None:
    run.row("stubborn-2", "lose").update(error=None)


def another_end(run: Run) -> None:
    run.row("line-0", "a").update(finished_at="2026-11-21T00:00:00.000Z")


def a_skipped_step_that_has_run(run: Run) -> None:
    run.row("branches-1", "much").update(status="completed")


def a_skipped_step_that_is_to_come(run: Run) -> None:
    run.row("branches-1", "much").update(status="pending")


def a_step_that_has_run_before_its_time(run: Run) -> None:
    run.row("slow-17", "b").update(status="completed")


def a_skipped_step_with_an_output(run: Run) -> None:
    run.row("branches-1", "much").update(output=1)


def a_wait_that_is_over(run: Run) -> None:
    run.row("waiter-19", "go").update(status="completed")


def a_loser_that_has_won(run: Run) -> None:
    run.row("race-5", "far").update(status="completed")


# -- loops -----------------------------------------------------------------------------------


def a_loop_that_goes_on(run: Run) -> None:
    run.row("many-3", "each").update(status="retrying")


def a_loop_that_has_failed(run: Run) -> None:
    run.row("many-3", "each").update(status="failed")


def another_attempt_at_a_loop(run: Run) -> None:
    run.row("many-3", "each")["attempt"] += 1


def another_output_of_one_item(run: Run) -> None:
    run.row("many-3", "each")["output"][3] = "else"


def another_last_round(run: Run) -> None:
    run.row("many-3", "poll").update(output={"n": 2, "before": None})


def an_error_of_no_turn(run: Run) -> None:
    run.row("many-3", "each").update(error={"type": "Odd", "message": "no"})


def too_few_turns(run: Run) -> None:
    run.row("many-3", "each")["turns"]["done"] -= 1


def a_turn_that_has_failed(run: Run) -> None:
    run.row("many-3", "each")["turns"]["failed"] += 1


# -- what undoes them ------------------------------------------------------------------------


def an_undo_that_is_not_shown(run: Run) -> None:
    run.row("saga-4", "a").update(compensation=None)


def an_undo_that_has_failed(run: Run) -> None:
    run.row("saga-4", "a")["compensation"].update(status="failed")


def an_undo_that_never_began(run: Run) -> None:
    run.row("saga-4", "a").update(compensation=NOTHING_UNDONE)


def an_undo_that_nobody_asked_for(run: Run) -> None:
    run.row("line-0", "a").update(compensation=NOTHING_UNDONE)


# -- which there are -------------------------------------------------------------------------


def a_step_that_is_missing(run: Run) -> None:
    run.document("line-0")["steps"].pop()


def a_step_that_the_plan_has_not(run: Run) -> None:
    steps = run.document("line-0")["steps"]
    steps.append({**steps[0], "step": "odd", "slot": "odd"})


def a_step_that_is_there_twice(run: Run) -> None:
    steps = run.document("line-0")["steps"]
    steps.append(steps[0])


def a_step_of_a_flow_that_is_missing(run: Run) -> None:
    run.document("flow-hello")["steps"].pop()


def no_steps_at_all(run: Run) -> None:
    run.document("line-0")["steps"].clear()


def a_status_that_nobody_told(run: Run) -> None:
    run.facts.statuses = [one for one in run.facts.statuses if one.execution != "line-0"]


def no_status_at_all(run: Run) -> None:
    run.facts.statuses.clear()


FALSIFIED: list[tuple[str, Falsify]] = [
    ("status: 'failed' for 'completed'", another_status),
    ("attempt: 9 for 1", another_attempt),
    ("output: 'else' for ", another_output),
    ("error: {'type': 'Odd'", an_error_of_a_step_that_has_none),
    ("'message': 'something else'", another_error),
    ("error: None for ", no_error),
    ("finished_at: '2026-11-21T00:00:00.000Z' for ", another_end),
    ("status: 'completed' for one of ['skipped']", a_skipped_step_that_has_run),
    ("status: 'pending' for one of ['skipped']", a_skipped_step_that_is_to_come),
    ("status: 'completed' for one of ['pending', 'skipped']", a_step_that_has_run_before_its_time),
    ("output: 1 for None", a_skipped_step_with_an_output),
    ("status: 'completed' for 'waiting'", a_wait_that_is_over),
    ("status: 'completed' for 'cancelled'", a_loser_that_has_won),
    ("status: 'retrying' for one of ['completed']", a_loop_that_goes_on),
    ("status: 'failed' for one of ['completed']", a_loop_that_has_failed),
    ("attempt: 3 for 2", another_attempt_at_a_loop),
    ("output: [", another_output_of_one_item),
    ("output: {'n': 2", another_last_round),
    ("is none of its turns'", an_error_of_no_turn),
    ("turns done: 9 for 10", too_few_turns),
    ("turns failed: 1 for 0", a_turn_that_has_failed),
    ("compensation: None, and to be undone is", an_undo_that_is_not_shown),
    ("compensation: status: 'failed' for 'completed'", an_undo_that_has_failed),
    ("compensation: status: 'pending' for 'completed'", an_undo_that_never_began),
    ("and to be undone is []", an_undo_that_nobody_asked_for),
    ("the status shows ['a', 'b'] of the steps ['a', 'b', 'c']", a_step_that_is_missing),
    ("the status shows ['a', 'b', 'c', 'odd']", a_step_that_the_plan_has_not),
    ("the status shows a step twice", a_step_that_is_there_twice),
    ("the status does not show ['signal_answer']", a_step_of_a_flow_that_is_missing),
    ("the status shows [] of the steps", no_steps_at_all),
    ("its status was asked for, and nobody has told it", a_status_that_nobody_told),
    ("its status was asked for, and nobody has told it", no_status_at_all),
]


@pytest.mark.parametrize(("what", "falsify"), FALSIFIED, ids=[falsify.__name__ for _, falsify in FALSIFIED])
def test_what_is_falsified_is_found(what: str, falsify: Falsify) -> None:
    run = Run()
    falsify(run)
    found = judge(run.facts)
    assert {one.promise for one in found} == {"I6"}
    assert any(what in str(one) for one in found), "\n".join(map(str, found))


def test_a_status_that_was_not_asked_for_is_not_missed() -> None:
    run = Run()
    run.facts.statuses.clear()
    run.facts.statuses_asked = False
    assert judge(run.facts) == []


def test_a_flow_that_is_over_need_not_want_what_was_left_open() -> None:
    run = Run()
    steps = run.document("flow-hello")["steps"]
    (row,) = (row for row in steps if row["step"] == "sleep")
    steps.remove(row)
    assert [str(one).partition(": ")[2] for one in judge(run.facts)] == ["the status does not show ['sleep']"]


def test_large_outputs_may_be_shown_as_references() -> None:
    run = Run()
    blob = {"$blob": {"key": "acme/many-3/each", "size": 70_000}}
    run.facts.payloads["acme/many-3/each"] = {"far": "away"}
    (done,) = [
        one for one in run.journal("many-3") if one.data.get("slot") == "each:4" and "output" in one.data
    ]
    run.data(done, output=blob)
    run.snapshot("many-3", lambda state: state["slots"]["each:4"].update(output=blob))
    row = run.row("many-3", "each")
    for shown, wrong in ((blob, False), ({"far": "away"}, False), ({"far": "off"}, True)):
        row["output"][3] = shown
        assert any("step each is not the fold" in str(one) for one in judge(run.facts)) is wrong


LONG = "x" * 300
LEFT_OUT = {"$omitted": {"size": 302}}


@pytest.mark.parametrize(
    ("shown", "value", "fits"),
    [
        (1, 1, True),
        (1, 2, False),
        (LEFT_OUT, LONG, True),
        (LEFT_OUT, "x", False),
        ("y", LONG, False),
        ({"a": LEFT_OUT, "b": 1}, {"a": LONG, "b": 1}, True),
        ({"a": LEFT_OUT, "b": 2}, {"a": LONG, "b": 1}, False),
        ({"a": LEFT_OUT}, {"a": LONG, "b": 1}, False),
        ({"a": {"c": LEFT_OUT, "d": 2}}, {"a": {"c": LONG, "d": 2}}, True),
    ],
)
def test_only_long_values_may_be_left_out(shown: Any, value: Any, fits: bool) -> None:
    assert shows(shown, value) is fits
