from __future__ import annotations

import asyncio
import gc
import threading
import warnings
import weakref
from typing import Any

import pytest

from tests.unit.flows.table import Table
from wpa.flows import call, flow, saga, signal
from wpa.kernel.program import Waiting

TRACE: list[str] = []


@pytest.fixture(autouse=True)
def _quiet(caplog):
    """Nothing here may be logged, warned about, or fail behind anybody's back."""
    TRACE.clear()
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
        gc.collect()
    assert caplog.text == ""


@flow("tidy")
async def tidy() -> None:
    try:
        async with saga(), asyncio.TaskGroup() as group:
            group.create_task(call("a.do", undo="a.undo"))
            group.create_task(signal("go"))
            group.create_task(asyncio.sleep(5))
            await call("b.do")
    except Exception:
        TRACE.append("exception")
    finally:
        TRACE.append("finally")
        await asyncio.sleep(0)
        TRACE.append("slept")
        await asyncio.gather(call("clean.up"), call("clean.more"))
        TRACE.append("cleaned")


def test_a_run_that_is_let_go_ends_quietly() -> None:
    table = Table(tidy)
    table.ok("a_do")
    run = weakref.ref(table.run)
    ledger = table.run._ledger
    del table
    assert run() is None
    assert TRACE == ["finally"]
    assert ledger.take() == Waiting()


def test_a_run_that_was_never_polled_leaves_nothing() -> None:
    Table(tidy).program.begin({}, {}, Table(tidy).run._ledger.info)


def test_what_refuses_to_end_is_left_behind() -> None:
    @flow("stubborn")
    async def stubborn() -> None:
        for _ in range(10):
            try:
                await call("a.do")
            except BaseException:
                TRACE.append("no")

    Table(stubborn)
    assert TRACE == ["no"] * 10


def test_tasks_begun_while_a_run_is_let_go_never_run() -> None:
    @flow("late")
    async def late() -> None:
        async def never() -> None:
            TRACE.append("ran")

        try:
            await call("a.do")
        finally:
            asyncio.create_task(never())  # noqa: RUF006
            asyncio.get_running_loop().call_soon(TRACE.append, "ran")
            await asyncio.gather(never(), never())

    Table(late)
    gc.collect()
    assert TRACE == []


def test_generators_are_closed_with_their_run() -> None:
    @flow("generating")
    async def generating() -> None:
        async def numbers() -> Any:
            try:
                yield 1
                yield 2
            finally:
                TRACE.append("closed")
                await call("clean.up")

        held = numbers()
        await anext(held)
        await call("a.do")
        await anext(held)

    Table(generating)
    assert TRACE == ["closed"]


def test_the_coroutine_is_freed_at_the_end() -> None:
    class Big:
        pass

    held: list[weakref.ref[Big]] = []

    @flow("freeing")
    async def freeing() -> str:
        big = Big()
        held.append(weakref.ref(big))
        await call("a.do")
        return "done"

    table = Table(freeing)
    table.ok("a_do")
    assert table.output == "done"
    assert held[0]() is None
    assert table.run.progress().completed == 1
    assert [view.step for view in table.run.steps()] == ["a_do"]


def test_the_garbage_collector_rests_and_goes_on() -> None:
    @flow("collecting")
    async def collecting() -> bool:
        return gc.isenabled()

    assert gc.isenabled()
    assert Table(collecting).output is False
    assert gc.isenabled()


def test_no_run_is_running_where_the_garbage_collector_ends_what_others_left() -> None:
    seen: set[Any] = set()

    def collects(phase: str, info: Any) -> None:
        seen.add(asyncio._get_running_loop())

    @flow("tidy")
    async def tidy() -> int:
        made = [[n] for n in range(100_000)]  # the collector is due when the turn is over
        await call("a.do")
        return len(made)

    gc.callbacks.append(collects)
    try:
        assert Table(tidy).slots == ["a_do"]
    finally:
        gc.callbacks.remove(collects)
    assert seen == {None}


def test_a_run_may_move_between_threads() -> None:
    @flow("moving")
    async def moving() -> str:
        await asyncio.gather(call("a.do"), call("b.do"))
        return "moved"

    table = Table(moving)
    for slot in ("a_do", "b_do"):
        thread = threading.Thread(target=table.ok, args=(slot,))
        thread.start()
        thread.join()
    assert table.output == "moved"


def test_an_interrupt_passes_through() -> None:
    @flow("interrupted")
    async def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Table(interrupted)
    assert gc.isenabled()


async def test_an_interrupt_gives_the_host_its_loop_back() -> None:
    @flow("interrupted")
    async def interrupted() -> None:
        raise KeyboardInterrupt

    host, task = asyncio.get_running_loop(), asyncio.current_task()
    with pytest.raises(KeyboardInterrupt):
        Table(interrupted)
    assert asyncio.get_running_loop() is host
    assert asyncio.current_task() is task


def test_old_code_is_freed_with_its_plugin() -> None:
    def declare() -> Any:
        @flow("gone")
        async def gone() -> None:
            await call("a.do")

        table = Table(gone)
        table.ok("a_do")
        return weakref.ref(gone)

    reference = declare()
    gc.collect()
    assert reference() is None


async def test_many_sleeping_runs_at_once() -> None:
    @flow("many")
    async def many() -> str:
        await asyncio.sleep(60)
        return "woke"

    tables = [Table(many, id=f"x{n}") for n in range(500)]
    for table in reversed(tables):
        table.ring("sleep")
    assert {table.output for table in tables} == {"woke"}
