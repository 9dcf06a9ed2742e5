"""What a status shows of steps that run more than once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.unit.talk import Talk, talking

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
