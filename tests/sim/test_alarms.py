"""What the simulation, and others, have found about time: one by one, in calm worlds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest

from tests.sim.asks import signal
from tests.sim.calm import (
    HOUR,
    SECOND,
    ask,
    events_of,
    lagging,
    passing,
    plan_of,
    play,
    start,
    state_of,
    work,
)
from tests.sim.world import TENANT, SimWorld
from wpa.adapters.memory.stores import MemorySnapshots
from wpa.adapters.memory.timers import MemoryTimers
from wpa.engine.worker import Worker


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
        world.loop.run(world.ports.timers.set(TENANT, "x.wake-1", world.now_ms + 9 * SECOND, body))
        passing(world, HOUR)

    world = play(scenario, plan_of(nap))
    assert events_of(world) == ["started", "waiting", "resumed", "step_completed", "completed"]
    assert world.server.due.append("probe", b"", {}).sequence <= 3  # it has rung once, or twice


def test_an_alarm_of_before_does_not_end_another_rest() -> None:
    """Seed 8702948: given out twice, it was acked by the one; the other, which had stood still, woke the next
    rest with it, and died. Nobody was told."""
    naps = [
        {"id": id, "uses": "core.sleep", "with": {"for": "10s"}, "needs": needs}
        for id, needs in (("a", []), ("b", ["a"]))
    ]

    def scenario(world: SimWorld) -> None:
        start(world)
        passing(world, 15 * SECOND)
        rest, timers = state_of(world).rest_epoch, world.ports.timers
        body = b'{"type":"timer_due","execution_id":"x","rest":%d}'
        world.loop.run(timers.set(TENANT, f"x.wake-{rest - 1}", world.now_ms + 6 * SECOND, body % (rest - 1)))
        world.loop.run(timers.set(TENANT, f"x.wake-{rest}", world.now_ms + 7 * SECOND, body % rest))
        passing(world, HOUR)

    world = play(scenario, plan_of(*naps))
    assert state_of(world).status == "COMPLETED"
    *_, (_, resumed), _, _ = world.journal(TENANT, "x")
    assert resumed.event == "workflow_resumed"
    assert int(resumed.data["lease"].rpartition("-")[2]) > 2  # the second that rang was that of before


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


# -- alarms that come too late to be set, or cleared -----------------------------------------

WAIT = {"id": "w", "uses": "core.wait", "with": {"signal": "go", "timeout": "48h"}}
AGAIN = {"id": "again", "needs": ["w"], "uses": "core.wait", "with": {"signal": "again"}}
NAP = {"id": "nap", "uses": "core.sleep", "with": {"for": "20s"}}
SIGNALS: dict[str, Any] = {"go": {}, "again": {}}


@contextmanager
def late(method: str, world: SimWorld) -> Iterator[list[object]]:
    """In here, the first worker stands still, for longer than its lease lasts, before it makes such a call first.

    What it was called with is in the list, once it was.
    """
    call, held = getattr(MemoryTimers, method), list[object]()

    async def hold(self: MemoryTimers, *args: Any) -> None:
        if not held:
            held.append(args)
            chaos = world.nodes[0].chaos
            chaos.freeze(15)
            await chaos.thaw()
        await call(self, *args)

    with mock.patch.object(MemoryTimers, method, hold):
        yield held


def test_an_alarm_that_a_worker_sets_too_late_does_not_replace_that_of_its_successor() -> None:
    """The worker stands still before it sets the alarm for the time-out; meanwhile the signal comes."""

    def scenario(world: SimWorld) -> None:
        with late("set", world) as held:
            start(world)
            passing(world, SECOND)
            assert held
            told_to_the_next(world, "go")
            passing(world, 49 * HOUR)

    world = play(scenario, plan_of(WAIT, NAP | {"needs": ["w"]}, signals=SIGNALS))
    assert events_of(world)[-1] == "completed"


def test_an_alarm_that_a_worker_clears_too_late_is_not_that_of_its_successor() -> None:
    """The worker stands still before it clears the alarm of the time-out; meanwhile a sleep has begun."""

    def scenario(world: SimWorld) -> None:
        with late("clear", world) as held:
            start(world)
            passing(world, SECOND)
            ask(world, "signal", **signal("go"))
            passing(world, SECOND)
            assert held
            told_to_the_next(world, "again")

    play(scenario, plan_of(WAIT, AGAIN, NAP | {"needs": ["again"]}, signals=SIGNALS))


def told_to_the_next(world: SimWorld, name: str) -> None:
    """Another worker takes over, and gets the signal after which the execution sleeps: not for long."""
    world.add_node()
    passing(world, 4 * SECOND)
    start(world, "y")  # which the first worker gets, for it is its turn
    ask(world, "signal", **signal(name))
    passing(world, 40 * SECOND)
    assert state_of(world).status == "COMPLETED"
