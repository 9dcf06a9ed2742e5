"""What the simulation has found, one by one, in calm worlds."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any
from unittest import mock

import pytest

from tests.sim import calm, chaos
from tests.sim.calm import (
    HOUR,
    SECOND,
    ask,
    calling,
    events_of,
    lagging,
    passing,
    plan_of,
    play,
    start,
    state_of,
    work,
)  # fmt: skip
from tests.sim.flows import FLOW
from tests.sim.plans import version_of
from tests.sim.simulation import OLDER_FLOWS
from tests.sim.world import TENANT, SimWorld
from wpa import call, flow, saga
from wpa.engine.payloads import Payloads
from wpa.engine.worker import Worker
from wpa.kernel import waits
from wpa.model.events import Event
from wpa.ports.tasks import Lease
from wpa.testing.workflows import program_of

# -- children --------------------------------------------------------------------------------


PICKY = plan_of(work("a"), id="picky", input={"type": "object", "required": ["never"]})
SLOW = plan_of(work("a", ms=4 * SECOND), id="slow")


@pytest.mark.parametrize(
    ("child", "code"),
    [
        (calling("nope"), "unknown_workflow"),
        (calling("picky"), "invalid_input"),
        (calling("slow", execution_id="taken"), "conflict"),
    ],
)
def test_a_child_whose_start_is_rejected_has_failed(child: dict[str, Any], code: str) -> None:
    def scenario(world: SimWorld) -> None:
        start(world, "taken", "sim")
        start(world)
        passing(world, 10 * SECOND)

    world = play(scenario, plan_of(child), PICKY, SLOW)
    state = state_of(world)
    assert state.status == "FAILED"
    assert state.error is not None
    assert (state.error.type, state.error.details["error"]["type"]) == ("ChildFailed", code)
    assert [letter.headers["Wpa-Code"] for letter in world.server.dead.read(f"workflow.dlq.{TENANT}")]


def test_an_execution_that_only_has_a_childs_id_is_not_cancelled_with_the_parent() -> None:
    def scenario(world: SimWorld) -> None:
        start(world, "mine", "slow")
        start(world)
        ask(world, "cancel")
        passing(world, 10 * SECOND)

    world = play(scenario, plan_of(calling("slow", execution_id="mine")), SLOW)
    assert events_of(world, "mine") == ["started", "step_completed", "completed"]


def test_a_cancel_passes_down_and_leaves_no_letter() -> None:
    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, SECOND)
        ask(world, "cancel")
        passing(world, 20 * SECOND)

    world = play(scenario, plan_of(calling("slow")), SLOW)
    assert (state_of(world).status, state_of(world, "x-c").status) == ("CANCELLED", "CANCELLED")
    assert not world.server.dead.subjects


def test_children_whose_ids_are_spelled_alike_are_two() -> None:
    def scenario(world: SimWorld) -> None:
        start(world)
        start(world, "o", "one")
        start(world, "o-a", "other")
        passing(world, 10 * SECOND)

    begins = {"uses": "core.workflow", "with": {"workflow": "quick"}}
    world = play(
        scenario,
        plan_of({"id": "ship", "foreach": {"in": "${[1, 2]}"}, **begins}, {"id": "ship-2", **begins}),
        plan_of({"id": "a-b", **begins}, id="one"),
        plan_of({"id": "b", **begins}, id="other"),
        plan_of(work("a"), id="quick"),
    )
    assert [state_of(world, name).status for name in ("x", "o", "o-a")] == ["COMPLETED"] * 3
    begun = {name for _, name in world.executions()}
    assert begun > {"o", "o-a", "o-a-b", "x", "x-ship", "x-ship-2"}
    assert len(begun) == 8


def test_a_child_that_an_older_worker_named_goes_by_that_name() -> None:
    """Whoever takes over begins once more what is recorded as begun: the start may have been lost."""

    def scenario(world: SimWorld) -> None:
        with mock.patch.object(waits, "child_id", lambda parent, slot: f"{parent}-{slot}"):
            start(world)
            passing(world, SECOND)
        world.kill(world.nodes[0])
        world.add_node()
        passing(world, 20 * SECOND)
        assert state_of(world).status == "FAILED"
        ask(world, "retry")
        passing(world, 20 * SECOND)

    frail = plan_of(work("a", ms=4 * SECOND, fatal=True), id="frail")
    step = {"id": "c-2", "uses": "core.workflow", "with": {"workflow": "frail"}}
    world = play(scenario, plan_of(step, work("beside", ms=2 * SECOND)), frail)
    assert [name for _, name in world.executions()] == ["x", "x-c-2", "x-c-2-retry2"]


def test_a_child_whose_id_is_anothers_says_whose() -> None:
    def scenario(world: SimWorld) -> None:
        start(world, "x-c", "slow")
        start(world)
        passing(world, 10 * SECOND)

    error = state_of(play(scenario, plan_of(calling("slow")), SLOW)).error
    assert error is not None
    assert error.message == (
        "the id that its child was to have is taken: execution x-c exists already, started with other content "
        "(slow 1, status RUNNING); use another execution_id"
    )


def test_a_parent_that_is_tried_again_starts_its_child_anew() -> None:
    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, 10 * SECOND)
        assert state_of(world).status == "FAILED"
        ask(world, "retry")
        passing(world, 10 * SECOND)

    frail = plan_of(work("a", fatal=True), id="frail")
    world = play(scenario, plan_of(calling("frail")), frail)
    assert [name for _, name in world.executions()] == ["x", "x-c", "x-c-retry2"]
    assert events_of(world).count("failed") == 2


@pytest.mark.parametrize("lag_ms", [30, 3 * SECOND])
def test_a_childs_start_is_not_dropped_because_a_replica_lags_behind(lag_ms: int) -> None:
    def scenario(world: SimWorld) -> None:
        world.nodes[0].jump(600 * SECOND)  # so the start seems to have lain in the queue for long
        with lagging(lag_ms):
            start(world)
            passing(world, 20 * SECOND)

    # What it does beside keeps it from coming to rest: its journal is all that is known of it.
    world = play(scenario, plan_of(calling("slow"), work("beside", ms=4 * SECOND)), SLOW)
    assert (state_of(world).status, state_of(world, "x-c").status) == ("COMPLETED", "COMPLETED")


@pytest.mark.parametrize(
    ("given", "begun"),
    [({}, ["x", "x-c", "x-c-retry2"]), ({"execution_id": "mine"}, ["mine", "x"])],
)
@pytest.mark.parametrize("lag_ms", [30, 3 * SECOND])
def test_a_child_of_a_parent_that_is_tried_again_is_not_lost_to_a_replica(
    lag_ms: int, given: dict[str, str], begun: list[str]
) -> None:
    """Seed 131164: who gets the start reads that the parent has failed, but not yet that it is tried again.

    A child of a name of its own is not started anew: it has ended, and the parent has to hear of it once more.
    """

    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, 10 * SECOND)
        assert state_of(world).status == "FAILED"
        world.nodes[0].jump(600 * SECOND)  # so the start seems to have lain in the queue for long
        with lagging(lag_ms):
            ask(world, "retry")
            passing(world, 20 * SECOND)

    # What it does beside keeps it from coming to rest: its journal is all that is known of it.
    steps = [calling("frail", **given), work("beside", ms=4 * SECOND)]
    frail = plan_of(work("a", fatal=True), id="frail")
    world = play(scenario, plan_of(*steps), frail)
    assert state_of(world).status == "FAILED"
    assert events_of(world).count("failed") == 2
    assert [name for _, name in world.executions()] == begun


# -- pauses ----------------------------------------------------------------------------------


def test_what_a_dead_worker_had_begun_is_not_begun_again_in_a_pause() -> None:
    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, SECOND)
        ask(world, "pause")
        passing(world, SECOND)
        world.nodes[0].die()
        world.add_node()
        passing(world, 60 * SECOND)
        assert len(world.began) == 1
        assert state_of(world).status == "PAUSED"
        ask(world, "resume")
        passing(world, 60 * SECOND)

    world = play(scenario, plan_of(work("a", ms=4 * SECOND)))
    assert len(world.began) == 2
    assert state_of(world).status == "COMPLETED"


def test_what_is_paused_while_it_waits_a_moment_for_its_next_attempt_does_not_begin_it() -> None:
    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, 500)
        ask(world, "pause")
        passing(world, 60 * SECOND)
        assert len(world.began) == 1
        ask(world, "resume")
        passing(world, 60 * SECOND)

    retry = {"backoff": {"initial": "1500ms", "jitter": 0}}
    world = play(scenario, plan_of(work("a", fail=1) | {"retry": retry}))
    assert (state_of(world).status, len(world.began)) == ("COMPLETED", 2)


# -- takeovers -------------------------------------------------------------------------------


def test_what_is_asked_at_the_moment_of_a_takeover_is_not_lost() -> None:
    """Seed 2881: the nudge that ends an older driver comes between the delivery of a request and its begin."""
    take = Worker._on_task

    def nudged(worker: Worker, lease: Lease) -> None:
        take(worker, lease)
        if b"workflow_cancel" in lease.data:
            with suppress(StopIteration):
                worker._on_nudge(TENANT, "x", 2, "taken_over").send(None)

    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, SECOND)
        ask(world, "cancel")
        passing(world, 60 * SECOND)
        assert world.server.tasks.is_empty

    wait = {"id": "w", "uses": "core.wait", "with": {"signal": "go"}}
    with mock.patch.object(Worker, "_on_task", nudged):
        world = play(scenario, plan_of(wait))
    assert state_of(world).status == "CANCELLED"


# -- other code ------------------------------------------------------------------------------


def test_what_was_never_sent_is_sent_when_the_right_code_is_back() -> None:
    far = {"kind": "call", "about": {"ms": 1}, "options": {"queue": "far"}}
    nap = {"kind": "sleep", "about": {"s": 1}}

    def scenario(world: SimWorld) -> None:
        first = world.nodes[0]
        # It dies when it has recorded that a step is open, and before it has sent the step.
        end = world.server.subscribe(f"workflow.events.{TENANT}.x", lambda *_: first.die())
        begin = {"type": "workflow_start", "workflow_id": FLOW, "execution_id": "x"}
        world.publish({**begin, "payload": {"input_data": {"acts": [far, nap]}}})
        end()
        older = world.add_node(OLDER_FLOWS)
        passing(world, 10 * SECOND)
        assert state_of(world).blocked is not None
        older.die()
        world.add_node()
        passing(world, HOUR)

    assert state_of(play(scenario)).status == "COMPLETED"


def test_a_version_that_needs_what_was_dropped_is_refused() -> None:
    never, hold = ({"id": id, "uses": "core.wait", "with": {"signal": id}} for id in ("never", "hold"))
    steps = [
        never,
        work("fast"),
        work("first", "never", "fast") | {"join": "race"},
        hold | {"needs": ["first"]},
    ]

    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, SECOND)
        assert state_of(world).slots["never"].status == "cancelled"
        world.deploy([version_of(plan_of(*steps, work("more", "never")) | {"version": "2"})])
        ask(world, "migrate", payload={"version": "2"})
        passing(world, 10 * SECOND)

    world = play(scenario, plan_of(*steps))
    assert state_of(world).version == "1"
    letters = world.server.dead.read(f"workflow.dlq.{TENANT}")
    assert [letter.headers["Wpa-Code"] for letter in letters] == ["does_not_fit"]
    assert "never (core.wait), cancelled" in letters[0].headers["Wpa-Reason"]


# -- what is said but not recorded -----------------------------------------------------------


def test_a_step_is_not_interrupted_for_a_cancel_that_is_only_said() -> None:
    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, SECOND)
        world.loop.call_soon(world.ports.live.nudge, "w1", TENANT, "x", 1, "cancel")
        passing(world, 60 * SECOND)

    world = play(scenario, plan_of(work("a", ms=4 * SECOND) | {"at_most_once": True}))
    assert len(world.began) == 1
    assert state_of(world).status == "COMPLETED"


@pytest.mark.parametrize("rerun", [False, True])
def test_an_older_worker_finds_that_it_can_not_go_on_with_chance_that_it_does_not_know_of(
    rerun: bool,
) -> None:
    """From the very beginning of a later run, or of a rerun: whoever drives it may die in its first step."""

    def scenario(world: SimWorld) -> None:
        slow = {"kind": "call", "about": {"ms": 5 * SECOND, "fail": 0, "mark": "", "fatal": False}}
        acts = {"acts": [slow, slow], "rounds": 1 if rerun else 2}
        begin = {"type": "workflow_start", "workflow_id": FLOW, "payload": {"input_data": acts}}
        world.publish({**begin, "execution_id": "x"})
        passing(world, 12 * SECOND)
        if rerun:
            fork = {"execution_id": "x", "step": "sim_work:2"}
            world.publish({**begin, "execution_id": "y", "fork": fork})
            passing(world, SECOND)
        key = "y" if rerun else "x"
        assert events_of(world, key)[-1] == ("started" if rerun else "continued")
        stored = world.loop.run(world.ports.snapshots.get(TENANT, key))
        assert stored is not None
        assert b'"format":4' in stored[0]
        passing(world, 20 * SECOND)

    play(scenario)


# -- what a driver has not heard of ----------------------------------------------------------


def _go(**more: Any) -> dict[str, Any]:
    return {"id": "w", "uses": "core.wait", "with": {"signal": "go", **more}}


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([_go(timeout="5s", default="nothing")], {"signal": {"signal": "go", "payload": "come"}}),
        ([_go(timeout="5s") | {"on_error": "continue"}], {"signal": {"signal": "go", "payload": "come"}}),
        (
            [
                _go(),
                {"id": "s", "uses": "core.sleep", "with": {"for": "5s"}},
                work("first", "w", "s") | {"join": "race"},
            ],
            {"signal": {"signal": "go", "payload": "come"}},
        ),
        (
            [{"id": "w", "uses": "core.approval", "with": {"timeout": "5s", "default": "nothing"}}],
            {"answer": {"step": "w", "approved": True}},
        ),
    ],
)
def test_what_was_told_in_time_counts_though_its_driver_has_not_heard_of_it(
    steps: list[dict[str, Any]], told: dict[str, dict[str, Any]]
) -> None:
    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, 2 * SECOND)
        for kind, payload in told.items():
            ask(world, kind, payload=payload, metadata={"user_id": "ana"})
        passing(world, 60 * SECOND)

    with mock.patch.object(chaos._Live, "nudge", lambda *_: None):
        world = play(scenario, plan_of(*steps, work("beside", ms=20 * SECOND)))
    state = state_of(world)
    assert (state.status, state.slots["w"].status) == ("COMPLETED", "completed")
    output = state.slots["w"].output
    assert output == "come" or output["approved"] is True
    assert len(world.began) == 1 + (len(steps) > 1)  # nothing is begun again for it


def test_a_cancel_that_came_while_the_connection_was_lost_is_heard_of_when_it_is_back() -> None:
    def scenario(world: SimWorld) -> None:
        start(world, "x")
        start(world, "y")
        passing(world, 2 * SECOND)
        with mock.patch.object(chaos._Live, "nudge", lambda *_: None):
            ask(world, "cancel")
            passing(world, 2 * SECOND)
        assert world.left() == [(TENANT, "x"), (TENANT, "y")]
        world.loop.call_soon(world.ports.live.nudge, "w1", "", "", 0)
        passing(world, SECOND)
        assert world.left() == [(TENANT, "y")]
        passing(world, 60 * SECOND)

    world = play(scenario, plan_of(work("a", ms=20 * SECOND)))
    assert [state_of(world, name).status for name in ("x", "y")] == ["CANCELLED", "COMPLETED"]
    assert len(world.began) == 2


def test_a_result_that_came_in_time_counts_though_the_driver_has_not_heard_of_it() -> None:
    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, 60 * SECOND)

    far = work("far", ms=SECOND, undo=True) | {"queue": "far", "deadline": "5s"}
    with mock.patch.object(chaos._Live, "nudge", lambda *_: None):
        world = play(scenario, plan_of(far, work("beside", ms=20 * SECOND)))
    assert (state_of(world).status, len(world.began)) == ("COMPLETED", 2)


# -- what has succeeded just before the end --------------------------------------------------


@pytest.mark.parametrize("compensate", [True, False])
def test_what_had_succeeded_when_a_cancel_came_is_undone_or_named(compensate: bool) -> None:
    """The driver is still recording the end of the first when the second ends, and the cancel comes."""

    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, 220)
        ask(world, "cancel", payload={"compensate": compensate})
        passing(world, 20 * SECOND)

    with _slowly_recording("first"):
        world = play(scenario, plan_of(*_side_by_side()))
    state = state_of(world)
    assert state.status == "CANCELLED"
    assert state.undone == (["second", "first"] if compensate else [])
    assert sorted(state.not_undone) == ([] if compensate else ["first", "second"])
    assert state.slots["long"].status != "completed"


def test_what_had_succeeded_when_the_time_was_over_is_undone() -> None:
    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, 20 * SECOND)

    with _slowly_recording("first"):
        world = play(scenario, plan_of(*_side_by_side(), timeout="250ms"))
    state = state_of(world)
    assert (state.status, state.undone) == ("ROLLED_BACK", ["second", "first"])


def test_what_had_succeeded_when_a_flow_was_cancelled_is_undone_by_it() -> None:
    def scenario(world: SimWorld) -> None:
        world.publish({"type": "workflow_start", "workflow_id": "beside", "execution_id": "x"})
        passing(world, 220)
        ask(world, "cancel")
        passing(world, 20 * SECOND)

    with _slowly_recording("sim_work"), mock.patch.object(calm, "FLOWS", {"beside": program_of(beside)}):
        world = play(scenario, plan_of(work("a")))
    slots = state_of(world).slots
    assert [slot.undoes for slot in slots.values() if slot.undoes] == ["sim_work:2", "sim_work"]


@pytest.mark.parametrize("beside", [[], [work("beside", ms=5 * SECOND)]])
def test_what_had_succeeded_with_a_large_output_when_a_cancel_came_is_undone(
    beside: list[dict[str, Any]],
) -> None:
    """The output is being stored when the cancel comes: the work is done."""
    store = Payloads.store

    async def slow(self: Payloads, *given: Any) -> Any:
        await asyncio.sleep(0.2)
        return await store(self, *given)

    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, 400)  # the input is stored, too
        ask(world, "cancel")
        passing(world, 20 * SECOND)

    inline = mock.patch.object(Payloads, "inline", lambda *_: None)
    with inline, mock.patch.object(Payloads, "store", slow):
        world = play(scenario, plan_of(work("a", ms=100, undo=True), *beside))
    assert (state_of(world).status, state_of(world).undone) == ("CANCELLED", ["a"])


@flow("beside")
async def beside() -> None:
    async with saga():
        await asyncio.gather(*(call("sim.work", ms=ms, undo="sim.undo") for ms in (100, 200, 5_000)))


def _side_by_side() -> list[dict[str, Any]]:
    return [work(id, ms=ms, undo=True) for id, ms in (("first", 100), ("second", 200), ("long", 5 * SECOND))]


def _slowly_recording(slot: str) -> Any:
    append = chaos._Journal.append

    async def slow(self: Any, event: Event, after: int) -> int:
        if event.data.get("slot") == slot:
            await self._chaos.loop.sleep(0.2)
        return await append(self, event, after)

    return mock.patch.object(chaos._Journal, "append", slow)


def test_what_had_succeeded_when_another_step_failed_is_named() -> None:
    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, 20 * SECOND)

    first, second, long = _side_by_side()
    first["with"] |= {"fatal": True}
    with _slowly_recording("first"):
        world = play(scenario, plan_of(first | {"on_error": "fail"}, second, long))
    state = state_of(world)
    assert (state.status, state.not_undone, state.slots["long"].status) == ("FAILED", ["second"], "open")


# -- deadlines -------------------------------------------------------------------------------


@pytest.mark.parametrize("paused_after_ms", [200, 1500])
def test_no_attempt_begins_when_the_steps_deadline_is_over(paused_after_ms: int) -> None:
    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, paused_after_ms)
        ask(world, "pause")
        passing(world, 100 * SECOND)
        ask(world, "resume")
        passing(world, 20 * SECOND)

    retry = {"max_attempts": 5, "backoff": {"initial": "5s", "jitter": 0}}
    world = play(scenario, plan_of(work("a", ms=SECOND, fail=5) | {"deadline": "20s", "retry": retry}))
    state = state_of(world)
    assert (state.status, len(world.began)) == ("FAILED", 1)
    assert state.error is not None
    assert state.error.message == (
        "gave up at the step's deadline of 20000 ms; the last attempt: Flaky: not this time"
    )
    assert state.error.type == "DeadlineExceeded"


def test_an_attempt_takes_no_negative_time_where_the_clock_is_set_back() -> None:
    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, SECOND)
        world.nodes[0].jump(-600 * SECOND)
        passing(world, 20 * SECOND)

    world = play(scenario, plan_of(work("a", ms=2 * SECOND)))
    durations = [event.data["duration_ms"] for _, event in world.journal(TENANT, "x")[1:]]
    assert durations == [0, 0]


# -- compensations ---------------------------------------------------------------------------


def test_an_undo_whose_inputs_can_not_be_computed_is_run_by_no_queue() -> None:
    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, 20 * SECOND)

    undo = {"uses": "sim.undo", "with": {"ms": "${steps.a.output.missing}"}}
    step = work("a") | {"queue": "far", "compensate": undo}
    with _slowly_recording("a:undo"):
        world = play(scenario, plan_of(step, work("b", "a", fatal=True)))
    state = state_of(world)
    assert (state.status, state.not_undone) == ("FAILED", ["a"])
    assert [began.key for began in world.began] == ["x:a:1", "x:b:1"]
