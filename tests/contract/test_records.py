from __future__ import annotations

import asyncio

import msgspec
import pytest

from tests.contract.worlds import Hands, World
from wpa.errors import Conflict
from wpa.ports import Ports
from wpa.ports.definitions import StoredDefinition
from wpa.ports.tasks import Source


class TestRecords:
    async def test_none_yet(self, ports: Ports, tenant: str) -> None:
        assert await ports.records.get(tenant, "schedule", "w") is None
        assert await ports.records.list(tenant, "schedule") == []

    async def test_each_replaces_the_one_before_and_only_that(self, ports: Ports, tenant: str) -> None:
        first = await ports.records.put(tenant, "schedule", "w", b"one", 0)
        second = await ports.records.put(tenant, "schedule", "w", b"two", first)
        for revision in (0, first):
            with pytest.raises(Conflict):
                await ports.records.put(tenant, "schedule", "w", b"late", revision)
        assert await ports.records.get(tenant, "schedule", "w") == (b"two", second)

    async def test_of_many_at_once_one_wins(self, world: World, tenant: str) -> None:
        workers = [await world.connect() for _ in range(3)]
        tries = [workers[n % 3].records.put(tenant, "claim", "x", b"%d" % n, 0) for n in range(9)]
        ended = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(outcome, int) for outcome in ended) == 1
        assert sum(isinstance(outcome, Conflict) for outcome in ended) == 8

    async def test_tenants_and_kinds_are_apart(self, ports: Ports, tenant: str) -> None:
        await ports.records.put(tenant, "schedule", "a", b"1", 0)
        await ports.records.put(tenant, "schedule", "b", b"2", 0)
        await ports.records.put(tenant, "claim", "a", b"3", 0)
        await ports.records.put(f"{tenant}-b", "schedule", "a", b"4", 0)
        assert sorted(await ports.records.list(tenant, "schedule")) == [("a", b"1"), ("b", b"2")]
        assert await ports.records.list(tenant, "claim") == [("a", b"3")]


async def test_every_workflow_that_is_deployed(ports: Ports, tenant: str) -> None:
    for workflow, version in (("a", "1"), ("a", "1.1"), ("b", "1")):
        stored = StoredDefinition(
            workflow=workflow,
            version=version,
            hash="h",
            kind="plan",
            document=msgspec.Raw(b"{}"),
            deployed_at="",
        )
        await ports.definitions.put(tenant, stored)
    found = {key for key in await ports.definitions.workflows() if key[0] == tenant}
    assert found == {(tenant, "a"), (tenant, "b")}


async def test_a_lease_knows_when_its_message_was_stored(world: World, ports: Ports, tenant: str) -> None:
    before = ports.clock.now_ms()
    await ports.tasks.publish(tenant, b"1", {})
    after = ports.clock.now_ms()
    await world.pass_time(0.1)
    hands = Hands()
    (await ports.tasks.open(Source(tenant), hands)).request(1)
    await world.until(lambda: hands.leases)
    assert before - 5 <= hands.leases[0].stored_ms <= after + 5
