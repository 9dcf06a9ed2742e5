"""Where a flow's own history begins: at a delayed start, after continue_as_new, and as a rerun."""

from __future__ import annotations

import random
import uuid
from typing import Any

import msgspec
import pytest

from wpa.errors import StepFailed, TaskRejected
from wpa.flows import call, continue_as_new, flow, log, now, patched, saga, side_effect
from wpa.kernel.fold import fold
from wpa.kernel.fork import taken_over
from wpa.model.state import decode_state, encode_state
from wpa.testing import Run, WorkflowEnvironment, assert_replays, fail, run

NEXT_DAY = "2026-01-02T00:00:00.000Z"
MOCKS: dict[str, Any] = {"fraud.check": None, "pay.charge": lambda **told: told, "pay.refund": None}


def uses(result: Any) -> list[str]:
    return [call.uses for call in result.calls]


# -- delayed starts --------------------------------------------------------------------------


@flow("careful")
async def careful() -> str:
    if patched("fraud"):
        await call("fraud.check")
    await call("pay.charge")
    return "charged"


def test_a_delayed_start_goes_the_new_way_wherever_a_worker_dies() -> None:
    result = run(careful, mocks=MOCKS, start_at=NEXT_DAY, crash_everywhere=True)
    assert uses(result) == ["fraud.check", "pay.charge"]


def test_nothing_of_a_flow_runs_before_its_delayed_start(wpa: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="wpa.flows.log")
    seen: list[str] = []

    @flow("early")
    async def early() -> list[str]:
        log.info("begins at %s", now().isoformat())
        await side_effect(lambda: seen.append("looked"))
        await call("pay.charge")
        return seen

    def logged() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "wpa.flows.log"]

    env = wpa(early, mocks=MOCKS)
    started = env.start(start_at=NEXT_DAY)
    assert (started.status, seen, logged()) == ("WAITING", [], [])
    assert started.result().output == ["looked"]
    assert logged() == ["begins at 2026-01-02T00:00:00+00:00"]


def test_a_delayed_flow_that_asks_for_nothing_ends_when_it_has_begun() -> None:
    @flow("brief")
    async def brief() -> bool:
        return patched("anything")

    result = run(brief, mocks=MOCKS, start_at=NEXT_DAY, crash_everywhere=True)
    assert (result.status, result.output) == ("COMPLETED", True)
    assert result.events[-1].timestamp == NEXT_DAY


# -- started over ----------------------------------------------------------------------------


@flow("rounds")
async def rounds(left: int = 3) -> None:
    await call("pay.charge", ref=str(uuid.uuid4()), n=random.randrange(10**12))
    if left > 1:
        continue_as_new(left=left - 1)


def test_each_run_has_randomness_of_its_own_wherever_a_worker_dies() -> None:
    result = run(rounds, mocks=MOCKS, crash_everywhere=True)  # which checks that a key has one input
    for name in ("ref", "n"):
        assert len({call.inputs[name] for call in result.calls}) == 3
    assert len({event.data["seed"] for event in result.events if "seed" in event.data}) == 3
    assert_replays(rounds, result.events)


def test_a_run_whose_seed_is_not_recorded_keeps_the_one_before() -> None:
    first, _, over, *_ = run(rounds, mocks=MOCKS).events
    assert over.event == "workflow_continued"
    old = msgspec.structs.replace(over, seq=2, data={**over.data})
    del old.data["seed"]
    assert fold(fold(None, first), old).seed == first.data["seed"]


def test_an_older_worker_can_not_read_the_snapshot_of_a_later_run(wpa: Any) -> None:
    started = wpa(rounds, mocks=MOCKS).start({"left": 2})
    started.result()
    encoded = encode_state(started.state)
    assert b'"format":4' in encoded
    assert decode_state(encoded) == started.state


# -- reruns ----------------------------------------------------------------------------------


def rerun(env: WorkflowEnvironment, old: Run, step: str, id: str = "again", **how: Any) -> Run:
    """A rerun, as a task: what the service would have refused at once, a worker has to refuse, too."""
    task = {
        "type": "workflow_start",
        "workflow_id": old.state.workflow,
        "execution_id": id,
        "fork": {"execution_id": old.id, "step": step},
        "payload": {"input_data": old.state.input},
        **how,
    }
    env._client.ask(task)
    return env.execution(id)


TOYS: dict[str, Any] = {f"toy.{name}": lambda **given: given for name in "abcd"}
CHANCE = random.SystemRandom()


@flow("mixed")
async def mixed() -> list[Any]:
    """``b`` depends on everything that a flow can come by before it."""
    seen = [await side_effect(CHANCE.random), str(uuid.uuid4())]
    if patched("a-first"):
        await call("toy.a", seen=seen)
    toss = random.choice("abcdefgh")
    side = await side_effect(lambda: CHANCE.choice("xyz"))
    await call("toy.b", step_name=f"{toss}{side}{seen[1][0]}{str(seen[0])[2]}")
    later = [await side_effect(CHANCE.random), str(uuid.uuid4())]
    await call("toy.c", later=later)
    last = [patched("late"), random.random()]
    await call("toy.d", last=last)
    return [seen, later, last]


def test_a_rerun_takes_over_what_led_to_the_steps_that_it_takes_over(wpa: Any) -> None:
    env = wpa(mixed, mocks=TOYS)
    old = env.start()
    seen, later, _ = old.result().output
    again = rerun(env, old, "toy_c")
    result = again.result()
    assert uses(result) == ["toy.c", "toy.d"]
    assert result.output[0] == seen
    assert not {*result.output[1]} & {*later}
    assert result.output[2][0] is True
    assert_replays(mixed, result.events)
    # And so does a rerun of the rerun, from before and from after the step that the first began with.
    for step, first in (("toy_d", "toy.d"), (old.state.order[1], "toy.b"), ("toy_c", "toy.c")):
        further = rerun(env, again, step, id=f"from-{step}").result()
        assert (uses(further)[0], further.output[0]) == (first, seen)
        assert (further.output[1] == result.output[1]) is (step == "toy_d")
        assert_replays(mixed, further.events)


def test_a_rerun_may_begin_later(wpa: Any) -> None:
    env = wpa(mixed, mocks=TOYS)
    old = env.start()
    output = old.result().output
    again = rerun(env, old, "toy_c", start_at=NEXT_DAY)
    assert again.status == "WAITING"
    result = again.result()
    assert (uses(result), result.output[0]) == (["toy.c", "toy.d"], output[0])
    assert result.events[-1].timestamp == NEXT_DAY
    assert_replays(mixed, result.events)


def test_a_rerun_goes_past_a_change_that_the_old_one_knew(wpa: Any) -> None:
    env = wpa(careful, mocks=MOCKS)
    old = env.start()
    old.result()
    assert uses(rerun(env, old, "pay_charge").result()) == ["pay.charge"]


def test_a_rerun_that_does_not_come_to_what_it_takes_over_is_refused(wpa: Any) -> None:
    @flow("forks")
    async def forks(way: str) -> None:
        await call("toy.a" if way == "left" else "toy.b")
        await call("toy.c")

    env = wpa(forks, mocks=TOYS)
    old = env.start({"way": "left"})
    old.result()
    with pytest.raises(TaskRejected, match="rerun it from an earlier step, or from its beginning") as refused:
        rerun(env, old, "toy_c", payload={"input_data": {"way": "right"}})
    assert refused.value.code == "does_not_fit"


@flow("trip")
async def trip() -> None:
    await call("toy.a", undo="toy.undo")
    for _ in range(2):
        try:
            async with saga():
                await call("toy.b", undo="toy.undo")
                await call("toy.c")
        except StepFailed:
            await call("toy.d")
    await call("toy.e")


def test_what_a_flow_has_undone_itself_is_not_taken_over_without_that(wpa: Any) -> None:
    no = fail("No", retryable=False)
    env = wpa(trip, mocks={**TOYS, "toy.undo": None, "toy.c": no, "toy.e": no})
    old = env.start()
    assert old.result().status == "ROLLED_BACK"
    state = old.state
    assert state.order == [
        "toy_a", "toy_b", "toy_c", "undo_toy_b", "toy_d",
        "toy_b:2", "toy_c:2", "undo_toy_b:2", "toy_d:2", "toy_e",
    ]  # fmt: skip
    with pytest.raises(TaskRejected, match=f"`wpa rerun {old.id} --from toy_a`"):
        rerun(env, old, "toy_e")
    del state.slots["toy_a:undo"]  # as if nothing but the saga had undone anything
    for step, begin in (("undo_toy_b", "toy_b"), ("toy_c:2", "toy_b:2"), ("undo_toy_b:2", "toy_b:2")):
        with pytest.raises(TaskRejected, match=f"`wpa rerun {old.id} --from {begin}`"):
            taken_over(state, step)
        taken_over(state, begin)
    for whole in ("toy_d:2", "toy_e"):  # what was undone, and what undid it
        assert "undo_toy_b" in [slot.id for slot in taken_over(state, whole).settled]


def test_what_a_flow_was_undoing_when_it_was_terminated_is_not_taken_over(wpa: Any) -> None:
    """Nobody knows whether the step that undoes it had its effect: as where a compensation was cut short."""
    no = fail("No", retryable=False)
    env = wpa(trip, mocks={**TOYS, "toy.undo": fail("Away"), "toy.c": no, "toy.e": 1})
    old = env.start()
    env.skip("1s")
    assert old.state.open == ["undo_toy_b"]
    old.terminate()
    for step in ("undo_toy_b", "toy_c"):
        with pytest.raises(TaskRejected, match=f"`wpa rerun {old.id} --from toy_b`"):
            taken_over(old.state, step)
    assert [slot.id for slot in taken_over(old.state, "toy_b").settled] == ["toy_a"]
