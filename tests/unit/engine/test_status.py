"""What a status shows of steps that run more than once, and of a flow that has not begun, or has failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.unit.kernel.table import EPOCH_MS, Table
from tests.unit.talk import Talk, talking
from wpa import call, flow
from wpa.engine.status import status_document
from wpa.flows import flow_of
from wpa.kernel.execution import Start

ONE_AT_A_TIME: dict[str, Any] = {
    "id": "order",
    "version": "1",
    "max_parallel": 1,
    "steps": [
        {"id": "fast", "uses": "core.echo"},
        {"id": "slow", "uses": "core.echo", "foreach": {"in": [1, 2]}},
        {"id": "first", "uses": "core.wait", "with": {"signal": "go"}, "needs": ["fast", "slow"], "join": "race"},
    ],
}  # fmt: skip


MEGABYTE = 1_000_000


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    async with talking() as talk:
        yield talk


async def loop_of(talk: Talk) -> dict[str, Any]:
    status = (await talk.ok("status", execution_id="x"))["execution"]
    (row,) = (row for row in status["steps"] if row["step"] == "slow")
    return dict(row)


async def test_a_loop_that_lost_a_race_before_it_began_is_skipped(talk: Talk) -> None:
    await talk.ok("deploy", document=ONE_AT_A_TIME)
    await talk.start("x")
    await talk.comes_to("x", "WAITING")
    row = await loop_of(talk)
    assert (row["status"], row["attempt"], row["turns"]["done"]) == ("skipped", 0, 0)


def test_nothing_is_done_of_a_flow_that_has_not_begun() -> None:
    @flow("later")
    async def later() -> None:
        await call("toy.step")

    program = flow_of(later)
    assert program is not None
    start = Start(tenant="acme", execution="x1", start_hash="h", lease="1-1", start_at_ms=EPOCH_MS + 1000)
    table = Table(program, start=start)
    shown = status_document(table.state, table.execution, table.now_ms, bytes_max=MEGABYTE)
    assert (shown["progress"]["percentage"], shown["steps"]) == (0, [])
    table.now_ms += 1000
    table.follow()
    shown = status_document(table.state, table.execution, table.now_ms, bytes_max=MEGABYTE)
    assert [step["status"] for step in shown["steps"]] == ["running"]


def test_a_flow_that_has_failed_says_so_while_it_waits_for_what_may_have_to_be_undone() -> None:
    @flow("order")
    async def order() -> None:
        await asyncio.gather(call("toy.book", undo="toy.free"), call("toy.pay"))

    program = flow_of(order)
    assert program is not None
    table = Table(program)
    table.fail("toy_pay", "Refused", retryable=False)
    table.follow()
    shown = status_document(table.state, table.execution, table.now_ms, bytes_max=MEGABYTE)
    assert (shown["status"], shown["current_steps"], shown["error"].type) == (
        "RUNNING",
        ["toy_book"],
        "Refused",
    )
