"""A child that nobody waits for any more is cancelled, whoever dies in between; in calm worlds."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from unittest import mock

import pytest

from tests.sim.flows import FLOW
from tests.sim.test_cases import SECOND, ask, calling, passing, plan_of, play, start, state_of, work
from tests.sim.world import TENANT, SimWorld
from wpa.adapters.memory.storage import Message
from wpa.engine import driver
from wpa.engine.services import Services
from wpa.model.events import Event

WAITER = plan_of({"id": "w", "uses": "core.wait", "with": {"signal": "go"}}, id="waiter")


def dying_after(world: SimWorld, event: str) -> None:
    """Have the first worker die when it has stored such an event, and before it does anything about it."""
    events, node = world.server.events, world.nodes[0]
    append = events.append

    def append_and_die(subject: str, data: bytes, *args: Any) -> Message:
        stored = append(subject, data, *args)
        if not node.dead and json.loads(data)["event"] == f"workflow_{event}":
            node.die()
            raise asyncio.CancelledError  # it would go on to its next call
        return stored

    events.append = append_and_die  # type: ignore[method-assign]


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("more", [{}, {"on_error": "continue"}, {"foreach": {"in": "${[1, 2]}"}}])
def test_a_child_that_takes_too_long_is_cancelled(more: dict[str, Any], crash: bool) -> None:
    """Also by whoever takes over from a worker that died when it had recorded that the time was over."""

    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, SECOND)
        if crash:
            dying_after(world, "step_failed")
        passing(world, 15 * SECOND)
        if crash:
            world.add_node()
            passing(world, 15 * SECOND)

    nap = {"id": "nap", "uses": "core.sleep", "with": {"for": "1h"}, "needs": ["c"]}
    world = play(scenario, plan_of(calling("waiter") | {"timeout": "10s"} | more, nap), WAITER)
    assert state_of(world).status == ("WAITING" if "on_error" in more else "FAILED")
    children = [name for _, name in world.executions() if name != "x"]
    assert children
    assert {state_of(world, name).status for name in children} == {"CANCELLED"}


@pytest.mark.parametrize(
    ("step", "status"),
    [
        (calling("waiter", on_cancel="abandon") | {"timeout": "10s"}, "FAILED"),
        (calling("waiter", wait=False), "COMPLETED"),
    ],
)
def test_a_child_that_is_abandoned_or_detached_goes_on(step: dict[str, Any], status: str) -> None:
    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, 60 * SECOND)

    world = play(scenario, plan_of(step), WAITER)
    assert (state_of(world).status, state_of(world, "x-c").status) == (status, "WAITING")


def test_a_child_that_took_too_long_has_no_other_beside_it_when_its_parent_is_tried_again() -> None:
    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, 11 * SECOND)
        assert state_of(world).status == "FAILED"
        ask(world, "retry")
        passing(world, 5 * SECOND)

    world = play(scenario, plan_of(calling("waiter") | {"timeout": "10s"}), WAITER)
    children = {name: state_of(world, name).status for _, name in world.executions() if name != "x"}
    assert children == {"x-c": "CANCELLED", "x-c-retry2": "WAITING"}


@pytest.mark.parametrize("crash", [False, True])
def test_a_child_that_was_open_at_the_end_has_no_other_beside_it(crash: bool) -> None:
    """Its parent may be tried again before anybody has come to what a dead worker had left undone."""

    def scenario(world: SimWorld) -> None:
        start(world)
        if crash:
            dying_after(world, "failed")
        passing(world, SECOND)
        world.add_node()
        passing(world, SECOND)
        assert state_of(world).status == "FAILED"
        ask(world, "retry")
        passing(world, 10 * SECOND)

    bad = work("bad", ms=SECOND, fail=1) | {"retry": {"max_attempts": 1}}
    world = play(scenario, plan_of(calling("waiter"), bad), WAITER)
    children = {name: state_of(world, name).status for _, name in world.executions() if name != "x"}
    assert children == {"x-c": "CANCELLED", "x-c-retry2": "WAITING"}


@pytest.mark.parametrize("shielded", [False, True])
@pytest.mark.parametrize("crash", ["", "step_completed", "continued"])
def test_a_child_that_a_flow_does_not_wait_for_any_more_is_cancelled(crash: str, shielded: bool) -> None:
    """After a time-out; and one that a task in the background waits for, when the flow starts over."""

    def scenario(world: SimWorld) -> None:
        if crash:
            dying_after(world, crash)
        begin = {"type": "workflow_start", "workflow_id": FLOW, "execution_id": "x"}
        acts = [{"kind": "child", "about": {"workflow": "waiter", "mark": 1}}]
        if shielded:
            acts = [{"kind": "shield", "about": {}, "acts": acts}]
        within = {"kind": "within", "about": {"s": 3}, "acts": acts}
        world.publish({**begin, "payload": {"input_data": {"acts": [within], "rounds": 2}}})
        passing(world, 4 * SECOND)
        world.add_node()
        passing(world, 60 * SECOND)

    world = play(scenario, WAITER)
    assert state_of(world).status == "COMPLETED"
    children = [name for _, name in world.executions() if name != "x"]
    assert len(children) == 2
    assert {state_of(world, name).status for name in children} == {"CANCELLED"}


def test_a_child_that_completes_as_its_parent_fails_is_not_begun_again_when_that_is_tried_again() -> None:
    """It had come to its end before it was told that nobody waits for it."""

    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, 10 * SECOND)
        assert (state_of(world).status, state_of(world, "x-c").status) == ("FAILED", "COMPLETED")
        ask(world, "retry")
        passing(world, 10 * SECOND)

    bad = work("bad", ms=SECOND, fail=1) | {"retry": {"max_attempts": 1}}
    quick = plan_of(work("a", ms=SECOND), id="quick")
    world = play(scenario, plan_of(calling("quick"), bad), quick)
    assert state_of(world).status == "COMPLETED"
    assert [name for _, name in world.executions()] == ["x", "x-c"]


@pytest.mark.parametrize("wait_s", [0, 10])
def test_a_child_that_was_tried_again_is_waited_for_when_its_parent_is(wait_s: int) -> None:
    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, 5 * SECOND)
        assert (state_of(world).status, state_of(world, "x-c").status) == ("FAILED", "FAILED")
        ask(world, "retry", execution_id="x-c")
        passing(world, SECOND + wait_s * SECOND)
        ask(world, "retry")
        passing(world, 30 * SECOND)

    frail = work("a", ms=4 * SECOND, fail=1) | {"retry": {"max_attempts": 1}}
    world = play(scenario, plan_of(calling("frail")), plan_of(frail, id="frail"))
    assert state_of(world).status == "COMPLETED"
    assert [name for _, name in world.executions()] == ["x", "x-c"]


def test_a_child_is_not_tried_again_where_its_parent_has_begun_another_in_its_place() -> None:
    """Whoever tries again all that has failed comes to the parent first, and then to the child that it had."""

    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, 5 * SECOND)
        assert (state_of(world).status, state_of(world, "x-c").status) == ("FAILED", "FAILED")
        ask(world, "retry")
        passing(world, SECOND)
        ask(world, "retry", execution_id="x-c")
        passing(world, 30 * SECOND)
        (letter,) = world.server.dead.read(f"workflow.dlq.{TENANT}")
        assert letter.headers["Wpa-Code"] == "not_retryable"
        assert "its parent x has begun x-c-retry2 in its place" in letter.headers["Wpa-Reason"]

    frail = work("a", ms=4 * SECOND, fail=1) | {"retry": {"max_attempts": 1}}
    world = play(scenario, plan_of(calling("frail")), plan_of(frail, id="frail"))
    assert state_of(world, "x-c").status == "FAILED"


def test_a_child_that_is_to_be_abandoned_begins_though_its_parent_has_ended_before() -> None:
    """Its start had lain in the queue for longer than its parent was willing to wait."""

    def scenario(world: SimWorld) -> None:
        world.nodes[0].jump(600 * SECOND)  # so a start seems to have lain in the queue for long
        append = world.tasks.append

        def late(subject: str, data: bytes, *args: Any) -> Message:
            if b'"execution_id":"x-c"' in data and b'"workflow_start"' in data:
                world.at(world.now_ms + 20 * SECOND, lambda: world.publish(json.loads(data)))
                return append(subject, b"{}", *args)
            return append(subject, data, *args)

        with mock.patch.object(world.tasks, "append", late):
            start(world)
            passing(world, SECOND)
        ask(world, "terminate")
        passing(world, 60 * SECOND)

    world = play(scenario, plan_of(calling("waiter", on_cancel="abandon")), WAITER)
    assert (state_of(world).status, state_of(world, "x-c").status) == ("CANCELLED", "WAITING")


def test_a_child_that_nobody_waits_for_any_more_is_not_begun_by_whoever_was_given_it_before() -> None:
    """Seed 7321040: one worker stood still with its start in hand, the next one dropped that, and the first one
    began it after all, and died: nobody would have taken over."""

    def scenario(world: SimWorld) -> None:
        append_first, first = driver.append_first, world.nodes[0]

        async def append_late(services: Services, event: Event) -> int:
            if event.execution_id == "x-c" and services.worker == first.name:
                world.at(world.now_ms + 1, lambda: ask(world, "terminate"))
                await services.clock.sleep(1)
                first.chaos.freeze(20)
                world.at(world.now_ms + 1, world.add_node)
            position = await append_first(services, event)
            if event.execution_id == "x-c" and services.worker == first.name:
                first.die()
            return position

        with mock.patch.object(driver, "append_first", append_late):
            start(world)
            passing(world, 60 * SECOND)

    world = play(scenario, plan_of(calling("quick")), plan_of(work("a"), id="quick"))
    assert state_of(world, "x-c").status == "CANCELLED"
    assert [name for _, name in world.executions()] == ["x", "x-c"]
    assert not [began for began in world.began if began.execution == "x-c"]
