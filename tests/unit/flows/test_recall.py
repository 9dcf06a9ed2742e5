from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from tests.unit.flows.table import Table, run
from wpa.errors import StepFailed
from wpa.flows import call, flow, log, patched, side_effect
from wpa.testing import run as everywhere


def counter() -> Any:
    state = {"n": 0}

    def count() -> int:
        state["n"] += 1
        return state["n"]

    return count


# -- side effects ----------------------------------------------------------------------------


def test_a_side_effect_happens_once() -> None:
    count = counter()

    @flow("effects")
    async def effects() -> list[int]:
        first = await side_effect(count)
        await call("a.do", n=first)
        second, third = await side_effect(count), await side_effect(count)
        await call("b.do", n=second)
        return [first, second, third]

    table = Table(effects)
    table.crash()
    table.ok("a_do")
    table.crash()
    table.crash()
    table.ok("b_do")
    assert table.output == [1, 2, 3]
    assert count() == 4
    assert table.recorded == [
        {"at": 0, "side_effect": 1},
        {"at": 1, "side_effect": 2},
        {"at": 1, "side_effect": 3},
    ]


def test_what_a_flow_comes_by_in_its_last_turn_is_recorded_too() -> None:
    @flow("last")
    async def last() -> list[Any]:
        await call("a.do")
        return [patched("late"), await side_effect(lambda: 7)]

    result = everywhere(last, mocks={"a.do": None}, crash_everywhere=True)
    assert result.output == [True, 7]
    recorded = [event.data["recorded"] for event in result.events if "recorded" in event.data]
    assert recorded == [[{"patched": "late"}, {"at": 1, "side_effect": 7}]]


def test_its_value_is_the_same_live_and_replayed() -> None:
    @flow("valued")
    async def valued() -> Any:
        value = await side_effect(lambda: {"a": ({"b": 1},)})
        await call("a.do")
        return [value.a[0].b, type(value.a).__name__]

    assert run(valued).output == [1, "list"]


def test_its_failure_is_recorded_too() -> None:
    count = counter()

    def fails() -> None:
        raise LookupError(f"try {count()}")

    @flow("failing")
    async def failing() -> list[str]:
        said = []
        for effect in (fails, lambda: "x" * 70_000, lambda: object()):
            try:
                await side_effect(effect)
            except StepFailed as error:
                said.append(f"{error.type}: {error.message}")
        await call("a.do")
        return said

    table = Table(failing)
    table.crash()
    table.ok("a_do")
    said = table.output
    assert said[0] == "LookupError: try 1"
    assert said[1].startswith("TooLarge: a side effect returned 70002 bytes; the most is 65536")
    assert said[2].startswith("TypeError: object can't be written as JSON")


def test_a_side_effect_that_new_code_adds_gets_a_value_of_its_own() -> None:
    def make(extra: bool) -> Any:
        count = counter()

        @flow("growing")
        async def growing() -> list[Any]:
            added = await side_effect(lambda: "added") if extra else None
            await call("a.do")
            return [added, await side_effect(count)]

        return growing

    table = Table(make(False))
    table.ok("a_do")
    table.program = make(True).__wpa_flow__
    table.transcript = table.transcript[:1]
    table.crash()
    assert table.output == ["added", 1]


# -- patches ---------------------------------------------------------------------------------


def make(change: bool, later: bool = False) -> Any:
    @flow("changing")
    async def changing() -> list[str]:
        did = [(await call("a.do")).did]
        if change and patched("check"):
            did.append((await call("check.do")).did)
        did.append((await call("b.do")).did)
        if later and patched("later"):
            did.append((await call("later.do")).did)
        return did

    return changing


def deploy(table: Table, declared: Any) -> None:
    table.program = declared.__wpa_flow__
    table.crash()


def test_new_executions_go_the_new_way_and_stay_on_it() -> None:
    assert run(make(True, True)).output == ["a_do", "check_do", "b_do", "later_do"]


def test_an_execution_that_is_not_there_yet_goes_the_new_way() -> None:
    table = Table(make(False))
    deploy(table, make(True))
    table.ok("a_do")
    assert table.slots == ["check_do"]
    table.crash()
    table.ok("check_do", "b_do")
    table.crash()
    assert table.output == ["a_do", "check_do", "b_do"]


@pytest.mark.parametrize("settled", [1, 2])
def test_an_execution_that_is_past_it_goes_the_old_way(settled: int) -> None:
    table = Table(make(False, later=False))
    for slot in ["a_do", "b_do"][:settled]:
        table.ok(slot)
    if settled == 1:
        deploy(table, make(True, later=True))
        table.ok("b_do")
        assert table.slots == ["later_do"], "what was to come is new"
        table.crash()
        table.ok("later_do")
        assert table.output == ["a_do", "b_do", "later_do"]
    else:
        deploy(table, make(True))
        assert table.output == ["a_do", "b_do"]


def test_an_execution_that_has_only_begun_is_past_what_it_did_then() -> None:
    def version(new: bool) -> Any:
        @flow("first")
        async def first() -> str:
            if new and patched("other"):
                return (await call("b.do")).did
            return (await call("a.do")).did

        return first

    table = Table(version(False))
    deploy(table, version(True))
    assert table.slots == ["a_do"]
    assert run(version(True)).output == "b_do"


def test_the_first_answer_holds_for_the_whole_execution() -> None:
    def version(new: bool) -> Any:
        @flow("looping")
        async def looping() -> list[str]:
            return [(await call("new.do" if new and patched("x") else "old.do")).did for _ in range(3)]

        return looping

    table = Table(version(False))
    table.ok("old_do")
    deploy(table, version(True))
    table.ok("old_do:2")
    table.crash()
    table.ok("old_do:3")
    assert table.output == ["old_do", "old_do:2", "old_do:3"]


def test_a_patch_and_values_may_stand_in_one_turn() -> None:
    @flow("mixed")
    async def mixed() -> list[Any]:
        values = [await side_effect(lambda: 1), patched("p"), await side_effect(lambda: 2), patched("p")]
        await asyncio.sleep(1)
        return [*values, patched("q"), await side_effect(lambda: 3)]

    table = run(mixed)
    assert table.output == [1, True, 2, True, True, 3]
    assert {"patched": "p"} in table.recorded


def test_a_patch_needs_a_name() -> None:
    @flow("nameless")
    async def nameless() -> None:
        patched("")

    assert Table(nameless).error.type == "TypeError"


# -- the log ---------------------------------------------------------------------------------


def test_the_log_is_silent_in_replays(caplog) -> None:
    @flow("talking")
    async def talking() -> None:
        log.info("begins")
        await call("a.do")
        log.info("goes on", extra={"more": 1})
        await call("b.do")
        log.info("ends")

    with caplog.at_level(logging.INFO, "wpa.flows.log"):
        table = Table(talking)
        table.crash()
        table.ok("a_do")
        table.crash()
        table.ok("b_do")
        log.info("outside")
    assert [record.message for record in caplog.records] == ["begins", "goes on", "ends", "outside"]
    assert (caplog.records[1].execution, caplog.records[1].more) == ("x1", 1)


@pytest.mark.parametrize("given", [asyncio.sleep, "os.getcwd", None])
def test_only_a_plain_function_is_a_side_effect(given: Any) -> None:
    @flow("wrong")
    async def wrong() -> None:
        await side_effect(given)

    table = Table(wrong)
    assert table.error.type == "TypeError"
    assert "side_effect() takes a plain function" in table.error.message
    assert table.recorded == []


def test_a_failure_without_a_message_to_show_is_recorded_all_the_same() -> None:
    def fails() -> None:
        raise ValueError("\ud800" + "x" * 10_000)

    @flow("failing")
    async def failing() -> None:
        await call("a.do")
        try:
            await side_effect(fails)
        finally:
            await call("b.do")

    table = Table(failing)
    table.ok("a_do")
    [entry] = table.recorded
    assert len(entry["failed"]["message"]) < 2_100
    table.ok("b_do")
    assert table.error.message == entry["failed"]["message"][:2_000]
    run(failing)
