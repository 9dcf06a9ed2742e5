from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from tests.unit.flows.table import EPOCH_MS, Table, run
from wpa.flows import call, flow, signal
from wpa.kernel.program import Finished, Waiting


def test_calls_follow_one_another() -> None:
    @flow("seq")
    async def seq() -> list[Any]:
        first = await call("a.do", n=1)
        second = await call("a.do", n=2)
        return [first.did, second.did]

    table = Table(seq)
    assert table.slots == ["a_do"]
    table.ok("a_do")
    assert table.slots == ["a_do:2"]
    table.ok("a_do:2")
    assert table.output == ["a_do", "a_do:2"]
    assert table.run.poll() == table.outcome
    assert run(seq).output == ["a_do", "a_do:2"]


def test_gather_wants_everything_at_once_and_keeps_the_order() -> None:
    @flow("gather")
    async def gathered() -> list[str]:
        done = await asyncio.gather(*(call("a.do", n=n) for n in range(5)))
        return [each.did for each in done]

    table = Table(gathered)
    assert table.slots == ["a_do", "a_do:2", "a_do:3", "a_do:4", "a_do:5"]
    expected = ["a_do", "a_do:2", "a_do:3", "a_do:4", "a_do:5"]
    assert run(gathered).output == expected
    assert run(gathered, newest=True).output == expected


def test_sleep_is_a_timer_and_time_moves_with_it() -> None:
    @flow("sleepy")
    async def sleepy() -> list[float]:
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.sleep(0)
        await asyncio.sleep(-1)
        await asyncio.sleep(24 * 3600)
        await asyncio.sleep(0.0005)
        return [before, loop.time()]

    table = Table(sleepy)
    [want] = table.wants.values()
    assert (want.slot, want.kind, want.wait.delay_ms) == ("sleep", "timer", 24 * 3600 * 1000)
    table.ring("sleep")
    assert table.wants["sleep:2"].wait.delay_ms == 1
    table.ring("sleep:2")
    assert table.output == [EPOCH_MS / 1000, EPOCH_MS / 1000 + 86400.001]
    run(sleepy)


@pytest.mark.parametrize("seconds", [0.001, 0.1, 0.29, 1.1, 2.3, 59.999, 3600.0, 86400 * 365.25])
def test_delays_are_exact_to_the_millisecond(seconds: float) -> None:
    @flow("exact")
    async def exact() -> None:
        async with asyncio.timeout(seconds):
            await asyncio.sleep(seconds)

    first, second = Table(exact).wants.values()
    assert first.wait.delay_ms == second.wait.delay_ms == round(seconds * 1000)


def test_wait_for_and_timeout_drop_what_they_give_up() -> None:
    @flow("impatient")
    async def impatient() -> str:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(call("slow.one"), timeout=5)
        try:
            async with asyncio.timeout(7):
                await call("slow.two")
        except TimeoutError:
            return "gave up twice"
        return "no"

    table = Table(impatient)
    assert table.slots == ["sleep", "slow_one"]
    table.ring("sleep")
    assert table.outcome.dropped == ("slow_one",)
    assert table.slots == ["sleep:2", "slow_two"]
    table.ring("sleep:2")
    assert table.output == "gave up twice"
    assert table.outcome.dropped == ("slow_two",)
    assert [view.phase for view in table.run.steps()] == ["settled", "skipped", "settled", "skipped"]


def test_a_timeout_that_is_not_needed_is_dropped() -> None:
    @flow("quick")
    async def quick() -> str:
        async with asyncio.timeout(60):
            done = await call("a.do")
        await call("a.do")
        return str(done.did)

    table = Table(quick)
    table.ok("a_do")
    assert table.outcome.dropped == ("sleep",)
    run(quick)


def test_what_comes_and_goes_between_two_polls_is_never_told() -> None:
    @flow("fickle")
    async def fickle() -> None:
        task = asyncio.create_task(call("a.do"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await call("b.do")

    table = Table(fickle)
    assert table.slots == ["b_do"]
    assert table.outcome.dropped == ()
    assert [view.phase for view in table.run.steps()] == ["skipped", "wanted"]


def test_task_groups_cancel_the_others() -> None:
    @flow("group")
    async def grouped() -> str:
        said = "fine"
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(call("a.one"))
                group.create_task(call("a.two"))
                group.create_task(call("a.three"))
        except* Exception as errors:
            said = ",".join(f"{type(each).__name__}:{each}" for each in errors.exceptions)
        return said

    table = Table(grouped)
    table.fail("a_two")
    assert table.output == "StepFailed:a_two failed"
    assert sorted(table.outcome.dropped) == ["a_one", "a_three"]
    assert run(grouped).output == "fine"


def test_events_queues_locks_and_semaphores() -> None:
    @flow("parts")
    async def parts() -> list[str]:
        queue: asyncio.Queue[str] = asyncio.Queue(maxsize=2)
        ready, lock, two = asyncio.Event(), asyncio.Lock(), asyncio.Semaphore(2)
        seen: list[str] = []

        async def produce(name: str) -> None:
            async with two:
                done = await call("a.do", by=name)
                await queue.put(f"{name}:{done.did}")

        async def consume() -> None:
            await ready.wait()
            for _ in range(4):
                item = await queue.get()
                async with lock:
                    await call("b.do", item=item)
                    seen.append(item)

        async with asyncio.TaskGroup() as group:
            for name in "wxyz":
                group.create_task(produce(name))
            group.create_task(consume())
            await asyncio.sleep(1)
            ready.set()
        return seen

    expected = ["w:a_do", "x:a_do:2", "y:a_do:3", "z:a_do:4"]
    assert run(parts).output == expected
    assert len(run(parts, newest=True).output) == 4


def test_shield_and_background_tasks() -> None:
    @flow("shielded")
    async def shielded() -> list[str]:
        inner = asyncio.ensure_future(call("a.do"))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(inner), 1)
        background = asyncio.create_task(call("b.do"))
        return [(await inner).did, (await background).did]

    table = Table(shielded)
    table.ring("sleep")
    assert table.slots == ["a_do", "b_do"]
    table.ok("b_do", "a_do")
    assert table.output == ["a_do", "b_do"]


def test_wait_returns_sets_that_iterate_alike_in_every_replay() -> None:
    @flow("sets")
    async def sets() -> list[str]:
        tasks = [asyncio.create_task(call("a.do", n=n)) for n in range(20)]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        order = [(await call("b.do", of=task.get_name())).did for task in pending]
        return order + [task.result().did for task in done]

    assert len(run(sets).output) == 20


def test_sets_of_futures_iterate_alike_in_every_replay() -> None:
    @flow("futures")
    async def futures() -> list[Any]:
        loop = asyncio.get_running_loop()
        own = {loop.create_future(): n for n in range(20)}
        shields = {asyncio.shield(call("a.do", n=n)) for n in range(20)}
        gathered = {asyncio.gather(call("b.do", n=n), call("c.do")) for n in range(20)}
        for future, n in own.items():
            future.set_result({"inputs": {"n": n}})
        done, _ = await asyncio.wait({*own, *shields, *gathered, asyncio.gather()})
        order = []
        for future in done:
            result = future.result() or [{"inputs": {"n": -1}}]
            first = result[0] if isinstance(result, list) else result
            order.append(first["inputs"]["n"])
        for n in order:
            await call("d.do", n=n)
        return order

    assert sorted(run(futures).output) == sorted([-1, *[n for n in range(20) for _ in range(3)]])


def test_as_completed_starts_in_order() -> None:
    @flow("completed")
    async def completed() -> list[str]:
        coroutines = [call("a.do", n=n) for n in range(30)]
        return [(await each).did for each in asyncio.as_completed(coroutines)]

    table = Table(completed)
    assert [want.inputs["n"] for want in table.wants.values()] == list(range(30))
    run(completed)


def test_finally_may_call() -> None:
    @flow("tidy")
    async def tidy() -> str:
        try:
            await call("a.do")
            raise ValueError("no")
        except ValueError:
            return "caught"
        finally:
            await call("clean.up")

    table = Table(tidy)
    table.ok("a_do")
    assert table.slots == ["clean_up"]
    table.ok("clean_up")
    assert table.output == "caught"
    run(tidy)


def test_what_is_left_running_is_cancelled_and_may_clean_up() -> None:
    @flow("leaver")
    async def leaver() -> str:
        async def watch() -> None:
            try:
                await signal("never")
            finally:
                await call("clean.up")

        watcher = asyncio.create_task(watch())
        silent = asyncio.create_task(call("a.do"))
        await call("b.do")
        return f"left {watcher.done()} {silent.done()}"

    table = Table(leaver)
    table.ok("b_do")
    assert isinstance(table.outcome, Waiting)
    assert table.outcome.dropped == ("signal_never", "a_do")
    assert table.slots == ["clean_up"]
    table.ok("clean_up")
    assert table.output == "left False False"


def test_async_generators_and_context_managers() -> None:
    @flow("streams")
    async def streams() -> list[str]:
        seen = []

        async def numbers() -> Any:
            try:
                for n in range(10):
                    yield (await call("a.do", n=n)).did
            finally:
                await call("gen.closed")

        async for did in numbers():
            seen.append(did)
            if len(seen) == 2:
                break
        await call("b.do")
        return seen

    table = run(streams, newest=True)
    assert table.output == ["a_do", "a_do:2"]
    assert "gen_closed" in [settled.slot for settled in table.history]


def test_names_and_contexts_are_the_runs_own() -> None:
    @flow("names")
    async def names() -> list[str]:
        own = asyncio.current_task()
        other = asyncio.create_task(call("a.do"))
        await other
        assert own is not None
        return [own.get_name(), other.get_name()]

    assert run(names).output == ["flow", "Task-2"]
    assert run(names).output == ["flow", "Task-2"]


async def test_inside_a_running_loop_the_hosts_task_is_untouched() -> None:
    @flow("nested")
    async def nested() -> str:
        loop = asyncio.get_running_loop()
        await call("a.do")
        assert asyncio.get_running_loop() is loop
        return type(loop).__name__

    host, task = asyncio.get_running_loop(), asyncio.current_task()
    table = Table(nested)
    assert asyncio.get_running_loop() is host
    assert asyncio.current_task() is task
    await asyncio.sleep(0)
    table.ok("a_do")
    assert table.output == "FlowLoop"
    assert asyncio.current_task() is task


def test_uvloop_as_the_host() -> None:
    uvloop = pytest.importorskip("uvloop")

    @flow("uv")
    async def uv() -> str:
        await asyncio.gather(call("a.do"), asyncio.sleep(5))
        return "done"

    async def main() -> Any:
        task = asyncio.current_task()
        table = run(uv)
        await asyncio.sleep(0)
        assert asyncio.current_task() is task
        return table.output

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == "done"


def test_a_deadlock_is_told() -> None:
    @flow("stuck")
    async def stuck() -> None:
        await call("a.do")
        await asyncio.Event().wait()

    table = Table(stuck)
    table.ok("a_do")
    assert table.error.type == "FlowStuck"
    assert "test_asyncio:" in table.error.message
    assert "in stuck" in table.error.message


def test_a_delay_of_no_end_opens_no_timer() -> None:
    @flow("endless")
    async def endless() -> str:
        async with asyncio.timeout(float("inf")):
            await call("a.do")
        return "done"

    assert Table(endless).slots == ["a_do"]
    assert run(endless).output == "done"


def test_system_exit_ends_the_flow_and_not_the_worker() -> None:
    @flow("exits")
    async def exits() -> None:
        await call("a.do")
        raise SystemExit(3)

    table = Table(exits)
    table.ok("a_do")
    assert table.error.type == "SystemExit"


def test_a_flow_may_await_another_flows_function() -> None:
    @flow("inner")
    async def inner(n: int) -> int:
        return len((await call("a.do", n=n)).did)

    @flow("outer")
    async def outer() -> int:
        return await inner(1) + await inner(2)

    assert run(outer).output == len("a_do") + len("a_do:2")


def test_many_steps_cost_the_same_each() -> None:
    @flow("long")
    async def long(count: int) -> int:
        for n in range(count):
            await call("a.do", n=n)
        return count

    table = Table(long, {"count": 1000})
    while isinstance(table.outcome, Waiting):
        table.ok(*table.slots)
    assert isinstance(table.outcome, Finished)
    assert table.run.progress().percentage == 100
