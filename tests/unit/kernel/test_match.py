"""Which other versions of a plan an execution can go on with: those that ask for what has begun."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.kernel.table import Table
from wpa import plan
from wpa.kernel import requests
from wpa.kernel.execution import Diverged, Execution
from wpa.model.events import Failure
from wpa.model.limits import Limits
from wpa.plan.compile import Plan

Body = dict[str, Any]

HOURLY = {"max_attempts": 5, "backoff": {"initial": "1h", "jitter": 0}}
PAY: Body = {"id": "x", "uses": "toy.pay", "retry": HOURLY}
FAR: Body = {**PAY, "queue": "far"}
SLEEP: Body = {"id": "x", "uses": "core.sleep", "with": {"for": "1h"}}
WAIT: Body = {"id": "x", "uses": "core.wait", "with": {"signal": "go"}}
CHOOSE: Body = {"id": "x", "switch": [{"when": "input.n > 0", "next": "y"}], "default": "z"}
Y, Z, OTHER = ({"id": name, "uses": "toy.step"} for name in ("y", "z", "other"))


def load(version: str, *steps: Body) -> Plan:
    return plan.load({"id": "toy", "version": version, "steps": list(steps)})


def began(*steps: Body) -> Table:
    return Table(load("1", *steps), {"n": 1})


def migrate(table: Table, *steps: Body) -> Execution:
    """The execution as it goes on with a version of these steps. Raises Diverged where it can't."""
    program, state = load("2", *steps), table.folded()
    state.version, state.definition_hash = program.version, program.hash
    return Execution.rebuild(program, state, Limits())


OTHER_WORK = {
    "another step type": (PAY | {"uses": "toy.refund"},),
    "a timer": (SLEEP,),
    "a wait": (WAIT,),
    "a child": ({"id": "x", "uses": "core.workflow", "with": {"workflow": "w"}},),
    "a decision": (CHOOSE, Y, Z),
    "the work of a queue": (FAR,),
    "nothing, by its condition": (PAY | {"if": "false"},),
    "inputs that can't be computed": (PAY | {"with": {"a": "${input.nope}"}},),
    "another step": (OTHER,),
}


@pytest.mark.parametrize("steps", OTHER_WORK.values(), ids=OTHER_WORK)
def test_a_step_that_waits_for_its_next_attempt_stays_the_same_work(steps: tuple[Body, ...]) -> None:
    table = began(PAY)
    table.fail("x")
    table.rest()
    with pytest.raises(Diverged, match=r"- recorded: step x \(toy.pay\), open\n\+ asked now: "):
        migrate(table, *steps)


@pytest.mark.parametrize("steps", OTHER_WORK.values(), ids=OTHER_WORK)
def test_a_step_whose_attempt_was_lost_stays_the_same_work(steps: tuple[Body, ...]) -> None:
    table = began(PAY)
    table.crash()
    with pytest.raises(Diverged, match=r"- recorded: step x \(toy.pay\), open\n\+ asked now: "):
        migrate(table, *steps)


@pytest.mark.parametrize("begun", [PAY, FAR, SLEEP, WAIT], ids=["step", "remote", "timer", "wait"])
@pytest.mark.parametrize("wanted", [PAY, FAR, SLEEP, WAIT], ids=["step", "remote", "timer", "wait"])
def test_what_is_open_keeps_its_kind(begun: Body, wanted: Body) -> None:
    table = began(begun)
    if begun == wanted:
        migrate(table, wanted)
    else:
        with pytest.raises(Diverged, match="keeps its id, its kind and its step type"):
            migrate(table, wanted)


def test_a_wait_goes_on_for_the_signal_that_it_was_opened_for() -> None:
    """What comes is given to the name that was recorded: one that waits for another would wait for good."""
    with pytest.raises(Diverged, match=r"open for go\n\+ asked now: signal x .* for another"):
        migrate(began(WAIT), WAIT | {"with": {"signal": "another"}})


@pytest.mark.parametrize(
    "change",
    [
        {"with": {"n": "${input.n}"}},
        {"retry": {"max_attempts": 9}},
        {"timeout": "1m"},
        {"needs": ["other"]},
        {"compensate": {"uses": "toy.undo"}},
    ],
)
def test_what_a_begun_step_is_given_and_how_often_it_is_tried_may_change(change: Body) -> None:
    table = began(PAY, OTHER)
    table.ok("other")
    table.fail("x")
    assert migrate(table, PAY | change, OTHER).wants["x"].uses == "toy.pay"


def test_a_step_that_was_opened_and_has_not_begun_may_be_another() -> None:
    assert migrate(began(PAY), PAY | {"uses": "toy.refund"}).wants["x"].uses == "toy.refund"


# -- loops -----------------------------------------------------------------------------------

EACH: Body = PAY | {"foreach": {"in": "${input.items}", "concurrency": 1, "on_error": "continue"}}
ROUNDS: Body = PAY | {"repeat": {"until": "index > 3"}}
UNABLE = {
    "too many items": EACH | {"foreach": EACH["foreach"] | {"max": 2}},
    "items that can't be computed": EACH | {"foreach": EACH["foreach"] | {"in": "${input.nope}"}},
    "a condition that can't be computed": EACH | {"if": "input.nope"},
    "rounds with a condition that can't be computed": ROUNDS | {"if": "input.nope"},
}


@pytest.mark.parametrize("ends", ["completed", "failed"])
@pytest.mark.parametrize("step", UNABLE.values(), ids=UNABLE)
def test_the_first_turn_of_a_loop_that_can_not_begin_is_not_taken_for_the_whole_step(
    step: Body, ends: str
) -> None:
    begun = EACH if "foreach" in step else ROUNDS | {"on_error": "continue"}
    table = Table(load("1", begun), {"n": 1, "items": [1, 2, 3]})
    table.ask(requests.paused(table.state, {}, "", table.now_ms))
    table.attempt(
        "x", error=None if ends == "completed" else Failure(type="Boom", message="no", retryable=False)
    )
    table.rest()
    with pytest.raises(Diverged, match="x was begun, and can't begin any more: "):
        migrate(table, step)


@pytest.mark.parametrize("step", UNABLE.values(), ids=UNABLE)
def test_a_loop_that_could_not_begin_and_was_let_go_is_rebuilt(step: Body) -> None:
    more = {"id": "other", "uses": "toy.step"}
    table = Table(load("1", step | {"on_error": "continue"}, more), {"n": 1, "items": [1, 2, 3]})
    assert table.events[-1] == "step_failed"
    table.crash()
    table.ok("other")
    assert table.state.status == "COMPLETED"


# -- decisions -------------------------------------------------------------------------------


def decided() -> Table:
    table = began(CHOOSE, Y, Z, OTHER)
    table.ok("y")
    return table


def test_a_decision_stays_a_decision() -> None:
    with pytest.raises(
        Diverged, match=r"- recorded: decision x \(no step type\), decided\n\+ asked now: step x"
    ):
        migrate(decided(), PAY, Y | {"needs": ["x"]}, OTHER)


def test_a_decision_keeps_the_branch_that_was_taken() -> None:
    for steps in ((CHOOSE | {"switch": [{"when": "input.n > 0", "next": "other"}]}, Z, OTHER, Y),
                  (CHOOSE | {"switch": [{"when": "input.n > 0", "next": "other"}]}, Z, OTHER)):  # fmt: skip
        with pytest.raises(Diverged, match="x has taken y, and has no branch to it any more"):
            migrate(decided(), *steps)


def test_a_decision_may_be_made_in_another_way_from_then_on() -> None:
    execution = migrate(decided(), CHOOSE | {"switch": [{"when": "input.n > 5", "next": "y"}]}, Y, Z, OTHER)
    assert list(execution.wants) == ["other"]
