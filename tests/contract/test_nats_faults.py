"""What the real adapters promise when the server goes away: every call ends, and the truth is there after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.contract.test_journal import event
from tests.contract.worlds import ACK_WAIT_S, Hands, NatsWorld
from tests.servers import NatsServer
from wpa.errors import PlatformError, Unavailable
from wpa.ports import Ports


@pytest.fixture
async def world(server: NatsServer) -> AsyncIterator[NatsWorld]:
    world = NatsWorld(server.url)
    yield world
    await world.close()


async def again(ports: Ports, tenant: str) -> None:
    """Wait until the connection is back."""
    for _ in range(500):
        try:
            await ports.journal.read(tenant, "nobody")
        except PlatformError:
            await asyncio.sleep(0.02)
        else:
            return
    raise AssertionError("the connection did not come back")


async def test_what_was_acknowledged_survives_a_crash(
    world: NatsWorld, server: NatsServer, tenant: str
) -> None:
    ports = await world.connect()
    position = await ports.journal.append(event(tenant, 1), 0)
    revision = await ports.snapshots.put(tenant, "x1", b"one", 0)
    await asyncio.to_thread(server.restart)
    await again(ports, tenant)
    assert [place for place, _ in await ports.journal.read(tenant, "x1")] == [position]
    assert await ports.snapshots.get(tenant, "x1") == (b"one", revision)
    assert await ports.journal.append(event(tenant, 2), position) > position


async def test_without_a_server_calls_end_in_unavailable(
    world: NatsWorld, server: NatsServer, tenant: str
) -> None:
    ports = await world.connect()
    await asyncio.to_thread(server.kill)
    async with asyncio.timeout(15):
        for call in (
            ports.journal.append(event(tenant, 1), 0),
            ports.journal.read(tenant, "x1"),
            ports.snapshots.put(tenant, "x1", b"", 0),
            ports.tasks.publish(tenant, b"", {}),
            ports.tasks.bury(tenant, b"", {}),
        ):
            with pytest.raises(Unavailable):
                await call
    ports.live.publish_event(tenant, "x1", {})  # best effort: it says nothing
    await asyncio.to_thread(server.start)
    await again(ports, tenant)
    # What failed was not sent, and does not come back to life.
    assert await ports.journal.read(tenant, "x1") == []
    assert tenant not in await ports.tasks.tenants()


async def test_appends_in_flight_at_a_crash_all_end_and_leave_no_gap(
    world: NatsWorld, server: NatsServer, tenant: str
) -> None:
    ports = await world.connect()
    stored: dict[str, int] = {}

    async def write(execution: str) -> None:
        """Append until the server goes; remember how far it was acknowledged."""
        position, seq = 0, 0
        while True:
            try:
                position = await ports.journal.append(event(tenant, seq + 1, execution), position)
            except Unavailable:
                return
            seq += 1
            stored[execution] = seq

    writers = [asyncio.create_task(write(f"x{n}")) for n in range(20)]
    await asyncio.sleep(0.1)
    await asyncio.to_thread(server.kill)
    async with asyncio.timeout(15):
        await asyncio.gather(*writers)
    await asyncio.to_thread(server.start)
    await again(ports, tenant)
    for n in range(20):
        seqs = [found.seq for _, found in await ports.journal.read(tenant, f"x{n}")]
        assert seqs == list(range(1, len(seqs) + 1))
        # At most the one whose outcome is unknown is there beside the acknowledged.
        assert len(seqs) - stored[f"x{n}"] in (0, 1)


async def test_a_feed_goes_on_after_a_restart(world: NatsWorld, server: NatsServer, tenant: str) -> None:
    ports = await world.connect()
    hands = Hands()
    feed = await ports.tasks.open(tenant, hands)
    feed.request(10)
    await ports.tasks.publish(tenant, b"before", {})
    await world.until(lambda: hands.leases)
    await asyncio.to_thread(server.restart)
    await again(ports, tenant)
    await ports.tasks.publish(tenant, b"after", {})
    await world.until(lambda: {b"before", b"after"} <= set(hands.data) and len(hands.data) >= 3)
    redelivered = [lease for lease in hands.leases if lease.data == b"before"][-1]
    assert redelivered.delivered >= 2
    assert redelivered.identity == hands.leases[0].identity
    for lease in hands.leases:
        lease.ack()
    await world.pass_time(ACK_WAIT_S)
    assert tenant not in await ports.tasks.tenants()
