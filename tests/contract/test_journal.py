from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.contract.worlds import World
from wpa.adapters.nats import journal
from wpa.errors import Conflict
from wpa.model.codec import decode_event
from wpa.model.events import Event
from wpa.ports import Ports
from wpa.ports.journal import EVERY


def event(tenant: str, seq: int, execution: str = "x1", **more: Any) -> Event:
    return Event(
        id=f"{execution}-{seq}",
        seq=seq,
        event="workflow_started" if seq == 1 else "workflow_step_completed",
        tenant_id=tenant,
        workflow_id="order",
        execution_id=execution,
        timestamp="2026-11-20T10:00:00.000Z",
        **more,
    )


async def fill(ports: Ports, tenant: str, count: int, execution: str = "x1") -> list[int]:
    positions: list[int] = []
    for seq in range(1, count + 1):
        after = positions[-1] if positions else 0
        positions.append(await ports.journal.append(event(tenant, seq, execution), after))
    return positions


async def test_an_empty_journal(ports: Ports, tenant: str) -> None:
    assert await ports.journal.read(tenant, "x1") == []
    assert await ports.journal.recent(tenant, 10) == ([], 0)


async def test_what_is_appended_is_read(ports: Ports, tenant: str) -> None:
    rich = event(
        tenant, 1, data={"output": {"ñ": [1, 2.5, None, "x" * 2_000]}}, epoch=3, worker="w", task_id="t"
    )
    position = await ports.journal.append(rich, 0)
    assert position > 0
    assert await ports.journal.read(tenant, "x1") == [(position, rich)]


async def test_positions_grow(ports: Ports, tenant: str) -> None:
    positions = await fill(ports, tenant, 5)
    assert positions == sorted(set(positions))
    stored = await ports.journal.read(tenant, "x1")
    assert [position for position, _ in stored] == positions
    assert [found.seq for _, found in stored] == [1, 2, 3, 4, 5]


async def test_the_latest_position(ports: Ports, tenant: str) -> None:
    assert await ports.journal.latest(tenant, "x1") == 0
    *_, last = await fill(ports, tenant, 3)
    await fill(ports, tenant, 1, "x2")
    assert await ports.journal.latest(tenant, "x1") == last


async def test_positions_grow_over_all_executions(ports: Ports, tenant: str) -> None:
    first = await ports.journal.append(event(tenant, 1, "x1"), 0)
    second = await ports.journal.append(event(tenant, 1, "x2"), 0)
    third = await ports.journal.append(event(tenant, 2, "x1"), first)
    assert first < second < third


async def test_the_tail_of_a_journal(ports: Ports, tenant: str) -> None:
    positions = await fill(ports, tenant, 5)
    tail = await ports.journal.read(tenant, "x1", after=positions[2])
    assert [found.seq for _, found in tail] == [4, 5]
    assert await ports.journal.read(tenant, "x1", after=positions[-1]) == []


async def test_a_page_of_a_journal(ports: Ports, tenant: str) -> None:
    positions = await fill(ports, tenant, 601)
    page = await ports.journal.read(tenant, "x1", positions[1], 3)
    assert [found.seq for _, found in page] == [3, 4, 5]
    assert [found.seq for _, found in await ports.journal.read(tenant, "x1", positions[598], 3)] == [600, 601]
    assert len(await ports.journal.read(tenant, "x1", 0, 600)) == 600


async def test_a_long_journal_is_read_whole(ports: Ports, tenant: str) -> None:
    positions = await fill(ports, tenant, 1_001)
    stored = await ports.journal.read(tenant, "x1")
    assert [position for position, _ in stored] == positions


@pytest.mark.parametrize("stale", [0, 1, -1])
async def test_another_position_is_a_conflict(ports: Ports, tenant: str, stale: int) -> None:
    positions = await fill(ports, tenant, 3)
    after = {0: 0, 1: positions[1], -1: positions[-1] + 1_000_000}[stale]
    with pytest.raises(Conflict):
        await ports.journal.append(event(tenant, 4), after)
    assert len(await ports.journal.read(tenant, "x1")) == 3


async def test_nothing_can_follow_what_is_not_there(ports: Ports, tenant: str) -> None:
    with pytest.raises(Conflict):
        await ports.journal.append(event(tenant, 1), 7)
    assert await ports.journal.read(tenant, "x1") == []


async def test_of_many_at_once_one_wins(world: World, tenant: str) -> None:
    writers = [await world.connect() for _ in range(3)]
    tries = [writers[n % 3].journal.append(event(tenant, 1, worker=f"w{n}"), 0) for n in range(12)]
    ended = await asyncio.gather(*tries, return_exceptions=True)
    won = [outcome for outcome in ended if isinstance(outcome, int)]
    assert len(won) == 1
    assert sum(isinstance(outcome, Conflict) for outcome in ended) == 11
    [(position, _)] = await writers[0].journal.read(tenant, "x1")
    assert position == won[0]


async def test_executions_and_tenants_are_apart(ports: Ports, tenant: str) -> None:
    await fill(ports, tenant, 2, "x1")
    await fill(ports, tenant, 1, "x2")
    await fill(ports, f"{tenant}-b", 3, "x1")
    assert len(await ports.journal.read(tenant, "x1")) == 2
    assert len(await ports.journal.read(tenant, "x2")) == 1
    assert len(await ports.journal.read(f"{tenant}-b", "x1")) == 3


async def test_all_journals_of_a_tenant_are_read_as_one(ports: Ports, tenant: str) -> None:
    assert await ports.journal.latest(tenant, EVERY) == 0
    first, second = await fill(ports, tenant, 2, "x1")
    (third,) = await fill(ports, tenant, 1, "x2")
    await fill(ports, f"{tenant}-b", 1, "x1")
    fourth = await ports.journal.append(event(tenant, 3, "x1"), second)
    await fill(ports, f"{tenant}-b", 1, "x2")
    stored = await ports.journal.read(tenant, EVERY)
    assert [position for position, _ in stored] == [first, second, third, fourth]
    assert [(found.execution_id, found.seq) for _, found in stored] == [
        ("x1", 1), ("x1", 2), ("x2", 1), ("x1", 3),
    ]  # fmt: skip
    assert await ports.journal.read(tenant, EVERY, second, 1) == [stored[2]]
    assert await ports.journal.read(tenant, EVERY, fourth) == []
    assert await ports.journal.latest(tenant, EVERY) == fourth


async def test_recent_executions_the_latest_first(ports: Ports, tenant: str) -> None:
    x1 = await fill(ports, tenant, 2, "x1")
    await fill(ports, tenant, 1, "x2")
    await fill(ports, tenant, 3, "x3")
    await fill(ports, f"{tenant}-b", 1, "other")
    await ports.journal.append(event(tenant, 3, "x1"), x1[-1])
    recent, following = await ports.journal.recent(tenant, 10)
    assert [(found.execution_id, found.seq) for _, found in recent] == [("x1", 3), ("x3", 3), ("x2", 1)]
    assert following == 0
    assert [place for place, _ in recent] == sorted((place for place, _ in recent), reverse=True)
    assert await ports.journal.recent(tenant, 2) == (recent[:2], recent[1][0])


async def test_it_is_looked_further_back_as_things_were_then(ports: Ports, tenant: str) -> None:
    first = await fill(ports, tenant, 1, "x1")
    await fill(ports, tenant, 2, "x2")
    await fill(ports, f"{tenant}-b", 1, "other")
    (third,) = await fill(ports, tenant, 1, "x3")
    await ports.journal.append(event(tenant, 2, "x1"), first[0])
    before, _ = await ports.journal.recent(tenant, 10, third)
    assert [(found.execution_id, found.seq) for _, found in before] == [("x2", 2), ("x1", 1)]
    assert await ports.journal.recent(tenant, 10, first[0]) == ([], 0)


async def test_nobody_is_missed_on_the_way_back(
    ports: Ports, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"BATCH": 2, "WINDOW": 3, "WINDOW_MAX": 6, "READS_MAX": 2}.items():
        monkeypatch.setattr(journal, name, value)
    begins = await fill(ports, f"{tenant}-b", 1, "begins")
    for number in range(12):
        await fill(ports, tenant, 1 + number % 3, f"x{number}")
        await fill(ports, f"{tenant}-b", number % 5, f"y{number}")
    met: dict[str, int] = {}
    before = 0
    while not met or before > begins[0]:
        found, before = await ports.journal.recent(tenant, 3, before)
        for _, last in found:
            met.setdefault(last.execution_id, last.seq)
    assert list(met) == [f"x{number}" for number in reversed(range(12))]
    assert list(met.values()) == [1 + number % 3 for number in reversed(range(12))]


async def test_whoever_listens_hears_what_is_stored(world: World, ports: Ports, tenant: str) -> None:
    heard = await world.listen(f"workflow.events.{tenant}.>")
    await fill(ports, tenant, 2)
    with pytest.raises(Conflict):
        await ports.journal.append(event(tenant, 9), 0)
    await world.until(lambda: len(heard) >= 2)
    await world.pass_time(0.1)
    # Not of what was refused.
    assert [decode_event(message.data).seq for message in heard] == [1, 2]
    assert heard[0].subject == f"workflow.events.{tenant}.x1"
    assert heard[0].headers["ce-id"] == "x1-1"
    assert heard[1].headers["ce-type"] == "wpa.workflow_step_completed"
