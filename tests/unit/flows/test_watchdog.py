from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.flows.table import Table
from wpa.flows import call, flow, side_effect
from wpa.flows.watchdog import EXCUSED, LOOKS_PER_S, Overrun, Turn, Watchdog


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A watchdog that lets no turn take longer than it takes to look twice."""
    dog = Watchdog(2 / LOOKS_PER_S)
    dog.start()
    monkeypatch.setattr("wpa.flows.loop.watchdog", lambda: dog)
    yield
    assert not dog._turns, "every turn was left"


def spin() -> None:
    while True:
        pass


async def give_way() -> None:
    while True:
        await asyncio.sleep(0)


async def hold_on() -> None:
    try:
        spin()
    except BaseException:
        await call("a.do")


async def call_back() -> None:
    loop = asyncio.get_running_loop()

    def again() -> None:
        loop.call_soon(again)

    again()
    await call("a.do")


async def in_a_task() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(call("a.do"))
        group.create_task(give_way())


async def while_cleaning_up() -> None:
    async def work() -> None:
        try:
            await call("a.do")
        finally:
            spin()

    working = asyncio.create_task(work())
    await asyncio.sleep(0)
    assert not working.done()


ENDLESS: dict[str, Any] = {
    "spin": give_way,
    "give_way": give_way,
    "hold_on": hold_on,
    "again": call_back,
    "in_a_task": in_a_task,
    "while_cleaning_up": while_cleaning_up,
}


@pytest.mark.parametrize("how", ENDLESS)
def test_a_flow_that_never_comes_to_rest_fails_with_its_line(how: str) -> None:
    @flow("endless")
    async def endless() -> None:
        await call("b.do")
        if how == "spin":
            spin()  # before anything is awaited
        await ENDLESS[how]()

    table = Table(endless)
    table.ok("b_do")
    assert table.error.type == "FlowOverrun"
    assert "without waiting for anything, last at " in table.error.message
    site = table.error.details["at"]
    assert site.startswith("tests.unit.flows.test_watchdog:"), site
    assert table.error.message.count(site) == 1


def test_what_was_interrupted_stops_all_its_calls_for_it_may_be_quicker_elsewhere() -> None:
    @flow("endless")
    async def endless() -> None:
        async def tidy() -> None:
            try:
                await call("b.do")
            finally:
                await call("c.do")
                spin()

        await asyncio.gather(call("a.do", undo="a.undo"), call("b.do"), tidy())

    table = Table(endless)
    table.fail("b_do")
    assert table.slots == ["a_do", "c_do"]
    table.ok("c_do")
    assert table.error.type == "FlowOverrun"
    assert (table.outcome.dropped, table.slots) == (("a_do",), [])


def test_others_go_on_as_if_nothing_had_happened() -> None:
    @flow("endless")
    async def endless() -> None:
        spin()

    @flow("good")
    async def good() -> str:
        return str((await call("a.do")).did)

    waiting = Table(good)
    assert Table(endless).error.type == "FlowOverrun"
    waiting.ok("a_do")
    assert waiting.output == "a_do"
    assert Table(good).slots == ["a_do"]


def test_a_run_that_is_let_go_is_interrupted_too() -> None:
    @flow("clinging")
    async def clinging() -> None:
        try:
            await call("a.do")
        finally:
            spin()

    table = Table(clinging)
    began = time.monotonic()
    del table.run
    assert time.monotonic() - began < 5


def test_what_takes_long_without_a_flow_is_nobodys_business() -> None:
    dog = Watchdog(1 / LOOKS_PER_S)
    dog.start()
    turn = Turn("x1", "tests")
    dog.enter(turn)
    dog.leave(turn)
    time.sleep(3 / LOOKS_PER_S)
    assert not turn.site


def test_an_import_and_a_debugger_may_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wpa.flows.watchdog.EXCUSED", EXCUSED | {__name__.partition(".")[0]})

    @flow("slow")
    async def slow() -> str:
        await side_effect(lambda: time.sleep(4 / LOOKS_PER_S))
        return "done"

    assert Table(slow).output == "done"


def test_turns_inside_of_turns_and_of_other_threads() -> None:
    dog = Watchdog(2 / LOOKS_PER_S)
    dog.start()
    outer, inner, other = Turn("x1", "tests"), Turn("x2", "tests"), Turn("x3", "tests")
    failed: list[str] = []

    def elsewhere() -> None:
        dog.enter(other)
        try:
            spin()
        except Overrun:
            failed.append(other.execution)
        finally:
            dog.leave(other)

    thread = threading.Thread(target=elsewhere)
    dog.enter(outer)
    dog.enter(inner)
    dog.leave(inner)
    thread.start()
    try:
        with pytest.raises(Overrun):
            spin()
    finally:
        dog.leave(outer)
    thread.join(5)
    assert failed == ["x3"]
    assert not inner.site
    assert dog._turns == {}
