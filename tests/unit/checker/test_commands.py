"""Falsified in any of these ways, a recorded run breaks I9 or I10 in a way of which only one check hears."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.checker.facts import Definition, Message
from tests.checker.judge import judge
from tests.unit.checker.tampering import BOUNDS, Falsify, Run

CANARY = "canary-of-zeta-0815"


# -- I9 --------------------------------------------------------------------------------------


def a_canary_in_a_task(run: Run) -> None:
    run.facts.tasks.append(Message("workflow.tasks.acme", 9, 1, {"payload": CANARY}))


def a_canary_in_an_alarm(run: Run) -> None:
    run.facts.timers.append(Message("workflow.timers.acme.x.wake", 9, 1, {"input": CANARY}))


def a_canary_in_a_definition(run: Run) -> None:
    run.facts.definitions.append(Definition("acme", "odd", "1", "", {"steps": [], "title": CANARY}))


def a_canary_in_an_answer(run: Run) -> None:
    run.facts.calls[0] = replace(run.facts.calls[0], tenant="acme", code=CANARY)


def a_canary_in_the_ledger(run: Run) -> None:
    run.change_effect(run.effect("line-0:a:1"), step=CANARY)


# -- I10 -------------------------------------------------------------------------------------


def another_step_type(run: Run) -> None:
    run.data(run.event("line-0", "step_completed", slot="b"), uses="e2e.other")


def an_attempt_at_what_cannot_be_attempted(run: Run) -> None:
    run.plan("line")["steps"][2]["with"] = {"word": "${input.word + 1}"}


def a_fault_that_the_plan_has_not(run: Run) -> None:
    event = run.event("line-0", "step_completed", slot="c")
    error = {"type": "ExpressionError", "message": "no"}
    data = {"step": "c", "slot": "c", "uses": "core.echo", "error": error, "final": True, "on_error": "fail"}
    opener = run.event("line-0", "step_completed", slot="b")
    run.data(opener, next=[])
    run.put(event, replace(event, body={**event.body, "event": "workflow_step_failed", "data": data}))


def a_step_that_is_dropped_and_wanted(run: Run) -> None:
    run.data(run.event("line-0", "step_completed", slot="a"), dropped=["b"])


def a_wait_that_is_opened_as_work(run: Run) -> None:
    event = next(one for one in run.journal("waiter-19") if one.data.get("waits"))
    run.data(event, waits={slot: {**told, "kind": "timer"} for slot, told in event.data["waits"].items()})


def a_failure_for_no_reason(run: Run) -> None:
    end = run.event("line-0", "completed")
    data = {"error": {"type": "Odd", "message": "no"}, "undone": [], "not_undone": []}
    run.put(end, replace(end, body={**end.body, "event": "workflow_failed", "data": data}))


def a_plan_that_cleans_up(run: Run) -> None:
    event = run.event("sleeper-6", "resumed")
    run.data(event, next=[], cleanup={"until": "", "compensate": True})


FALSIFIED: list[tuple[str, str, Falsify]] = [
    ("I9", "workflow.tasks.acme holds the canary of zeta", a_canary_in_a_task),
    ("I9", "workflow.timers.acme.x.wake holds the canary of zeta", a_canary_in_an_alarm),
    ("I9", "definition odd holds the canary of zeta", a_canary_in_a_definition),
    ("I9", "was told holds the canary of zeta", a_canary_in_an_answer),
    ("I9", "the ledger holds the canary of zeta", a_canary_in_the_ledger),
    ("I10", "b uses e2e.work, not e2e.other", another_step_type),
    ("I10", "c was attempted, and can't be: ExpressionError", an_attempt_at_what_cannot_be_attempted),
    ("I10", "c has no fault", a_fault_that_the_plan_has_not),
    ("I10", "['b'] are wanted, and dropped", a_step_that_is_dropped_and_wanted),
    ("I10", "is a signal", a_wait_that_is_opened_as_work),
    ("I10", "it has failed, and the plan has no fault", a_failure_for_no_reason),
    ("I10", "it cleans up, and a plan has no code for that", a_plan_that_cleans_up),
]


@pytest.mark.parametrize(
    ("promise", "what", "falsify"), FALSIFIED, ids=[falsify.__name__ for _, _, falsify in FALSIFIED]
)
def test_what_is_falsified_is_found(promise: str, what: str, falsify: Falsify) -> None:
    run = Run()
    falsify(run)
    found = judge(run.facts, BOUNDS)
    assert any(one.promise == promise and what in one.what for one in found), "\n".join(map(str, found))
