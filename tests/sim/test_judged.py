"""What the judge sees of a simulated world: nothing, as it was; and what is falsified in it, of all that the
recorded run of ``tests/unit/checker`` does not have: escalations, deadlines, long waits for another attempt,
other versions, cancels that leave things as they are, new attempts at what had failed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.checker.facts import Facts, Recorded
from tests.checker.judge import judge
from tests.sim.judged import JudgedWorld
from tests.sim.plans import version_of
from tests.sim.simulation import FLOWS
from tests.sim.test_cases import HOUR, SECOND, ask, passing, plan_of, start, work

Falsify = Callable[[Facts], None]

WAIT = {"id": "w", "uses": "core.wait", "with": {"signal": "go"}}
ESCALATING = {"users": ["ana"], "timeout": "10m", "escalate": [{"after": "20s", "users": ["eve"]}]}
SLOWLY = {"retry": {"max_attempts": 2, "backoff": {"initial": "5m", "jitter": 0}}}
PLAN = plan_of(
    {"id": "ask", "uses": "core.approval", "with": ESCALATING},
    work("try", fail=1, undo=True) | SLOWLY,
    timeout="7m",
)
LATER = plan_of(WAIT, work("more", "w")) | {"id": "later", "version": "2"}
SAGA = plan_of(work("a", undo=True), work("b", "a", ms=2 * SECOND, fatal=True), id="saga")
FRAIL = plan_of(work("a", fail=1) | {"retry": {"max_attempts": 1}}, id="frail")


@pytest.fixture(scope="module")
def world() -> JudgedWorld:
    """Every kind of execution, at its end."""
    world = JudgedWorld(0, FLOWS)
    world.skew_ms = 0
    try:
        world.deploy(map(version_of, (PLAN, plan_of(WAIT, id="later"), SAGA, FRAIL)))
        world.add_node()
        for name, workflow in (("late", "sim"), ("x", "later"), ("kept", "saga"), ("again", "frail")):
            start(world, name, workflow)
        passing(world, SECOND)
        world.publish({"type": "workflow_pause", "execution_id": "kept"})
        passing(world, 9 * SECOND)
        # It has failed in the pause, and would undo what it did: who cancels it now may say that it stays.
        world.publish({"type": "workflow_cancel", "execution_id": "kept", "payload": {"compensate": False}})
        world.deploy([version_of(LATER)])
        ask(world, "migrate", payload={"version": "2"})
        ask(world, "signal", payload={"signal": "go", "payload": 1, "id": "one"})
        world.publish({"type": "workflow_retry", "execution_id": "again"})
        world.be_calm()
        passing(world, HOUR)
        return world
    finally:
        world.close()


def change(facts: Facts, execution: str, name: str, by_ms: int = 0, **data: Any) -> None:
    """Falsify the first event of that name: what it carries, or when it was stored."""
    index, event = _find(facts, execution, name)
    body = {**event.body, "data": {**event.data, **data}}
    facts.events[index] = replace(event, body=body, stored_ms=event.stored_ms + by_ms)


def _find(facts: Facts, execution: str, name: str) -> tuple[int, Recorded]:
    for index, event in enumerate(facts.events):
        if (event.key[1], event.name) == (execution, f"workflow_{name}"):
            return index, event
    raise AssertionError(f"{execution} has no {name}")


def test_the_worlds_facts_are_as_a_server_would_tell_them(world: JudgedWorld) -> None:
    facts = world.facts()
    assert judge(facts, world.bounds()) == []
    ends = {key[1]: journal[-1].name for key, journal in facts.journals().items()}
    assert ends == {
        "late": "workflow_rolled_back",
        "x": "workflow_completed",
        "kept": "workflow_cancelled",
        "again": "workflow_completed",
    }
    for execution, name in (("late", "escalated"), ("x", "migrated"), ("again", "resumed")):
        assert _find(facts, execution, name)


def an_escalation_that_is_early(facts: Facts) -> None:
    change(facts, "late", "escalated", by_ms=-5_000)


def a_deadline_that_is_early(facts: Facts) -> None:
    change(facts, "late", "compensating", by_ms=-60_000)


def an_attempt_that_begins_before_its_time(facts: Facts) -> None:
    index, effect = next(
        (index, one) for index, one in enumerate(facts.effects) if (one.step, one.attempt) == ("try", 2)
    )
    facts.effects[index] = replace(effect, at_ms=effect.at_ms - 60_000)


def a_version_that_nobody_wanted(facts: Facts) -> None:
    for definition in facts.definitions:
        if definition.version == "2":
            definition.document["steps"][1]["uses"] = "sim.undo"


def a_new_attempt_at_nothing(facts: Facts) -> None:
    change(facts, "again", "resumed", reopen=[])


def a_cancel_that_was_to_undo(facts: Facts) -> None:
    change(facts, "kept", "cancel_requested", compensate=True)


def a_signal_that_is_nowhere(facts: Facts) -> None:
    facts.events = [event for event in facts.events if event.name != "workflow_signalled"]


FALSIFIED: list[tuple[str, str, Falsify]] = [
    ("I7", "the escalation of ask is early", an_escalation_that_is_early),
    ("I7", "its deadline is early", a_deadline_that_is_early),
    ("I7", "attempt 2 of late:try:1 is early", an_attempt_that_begins_before_its_time),
    ("I10", "more uses sim.undo, not sim.work", a_version_that_nobody_wanted),
    ("I3", "a is settled already", a_new_attempt_at_nothing),
    ("I5", "['a:undo'] was to be undone first", a_cancel_that_was_to_undo),
    ("I2", "a signal was acknowledged, and is nowhere", a_signal_that_is_nowhere),
]


@pytest.mark.parametrize(
    ("promise", "what", "falsify"), FALSIFIED, ids=[falsify.__name__ for _, _, falsify in FALSIFIED]
)
def test_what_is_falsified_is_found(world: JudgedWorld, promise: str, what: str, falsify: Falsify) -> None:
    facts = copy.deepcopy(world.facts())
    falsify(facts)
    found = judge(facts, world.bounds())
    assert any(one.promise == promise and what in one.what for one in found), "\n".join(map(str, found))
