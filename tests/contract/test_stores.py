from __future__ import annotations

import asyncio
import os
import time

import msgspec
import pytest

from tests.contract.worlds import World
from wpa.errors import Broken, Conflict, NotFound
from wpa.ports import Ports
from wpa.ports.definitions import StoredDefinition


def definition(version: str, hash: str = "h", workflow: str = "order") -> StoredDefinition:
    return StoredDefinition(
        workflow=workflow,
        version=version,
        hash=hash,
        kind="plan",
        document=msgspec.Raw(b'{"id": "%s", "steps": []}' % workflow.encode()),
        deployed_at="2026-11-20T10:00:00.000Z",
        deployed_by="ana",
    )


class TestSnapshots:
    async def test_none_yet(self, ports: Ports, tenant: str) -> None:
        assert await ports.snapshots.get(tenant, "x1") is None

    async def test_each_replaces_the_one_before(self, ports: Ports, tenant: str) -> None:
        first = await ports.snapshots.put(tenant, "x1", b"one", 0)
        assert await ports.snapshots.get(tenant, "x1") == (b"one", first)
        second = await ports.snapshots.put(tenant, "x1", b"two \x00\xff", first)
        assert second > first
        assert await ports.snapshots.get(tenant, "x1") == (b"two \x00\xff", second)

    async def test_an_older_one_never_replaces_a_newer(self, ports: Ports, tenant: str) -> None:
        first = await ports.snapshots.put(tenant, "x1", b"one", 0)
        second = await ports.snapshots.put(tenant, "x1", b"two", first)
        for revision in (0, first, second + 1_000_000):
            with pytest.raises(Conflict):
                await ports.snapshots.put(tenant, "x1", b"late", revision)
        assert await ports.snapshots.get(tenant, "x1") == (b"two", second)

    async def test_none_to_replace(self, ports: Ports, tenant: str) -> None:
        with pytest.raises(Conflict):
            await ports.snapshots.put(tenant, "x1", b"one", 5)
        assert await ports.snapshots.get(tenant, "x1") is None

    async def test_of_many_at_once_one_wins(self, world: World, tenant: str) -> None:
        workers = [await world.connect() for _ in range(3)]
        tries = [workers[n % 3].snapshots.put(tenant, "x1", b"%d" % n, 0) for n in range(9)]
        ended = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(outcome, int) for outcome in ended) == 1
        assert sum(isinstance(outcome, Conflict) for outcome in ended) == 8

    async def test_executions_and_tenants_are_apart(self, ports: Ports, tenant: str) -> None:
        await ports.snapshots.put(tenant, "x1", b"one", 0)
        assert await ports.snapshots.get(tenant, "x2") is None
        assert await ports.snapshots.get(f"{tenant}-b", "x1") is None


class TestDefinitions:
    async def test_nothing_deployed(self, ports: Ports, tenant: str) -> None:
        assert await ports.definitions.get(tenant, "order", "1") is None
        assert await ports.definitions.latest(tenant, "order") is None
        assert await ports.definitions.list(tenant) == []
        assert tenant not in await ports.definitions.tenants()

    async def test_what_is_deployed_is_found(self, ports: Ports, tenant: str) -> None:
        wanted = definition("1")
        assert await ports.definitions.put(tenant, wanted) is True
        found = await ports.definitions.get(tenant, "order", "1")
        assert found is not None
        assert msgspec.json.encode(found) == msgspec.json.encode(wanted)
        assert await ports.definitions.latest(tenant, "order") == "1"
        assert tenant in await ports.definitions.tenants()

    async def test_a_version_never_changes(self, ports: Ports, tenant: str) -> None:
        await ports.definitions.put(tenant, definition("1", "first"))
        assert await ports.definitions.put(tenant, definition("1", "second")) is False
        found = await ports.definitions.get(tenant, "order", "1")
        assert found is not None
        assert found.hash == "first"

    async def test_the_one_deployed_last_is_the_latest(self, ports: Ports, tenant: str) -> None:
        await ports.definitions.put(tenant, definition("2.10"))
        await ports.definitions.put(tenant, definition("1.0"))
        assert await ports.definitions.latest(tenant, "order") == "1.0"
        # Deployed again, it is not deployed anew.
        assert await ports.definitions.put(tenant, definition("2.10")) is False
        assert await ports.definitions.latest(tenant, "order") == "1.0"

    async def test_all_of_a_tenant(self, ports: Ports, tenant: str) -> None:
        for version, workflow in (("1", "order"), ("1.1", "order"), ("1", "ship")):
            await ports.definitions.put(tenant, definition(version, workflow=workflow))
        await ports.definitions.put(f"{tenant}-b", definition("9"))
        found = {(each.workflow, each.version) for each in await ports.definitions.list(tenant)}
        assert found == {("order", "1"), ("order", "1.1"), ("ship", "1")}

    @pytest.mark.parametrize("junk", [b"", b'{"ok": true}', b'{"workflow": "\xff"}', b"[" * 100_000])
    async def test_what_can_not_be_read_is_named_and_replaced_by_a_deploy(
        self, world: World, tenant: str, junk: bytes
    ) -> None:
        ports = await world.connect()
        for version in ("1", "2"):
            await ports.definitions.put(tenant, definition(version))
        await world.overwrite("definitions", f"{tenant}.order.1", junk)
        with pytest.raises(Broken, match=f"wpa_definitions {tenant}.order.1 .*deploy it once more"):
            await ports.definitions.get(tenant, "order", "1")
        assert [each.version for each in await ports.definitions.list(tenant)] == ["2"]
        assert await ports.definitions.put(tenant, definition("1")) is False
        assert await ports.definitions.get(tenant, "order", "1") is not None
        assert await ports.definitions.latest(tenant, "order") == "2"

    async def test_of_many_deploys_one_creates(self, world: World, tenant: str) -> None:
        workers = [await world.connect() for _ in range(2)]
        tries = [workers[n % 2].definitions.put(tenant, definition("1", f"h{n}")) for n in range(6)]
        assert sorted(await asyncio.gather(*tries)) == [False] * 5 + [True]

    async def test_everybody_hears_of_a_change(self, world: World, tenant: str) -> None:
        here, there = await world.connect(), await world.connect()
        told: list[tuple[str, str, str]] = []
        here.definitions.on_change(lambda tenant, workflow: told.append(("here", tenant, workflow)))
        there.definitions.on_change(lambda tenant, workflow: told.append(("there", tenant, workflow)))
        await here.definitions.put(tenant, definition("1"))
        await world.until(lambda: {("here", tenant, "order"), ("there", tenant, "order")} <= set(told))


class TestBlobs:
    @pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
    async def test_what_is_put_is_got(self, world: World, tenant: str, size: int) -> None:
        data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        await (await world.connect()).blobs.put(f"{tenant}/order-4711/0123456789abcdef", data)
        assert await (await world.connect()).blobs.get(f"{tenant}/order-4711/0123456789abcdef") == data

    async def test_putting_twice_is_putting_once(self, ports: Ports, tenant: str) -> None:
        await ports.blobs.put(tenant, b"content")
        await ports.blobs.put(tenant, b"content")
        assert await ports.blobs.get(tenant) == b"content"

    async def test_what_is_not_there(self, ports: Ports, tenant: str) -> None:
        with pytest.raises(NotFound) as caught:
            await ports.blobs.get(tenant)
        assert caught.value.code == "unknown_payload"
        assert tenant in caught.value.message

    async def test_a_large_one_costs_in_proportion(self, ports: Ports, tenant: str) -> None:
        async def cpu_s(megabytes: int, turn: int) -> float:
            """CPU time to put and to get so much."""
            data = os.urandom(megabytes << 20)
            begun = time.process_time()
            await ports.blobs.put(f"{tenant}/{megabytes}/{turn}", data)
            assert await ports.blobs.get(f"{tenant}/{megabytes}/{turn}") == data
            return time.process_time() - begun

        # In turns, and the least of each: what else the machine does costs the one and then the other.
        few, many = map(
            min, zip(*[(await cpu_s(10, turn), await cpu_s(40, turn)) for turn in range(5)], strict=True)
        )
        assert many < 8 * max(few, 0.01)

    async def test_one_that_is_put_again_while_it_is_read(self, world: World, tenant: str) -> None:
        here, there = await world.connect(), await world.connect()
        data = os.urandom(5_000_000)
        await here.blobs.put(tenant, data)

        async def puts() -> None:
            for _ in range(3):
                await here.blobs.put(tenant, data)

        putting = asyncio.create_task(puts())
        while not putting.done():
            assert await there.blobs.get(tenant) == data
        await putting
