"""How a flow ends, whatever its code returns or raises: with something that can be recorded."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel, model_serializer

from tests.unit.flows.table import Table, run
from wpa.flows import StepFailed, call, continue_as_new, flow, saga


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no message")


class Exiting(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Bare(StepFailed):
    """One that does not call the base class's ``__init__``, as is usual with exceptions."""

    def __init__(self, code: int) -> None:
        self.code = code


class Sulky(BaseModel):
    @model_serializer
    def shown(self) -> str:
        raise KeyError("not today")


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "returned",
    ["\ud800", {"\ud800": 1}, [float("nan")], float("inf"), nested(201), object(), Sulky()],
    ids=lambda value: type(value).__name__,
)
def test_what_no_journal_could_hold_is_no_output(returned: Any) -> None:
    @flow("odd")
    async def odd() -> Any:
        return returned

    error = Table(odd).error
    assert error.type == "InvalidOutput"
    assert error.message.startswith("the flow returned what it can't return: ")
    assert "can't be written as JSON" in error.message


@pytest.mark.parametrize(("returned", "where"), [(10**400, "$"), ({"n": [2**63]}, "$.n[0]")])
def test_an_integer_that_no_input_may_hold_is_no_output(returned: Any, where: str) -> None:
    @flow("odd")
    async def odd() -> Any:
        return returned

    error = Table(odd).error
    assert error.type == "InvalidOutput"
    assert error.message == (
        f"the flow returned what it can't return: {where} is an integer of more than 64 bits; "
        "send it as a string"
    )


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (Hostile(), "Hostile", "(its message can't be shown)"),
        (Exiting(), "Exiting", "(its message can't be shown)"),
        (Bare(7), "Bare", "7"),
        (ExceptionGroup("one", [Bare(7)]), "Bare", "7"),
        (ValueError("\ud800"), "ValueError", "\\ud800"),
        (ValueError("x" * 1_000_000), "ValueError", "x" * 2_000),
        (type("E" * 1_000, (Exception,), {})("m"), "E" * 200, "m"),
        (StepFailed("m", type="Own", details={"set": {object()}}), "Own", "m"),
        (ExceptionGroup("one", [ExceptionGroup("in one", [KeyError(1)])]), "KeyError", "1"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_is_raised_can_be_recorded(error: Exception, kind: str, message: str) -> None:
    @flow("raiser")
    async def raiser() -> None:
        raise error

    failure = Table(raiser).error
    assert (failure.type, failure.message) == (kind, message)
    assert failure.details["at"].startswith("tests.unit.flows.test_outcome:")
    assert msgspec.json.decode(msgspec.json.encode(failure), type=type(failure)) == failure


def test_of_a_large_group_the_first_are_told() -> None:
    @flow("grouped")
    async def grouped() -> None:
        raise ExceptionGroup("many", [ValueError(str(n)) for n in range(1_000)])

    failure = Table(grouped).error
    assert failure.message == "many (1000 sub-exceptions)"
    assert [each["message"] for each in failure.details["errors"]] == [str(n) for n in range(20)]


def test_groups_in_groups_are_told_in_a_moment() -> None:
    @flow("grouped")
    async def grouped() -> None:
        error: Exception = ValueError("in the end")
        for _ in range(2_000):
            error = ExceptionGroup("twice", [error, error])
        raise error

    failure = Table(grouped).error
    assert failure.details["errors"] == 2 * [
        {"type": "ExceptionGroup", "message": "twice (2 sub-exceptions)"}
    ]


def test_a_step_that_had_completed_is_undone_whatever_the_flow_raises(wpa: Any) -> None:
    @flow("declined")
    async def declined() -> None:
        await call("a.do", undo="a.undo")
        raise Bare(7)

    result = wpa(declined, mocks={"a.do": None, "a.undo": None}).start().result()
    assert (result.status, result.error.type) == ("ROLLED_BACK", "Bare")
    assert [one.key for one in result.calls] == ["declined-1:a_do:1", "declined-1:a_do:1:undo"]


def test_tasks_that_await_each_other_do_not_hold_up_the_end() -> None:
    @flow("ring")
    async def ring(rings: bool) -> str:
        tasks: list[asyncio.Task[None]] = []

        async def awaits(other: int) -> None:
            await tasks[other]

        tasks += [asyncio.create_task(awaits(1)), asyncio.create_task(awaits(0))]
        await call("a.do")
        if rings:
            asyncio.create_task(asyncio.sleep(60))  # noqa: RUF006  or it would be stuck
            await tasks[0]
        return "done"

    table = run(ring, {"rings": False})
    assert table.output == "done"
    table = Table(ring, {"rings": True})
    table.ok("a_do")
    table.cancel()
    assert table.slots == ["sleep"]
    table.ring("sleep")
    assert table.error.type == "FlowStuck"


def test_a_task_group_lets_a_flow_start_over() -> None:
    @flow("again")
    async def again(undone: bool = False) -> None:
        async with saga(), asyncio.TaskGroup() as group:
            await call("a.do", undo="a.undo")
            group.create_task(call("b.do"))
            continue_as_new(undone=True)

    table = run(again)
    assert table.continued == {"undone": True}
    assert "undo_a_do" not in table.wants


def test_starting_over_does_not_hide_a_failure() -> None:
    @flow("torn")
    async def torn() -> None:
        async def cleaning() -> None:
            try:
                await call("b.do")
            finally:
                raise ValueError("could not clean up")

        async with asyncio.TaskGroup() as group:
            group.create_task(cleaning())
            await call("a.do")
            continue_as_new()

    table = Table(torn)
    table.ok("a_do")
    assert table.error.type == "BaseExceptionGroup"
    assert {each["type"] for each in table.error.details["errors"]} == {"ContinueAsNew", "ValueError"}
