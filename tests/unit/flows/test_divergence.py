"""What is said when a flow's code does not ask for what is recorded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.flows.table import Table
from wpa.flows import call, flow, signal
from wpa.testing import replay, run

ORDER = ["a", "b"]


@flow("unsteady")
async def unsteady() -> None:
    for name in ORDER:
        await call("core.noop", step_name=name)


@flow("changed")
async def before() -> None:
    await call("core.noop", step_name="first")


@flow("changed")
async def after(first: str = "sleep") -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(5))
        group.create_task(signal("go", timeout=60))


def lines_of(fn: Any) -> int:
    return int(fn.__code__.co_firstlineno)


def test_the_same_code_that_asks_for_something_else_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = run(unsteady).events
    assert replay(unsteady, journal) is None
    monkeypatch.setattr(f"{__name__}.ORDER", ["b", "a"])
    divergence = replay(unsteady, journal)
    assert divergence is not None
    asked, why = divergence.reason.splitlines()[2:]
    line = lines_of(unsteady) + 3
    assert asked == f"+ asked now: step b (core.noop) at tests.unit.flows.test_divergence:{line} in unsteady"
    assert why.startswith("it is the code that this execution was started with")
    assert "the order of a set of strings (sort it)" in why


def test_changed_code_is_told_with_the_lines_that_wait() -> None:
    divergence = replay(after, run(before).events)
    assert divergence is not None
    recorded, asked, why = divergence.reason.splitlines()[1:]
    assert recorded == "- recorded: step first (core.noop), completed"
    assert "timer sleep (core.sleep)" in asked
    assert "signal signal_go (core.wait)" in asked
    assert why.startswith("put the code back that this execution was started with")


def test_a_timer_is_waited_for_at_its_line() -> None:
    @flow("sleeper")
    async def sleeper(asleep: bool = True) -> None:
        async def nap() -> None:
            await asyncio.sleep(5)

        async with asyncio.timeout(60):
            await nap()

    timeout, nap = Table(sleeper).run.steps()
    assert timeout.site == ""
    assert nap.site == f"tests.unit.flows.test_divergence:{lines_of(sleeper) + 3} in nap"


@flow("replaced")
async def paid() -> None:
    await call("core.noop", step_name="pay")


@flow("replaced")
async def refunded() -> None:
    await call("core.log", step_name="pay", message="another step type under the same name")


def test_another_step_type_under_the_same_name_is_other_work() -> None:
    divergence = replay(refunded, run(paid).events)
    assert divergence is not None
    assert "- recorded: step pay (core.noop), completed" in divergence.reason
    assert "+ asked now: step pay (core.log)" in divergence.reason
