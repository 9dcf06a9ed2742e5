"""What the simulation has found, one by one, in calm worlds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest import mock

import pytest

from tests.sim.asks import signal
from tests.sim.chaos import LAG_MS, Chaos
from tests.sim.checks import check_journal
from tests.sim.flows import FLOW
from tests.sim.plans import version_of
from tests.sim.simulation import FLOWS, OLDER_FLOWS
from tests.sim.world import TENANT, SimWorld
from wpa.adapters.memory.stores import MemorySnapshots
from wpa.engine.worker import Worker
from wpa.kernel import waits
from wpa.model.state import State
from wpa.ports.tasks import Lease

Scenario = Callable[[SimWorld], None]
SECOND, HOUR = 1_000, 3_600_000


def play(scenario: Scenario, *documents: dict[str, Any], skew_ms: int = 0) -> SimWorld:
    """Play a scenario in a world with one worker, on which nothing goes wrong by itself."""
    world = SimWorld(0, FLOWS)
    world.skew_ms = skew_ms
    try:
        world.deploy(map(version_of, documents))
        world.add_node()
        scenario(world)
    finally:
        world.close()
    return world


def plan_of(*steps: dict[str, Any], id: str = "sim", **more: Any) -> dict[str, Any]:
    return {"id": id, "version": "1", "steps": list(steps), **more}


def work(id: str, *needs: str, ms: int = 1, undo: bool = False, **more: Any) -> dict[str, Any]:
    step = {"id": id, "uses": "sim.work", "with": {"ms": ms, **more}, "needs": list(needs)}
    return step | ({"compensate": {"uses": "sim.undo", "with": {"ms": 200}}} if undo else {})


def calling(workflow: str, **inputs: Any) -> dict[str, Any]:
    return {"id": "c", "uses": "core.workflow", "with": {"workflow": workflow, **inputs}}


def start(world: SimWorld, execution: str = "x", workflow: str = "sim") -> None:
    world.publish({"type": "workflow_start", "workflow_id": workflow, "execution_id": execution})


def ask(world: SimWorld, kind: str, **body: Any) -> None:
    world.publish({"type": f"workflow_{kind}", "execution_id": "x", **body})


def passing(world: SimWorld, ms: int) -> None:
    world.until(world.now_ms + ms)


@contextmanager
def lagging(ms: int = LAG_MS) -> Iterator[None]:
    """In here, replicas know of nothing that is younger than this."""
    with mock.patch.object(Chaos, "lagging", True), mock.patch.object(Chaos, "lag_ms", ms):
        yield


def state_of(world: SimWorld, execution: str = "x") -> State:
    return check_journal(world, (TENANT, execution)).state


def events_of(world: SimWorld, execution: str = "x") -> list[str]:
    return [event.event.removeprefix("workflow_") for _, event in world.journal(TENANT, execution)]


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


# -- time ------------------------------------------------------------------------------------


def test_a_worker_whose_clock_is_behind_waits_for_it_instead_of_setting_the_alarm_anew() -> None:
    nap = {"id": "nap", "uses": "core.sleep", "with": {"for": "10s"}}

    def scenario(world: SimWorld) -> None:
        start(world)
        # As the alarm of a worker whose clock is ahead would ring.
        passing(world, SECOND)
        state = state_of(world)
        body = json.dumps({"type": "timer_due", "execution_id": "x"}).encode()
        world.skew_ms = -700
        world.nodes[0].die()
        world.add_node()
        assert state.wake_at
        world.loop.run(world.ports.timers.set(TENANT, "x.wake", world.now_ms + 9 * SECOND, body))
        passing(world, HOUR)

    world = play(scenario, plan_of(nap))
    assert events_of(world) == ["started", "waiting", "resumed", "step_completed", "completed"]
    assert world.server.due.append("probe", b"", {}).sequence <= 3  # it has rung once, or twice


def test_a_worker_whose_clock_is_set_right_does_not_sleep_on() -> None:
    nap = {"id": "nap", "uses": "core.sleep", "with": {"for": "10s"}}

    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, SECOND)
        world.nodes[0].jump(-600 * SECOND)
        passing(world, 20 * SECOND)
        assert state_of(world).status == "WAITING"  # by its clock, the alarm rang too early
        world.nodes[0].jump(600 * SECOND)
        passing(world, 2 * SECOND)
        assert state_of(world).status == "COMPLETED"

    play(scenario, plan_of(nap))


@pytest.mark.parametrize("beside", [0, 1])
def test_a_retry_that_a_clock_set_back_puts_off_does_not_begin_in_a_pause(beside: int) -> None:
    """Seed 164876: nobody told the driver of the pause, and it slept for half a minute."""
    steps = [work("a", fail=1), *(work(f"b{number}", ms=5 * SECOND) for number in range(beside))]

    async def unheard(*_: object) -> None:
        pass

    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, SECOND // 2)
        world.nodes[0].jump(-30 * SECOND)
        ask(world, "pause")
        passing(world, 50 * SECOND)
        assert state_of(world).status == "PAUSED"
        assert len(world.began) == 1 + beside
        ask(world, "resume")
        passing(world, HOUR)

    with mock.patch.object(Worker, "_on_nudge", unheard):
        world = play(scenario, plan_of(*steps))
    assert state_of(world).status == "COMPLETED"


def test_a_driver_that_hears_of_news_while_it_waits_waits_on() -> None:
    steps = [work("a", ms=30 * SECOND), {"id": "w", "uses": "core.wait", "with": {"signal": "go"}}]

    def scenario(world: SimWorld) -> None:
        start(world)
        for _ in range(5):
            passing(world, SECOND)
            ask(world, "signal", **signal("go"))
        passing(world, HOUR)

    world = play(scenario, plan_of(*steps, timeout="2h"))
    assert state_of(world).status == "COMPLETED"


def test_a_deadline_that_has_passed_does_not_stop_the_compensation() -> None:
    steps = [work("a", ms=SECOND, undo=True), work("b", "a", ms=20 * SECOND)]

    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, 3_100)
        ask(world, "pause")  # refused, and yet heard of
        ask(world, "signal", **signal("go"))
        passing(world, HOUR)

    world = play(scenario, plan_of(*steps, timeout="3s", signals={"go": {}}))
    assert state_of(world).status == "ROLLED_BACK"


@pytest.mark.parametrize("lag_ms", [30, SECOND])
@pytest.mark.parametrize("before_ms", [2 * SECOND, 0])
def test_an_alarm_that_rings_at_once_is_not_lost_to_a_replica_that_lags_behind(
    before_ms: int, lag_ms: int
) -> None:
    """Seed 5930: who set it is behind the times, and who hears it does not see yet that it was waited for."""
    nap = {"id": "nap", "uses": "core.sleep", "with": {"for": "10s"}}
    put = MemorySnapshots.put

    async def put_slowly(self: MemorySnapshots, *args: Any) -> int:
        await asyncio.sleep(0.02)
        return await put(self, *args)

    def scenario(world: SimWorld) -> None:
        world.nodes[0].jump(-30 * SECOND)
        world.add_node()
        passing(world, SECOND)
        slow = mock.patch.object(MemorySnapshots, "put", put_slowly)
        with lagging(lag_ms), slow:
            for name in ("x", "y"):  # the alarm of one of them goes to the other worker
                start(world, name)
            passing(world, 5 * SECOND)
        passing(world, HOUR)

    steps = [work("a", ms=before_ms), nap | {"needs": ["a"]}] if before_ms else [nap]
    world = play(scenario, plan_of(*steps))
    assert [state_of(world, name).status for name in ("x", "y")] == ["COMPLETED"] * 2


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
