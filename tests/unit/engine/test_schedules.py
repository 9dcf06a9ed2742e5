from __future__ import annotations

from typing import Any

import pytest

from tests.unit.engine.starts import TENANT, World
from wpa.engine.schedules import KIND, Schedules
from wpa.errors import NotFound, TaskRejected, Unavailable
from wpa.model.schedules import ScheduleRecord, decode_record

HOURLY = {"cron": "0 0 * * * *", "input": {"report": "sales"}}
HOUR = 3_600


class Bench:
    """Schedules, and a worker that does nothing but see to firings."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.schedules = Schedules(world.services)
        self.workflow = "nightly"

    async def deploy(self, version: str = "1", **schedule: Any) -> None:
        more = {"schedule": schedule} if schedule else {}
        await self.schedules.deployed(TENANT, await self.world.deploy(version, **more))

    async def row(self) -> dict[str, Any]:
        (row,) = await self.schedules.list(TENANT)
        return row

    async def record(self) -> ScheduleRecord:
        found = await self.world.ports.records.get(TENANT, KIND, self.workflow)
        assert found is not None
        return decode_record(found[0])

    async def pass_hours(self, hours: float) -> None:
        """Time passes, and each firing is seen to as it comes."""
        for _ in range(int(hours * 120)):
            await self.world.clock.advance(HOUR / 120)
            await self.see_to_all()

    async def see_to_all(self) -> None:
        leases, self.world.leases[:] = list(self.world.leases), []
        for lease in leases:
            await self.schedules.fired(lease, self.workflow)


@pytest.fixture
async def bench() -> Bench:
    world = await World.open()
    await world.listen()
    return Bench(world)


# -- firings ---------------------------------------------------------------------------------


async def test_a_firing_starts_an_execution_that_knows_why(bench: Bench) -> None:
    await bench.deploy(**HOURLY)
    await bench.pass_hours(1)
    (task,) = bench.world.tasks
    assert (task["type"], task["workflow_id"]) == ("workflow_start", "nightly")
    assert task["execution_id"] == "nightly-20261120T010000Z"
    assert task["metadata"]["source"] == "schedule"
    assert task["payload"]["input_data"] == {"report": "sales"}
    times = task["payload"]["execution_context"]["schedule"]
    assert times == {"fired_at": "2026-11-20T01:00:00.000Z", "scheduled_for": "2026-11-20T01:00:00.000Z"}
    row = await bench.row()
    assert (row["started"], row["last_execution_id"]) == (1, "nightly-20261120T010000Z")
    assert row["next_at"] == "2026-11-20T02:00:00.000Z"


async def test_a_firing_that_is_delivered_twice_starts_one(bench: Bench) -> None:
    await bench.deploy(**HOURLY)
    await bench.world.clock.advance(HOUR)
    (lease,) = bench.world.leases
    for _ in range(3):
        await bench.schedules.fired(lease, "nightly")
    assert bench.world.started == ["nightly-20261120T010000Z"]


async def test_one_that_still_runs_is_not_overtaken(bench: Bench) -> None:
    await bench.deploy(**HOURLY)
    await bench.pass_hours(1)
    await bench.world.execution("nightly-20261120T010000Z", "WAITING")
    await bench.pass_hours(2)
    row = await bench.row()
    assert (row["started"], row["skipped"]) == (1, 2)
    assert row["last_skipped_at"][:16] == "2026-11-20T03:00"
    await bench.world.execution("nightly-20261120T010000Z", "FAILED")
    await bench.pass_hours(1)
    assert bench.world.started == ["nightly-20261120T010000Z", "nightly-20261120T040000Z"]


async def test_allow_starts_them_side_by_side(bench: Bench) -> None:
    await bench.deploy(**HOURLY, overlap="allow")
    await bench.pass_hours(1)
    await bench.world.execution("nightly-20261120T010000Z", "RUNNING")
    await bench.pass_hours(1)
    assert len(bench.world.started) == 2


async def test_cancel_old_cancels_what_still_runs_and_nothing_else(bench: Bench) -> None:
    await bench.deploy(**HOURLY, overlap="cancel_old")
    await bench.pass_hours(1)
    await bench.world.execution("nightly-20261120T010000Z", "RUNNING")
    await bench.pass_hours(1)
    kinds = [(task["type"], task["execution_id"]) for task in bench.world.tasks]
    assert kinds == [
        ("workflow_start", "nightly-20261120T010000Z"),
        ("workflow_cancel", "nightly-20261120T010000Z"),
        ("workflow_start", "nightly-20261120T020000Z"),
    ]
    assert "nightly-20261120T020000Z" in bench.world.tasks[1]["payload"]["reason"]
    await bench.world.execution("nightly-20261120T020000Z", "COMPLETED")
    await bench.pass_hours(1)
    assert [task["type"] for task in bench.world.tasks[3:]] == ["workflow_start"]


async def test_a_start_that_is_queued_counts_as_running_for_a_while_only(bench: Bench) -> None:
    await bench.deploy(cron="0 */4 * * * *")
    await bench.pass_hours(0.2)
    assert bench.world.started == ["nightly-20261120T003200Z"], "it has not begun, but it may"
    await bench.pass_hours(0.1)
    assert len(bench.world.started) == 2, "by then it was rejected"


@pytest.mark.parametrize(("policy", "starts"), [("one", 1), ("none", 0), ("all", 5)])
async def test_what_was_missed_while_no_worker_was_there(bench: Bench, policy: str, starts: int) -> None:
    await bench.deploy(**HOURLY, catch_up=policy, overlap="allow")
    await bench.world.clock.advance(HOUR * 5)
    await bench.see_to_all()
    assert len(bench.world.started) == starts
    assert len(set(bench.world.started)) == starts
    assert (await bench.row())["missed"] == 5 - starts
    await bench.pass_hours(1)
    assert bench.world.started[-1] == "nightly-20261120T060000Z"


async def test_catching_up_keeps_to_the_overlap_policy(bench: Bench) -> None:
    await bench.deploy(**HOURLY, catch_up="all", overlap="skip")
    await bench.world.clock.advance(HOUR * 3)
    await bench.see_to_all()
    assert len(bench.world.started) == 1
    assert (await bench.row())["skipped"] == 2


class Fails:
    """Makes the n-th call fail: the request's or the answer's way is lost."""

    def __init__(self, port: Any, name: str, number: int, *, after: bool) -> None:
        self.call, self.left, self.after = getattr(port, name), number, after
        setattr(port, name, self)

    async def __call__(self, *args: Any, **more: Any) -> Any:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Unavailable("lost on its way")
        answer = await self.call(*args, **more)
        if self.left == 0:
            raise Unavailable("the answer was lost")
        return answer


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("port", "name", "number"),
    [("records", "get", 1), ("records", "put", 1), ("records", "put", 2), ("tasks", "publish", 1),
     ("tasks", "publish", 2)],
)  # fmt: skip
async def test_a_worker_that_dies_in_the_middle_changes_nothing(
    bench: Bench, port: str, name: str, number: int, after: bool
) -> None:
    await bench.deploy(**HOURLY, overlap="cancel_old")
    await bench.pass_hours(1)
    await bench.world.execution("nightly-20261120T010000Z", "RUNNING")
    await bench.world.clock.advance(HOUR)
    (lease,) = bench.world.leases
    Fails(getattr(bench.world.ports, port), name, number, after=after)
    with pytest.raises(Unavailable):
        await bench.schedules.fired(lease, "nightly")
    await bench.schedules.fired(lease, "nightly")
    asked = [(task["type"], task["execution_id"]) for task in bench.world.tasks[1:]]
    assert set(asked) == {
        ("workflow_cancel", "nightly-20261120T010000Z"),
        ("workflow_start", "nightly-20261120T020000Z"),
    }
    starts = [task for task in bench.world.tasks[1:] if task["type"] == "workflow_start"]
    assert all(task["payload"] == starts[0]["payload"] for task in starts)
    record = await bench.record()
    assert (record.pending, record.started) == (None, 2)


async def test_what_a_dead_worker_left_undone_is_done_by_the_next_firing(bench: Bench) -> None:
    await bench.deploy(**HOURLY, overlap="allow")
    await bench.world.clock.advance(HOUR)
    (lease,) = bench.world.leases
    Fails(bench.world.ports.tasks, "publish", 1, after=False)
    with pytest.raises(Unavailable):
        await bench.schedules.fired(lease, "nightly")
    bench.world.leases.clear()
    await bench.world.clock.advance(HOUR)
    await bench.schedules.fired(lease, "nightly")
    assert bench.world.started == ["nightly-20261120T010000Z", "nightly-20261120T020000Z"]
    await bench.schedules.fired(lease, "nightly")
    assert len(bench.world.started) == 2


@pytest.mark.parametrize("after", [False, True])
async def test_a_worker_that_dies_before_the_alarm_is_set_leaves_it_to_the_next(
    bench: Bench, after: bool
) -> None:
    await bench.deploy(**HOURLY, overlap="allow")
    await bench.world.clock.advance(HOUR)
    (lease,) = bench.world.leases
    Fails(bench.world.ports.timers, "set", 1, after=after)
    with pytest.raises(Unavailable):
        await bench.schedules.fired(lease, "nightly")
    assert bench.world.server.due.read(f"workflow.due.{TENANT}") != [], "not acked"
    await bench.schedules.fired(lease, "nightly")
    bench.world.leases.clear()
    await bench.pass_hours(1)
    assert bench.world.started == ["nightly-20261120T010000Z", "nightly-20261120T020000Z"]


async def test_a_firing_before_its_moment_starts_nothing_and_the_alarm_is_there(bench: Bench) -> None:
    await bench.deploy(every="1h")
    await bench.world.ports.timers.set(TENANT, "nightly.schedule", 0, b"")
    await bench.world.clock.advance(1)
    await bench.see_to_all()
    assert bench.world.started == []
    await bench.pass_hours(1)
    assert bench.world.started == ["nightly-20261120T013000Z"]


async def test_a_worker_that_begins_sets_an_alarm_that_was_lost(bench: Bench) -> None:
    await bench.deploy(**HOURLY)
    await bench.world.ports.timers.clear(TENANT, "nightly.schedule")
    await bench.world.clock.advance(HOUR)
    assert bench.world.leases == []
    await bench.deploy(**HOURLY)
    await bench.world.clock.advance(1)
    await bench.see_to_all()
    assert bench.world.started == ["nightly-20261120T010000Z"]


async def test_an_interval_keeps_its_phase_however_late_it_is_seen_to(bench: Bench) -> None:
    await bench.deploy(every="1h", overlap="allow")
    await bench.world.clock.advance(HOUR * 2.4)
    await bench.see_to_all()
    await bench.pass_hours(1)
    assert bench.world.started == ["nightly-20261120T023000Z", "nightly-20261120T033000Z"]
    assert (await bench.row())["next_at"] == "2026-11-20T04:30:00.000Z"


async def test_the_alarm_is_the_newest_versions_though_a_firing_of_the_last_is_seen_to(bench: Bench) -> None:
    await bench.deploy(**HOURLY)
    await bench.world.clock.advance(HOUR)
    (lease,) = bench.world.leases
    bench.world.leases.clear()
    set_alarm = bench.world.ports.timers.set
    raced: list[bool] = []

    async def race(*args: Any) -> None:
        if not raced:
            raced.append(True)
            await bench.deploy("2", cron="0 */20 * * * *", overlap="allow")
        await set_alarm(*args)

    bench.world.ports.timers.set = race  # type: ignore[method-assign]
    await bench.schedules.fired(lease, "nightly")
    await bench.pass_hours(0.2)
    assert bench.world.started == ["nightly-20261120T010000Z", "nightly-20261120T014000Z"]


async def test_two_workers_with_one_firing_each(bench: Bench) -> None:
    """The server may store a firing twice; whoever loses the compare-and-set looks again."""
    await bench.deploy(**HOURLY)
    await bench.world.clock.advance(HOUR)
    (lease,) = bench.world.leases
    other = Schedules(bench.world.services)
    put = bench.world.ports.records.put
    raced: list[bool] = []

    async def race(*args: Any) -> int:
        if not raced:
            raced.append(True)
            await other.fired(lease, "nightly")
        return await put(*args)

    bench.world.ports.records.put = race  # type: ignore[method-assign]
    await bench.schedules.fired(lease, "nightly")
    assert bench.world.started == ["nightly-20261120T010000Z"]
    assert (await bench.record()).started == 1


# -- deploying -------------------------------------------------------------------------------


async def test_deploying_again_changes_nothing(bench: Bench) -> None:
    await bench.deploy(every="90m")
    await bench.world.clock.advance(HOUR)
    await bench.deploy(every="90m")
    await bench.deploy("2", every="90m", overlap="allow")
    await bench.pass_hours(0.5)
    assert bench.world.started == ["nightly-20261120T020000Z"], "the interval goes on"
    row = await bench.row()
    assert (row["version"], row["overlap"]) == ("2", "allow")


async def test_a_new_version_replaces_the_schedule(bench: Bench) -> None:
    await bench.deploy(**HOURLY)
    await bench.deploy("2", cron="0 30 * * * *")
    await bench.pass_hours(1)
    assert bench.world.started == ["nightly-20261120T013000Z"]


async def test_a_new_version_without_one_removes_it_and_the_next_brings_it_back(bench: Bench) -> None:
    await bench.deploy(**HOURLY)
    await bench.deploy("2")
    await bench.pass_hours(2)
    assert (bench.world.started, await bench.schedules.list(TENANT)) == ([], [])
    await bench.deploy("3", **HOURLY)
    await bench.pass_hours(1)
    assert bench.world.started == ["nightly-20261120T030000Z"]


async def test_an_older_version_that_is_looked_at_late_changes_nothing(bench: Bench) -> None:
    old = await bench.world.deploy("1", schedule=HOURLY)
    await bench.deploy("2", cron="0 30 * * * *")
    await bench.schedules.deployed(TENANT, old)
    assert (await bench.row())["schedule"] == "0 30 * * * *"


async def test_whoever_deploys_may_die_before_the_server_has_it(bench: Bench) -> None:
    Fails(bench.world.ports.timers, "set", 1, after=False)
    with pytest.raises(Unavailable):
        await bench.deploy(**HOURLY)
    assert (await bench.row())["in_force"] is False
    await bench.deploy(**HOURLY)
    await bench.pass_hours(1)
    assert len(bench.world.started) == 1


async def test_a_plan_without_a_schedule_leaves_no_record(bench: Bench) -> None:
    await bench.deploy()
    assert await bench.world.ports.records.get(TENANT, KIND, "nightly") is None


async def test_an_interval_of_half_seconds_is_refused(bench: Bench) -> None:
    with pytest.raises(TaskRejected, match="whole seconds"):
        await bench.deploy(every="1500ms")


# -- what people ask -------------------------------------------------------------------------


async def test_a_pause_survives_deploys_and_nothing_is_made_up_for(bench: Bench) -> None:
    await bench.deploy(**HOURLY, catch_up="all")
    assert (await bench.schedules.pause(TENANT, "nightly"))["paused"] is True
    await bench.pass_hours(2)
    await bench.deploy("2", **HOURLY, catch_up="all", overlap="allow")
    await bench.pass_hours(2)
    assert bench.world.started == []
    row = await bench.schedules.resume(TENANT, "nightly")
    assert (row["paused"], row["next_at"]) == (False, "2026-11-20T05:00:00.000Z")
    await bench.pass_hours(1)
    assert bench.world.started == ["nightly-20261120T050000Z"]


async def test_one_that_is_declared_paused_until_a_version_says_otherwise(bench: Bench) -> None:
    await bench.deploy(**HOURLY, paused=True)
    await bench.pass_hours(1)
    await bench.deploy("2", **HOURLY, paused=False)
    await bench.pass_hours(1)
    assert bench.world.started == ["nightly-20261120T020000Z"]


async def test_a_firing_on_its_way_when_it_is_paused_starts_nothing(bench: Bench) -> None:
    await bench.deploy(**HOURLY)
    await bench.world.clock.advance(HOUR)
    await bench.schedules.pause(TENANT, "nightly")
    await bench.see_to_all()
    assert bench.world.started == []


async def test_pausing_twice_and_deleting_what_is_paused(bench: Bench) -> None:
    await bench.deploy(**HOURLY)
    for _ in range(2):
        await bench.schedules.pause(TENANT, "nightly")
    await bench.schedules.delete(TENANT, "nightly")
    assert await bench.schedules.list(TENANT) == []
    await bench.deploy(**HOURLY)
    assert await bench.schedules.list(TENANT) == [], "until a new version"


async def test_triggering_starts_one_now_though_it_is_paused(bench: Bench) -> None:
    await bench.deploy(**HOURLY)
    await bench.schedules.pause(TENANT, "nightly")
    answer = await bench.schedules.trigger(TENANT, "nightly")
    assert answer["execution_id"] == "nightly-manual-20261120T003000Z"
    (task,) = bench.world.tasks
    assert (task["execution_id"], task["payload"]["input_data"]) == (
        answer["execution_id"],
        {"report": "sales"},
    )


@pytest.mark.parametrize("verb", ["pause", "resume", "trigger", "delete"])
async def test_a_schedule_that_is_not_there(bench: Bench, verb: str) -> None:
    await bench.deploy(**HOURLY)
    with pytest.raises(NotFound, match="'nightl'; did you mean 'nightly'") as refused:
        await getattr(bench.schedules, verb)(TENANT, "nightl")
    assert refused.value.code == "unknown_schedule"


async def test_the_last_word_is_the_records(bench: Bench) -> None:
    """Resumed while the pause is still being carried out: the server must keep the schedule in the end."""
    await bench.deploy(**HOURLY)
    clear = bench.world.ports.timers.clear
    raced: list[bool] = []

    async def race(*args: Any) -> None:
        if not raced:
            raced.append(True)
            await bench.schedules.resume(TENANT, "nightly")
        await clear(*args)

    bench.world.ports.timers.clear = race  # type: ignore[method-assign]
    await bench.schedules.pause(TENANT, "nightly")
    await bench.pass_hours(1)
    assert len(bench.world.started) == 1


async def test_a_firing_of_nothing_is_let_go(bench: Bench) -> None:
    await bench.deploy(**HOURLY)
    await bench.world.clock.advance(HOUR)
    (lease,) = bench.world.leases
    await bench.schedules.fired(lease, "another")
    assert bench.world.server.due.read(f"workflow.due.{TENANT}") == [], "acked"
