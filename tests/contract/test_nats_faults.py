"""What the real adapters promise when the server goes away: every call ends, and the truth is there after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.contract.test_journal import event
from tests.contract.test_timers import LATE_MS, listen
from tests.contract.worlds import LONG_S, Hands, NatsWorld
from tests.servers import NatsServer
from tests.waiting import until
from wpa.errors import PlatformError, Unavailable
from wpa.ports import Ports
from wpa.ports.tasks import Source


@pytest.fixture
async def world(server: NatsServer) -> AsyncIterator[NatsWorld]:
    world = NatsWorld(server.url)
    yield world
    await world.close()


async def again(ports: Ports, tenant: str) -> None:
    """Wait until the connection is back."""

    async def back() -> bool:
        try:
            await ports.journal.read(tenant, "nobody")
        except PlatformError:
            return False
        return True

    await until(back)


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
    async with asyncio.timeout(60):
        for call in (
            ports.journal.append(event(tenant, 1), 0),
            ports.journal.read(tenant, "x1"),
            ports.snapshots.put(tenant, "x1", b"", 0),
            ports.tasks.publish(tenant, b"", {}),
            ports.tasks.bury(tenant, b"", {}),
            ports.tasks.publish_step(tenant, "gpu", b"", {}),
            ports.tasks.queues(),
            ports.timers.set(tenant, "x1.wake", 0, b""),
            ports.timers.clear(tenant, "x1.wake"),
            ports.blobs.get(tenant),
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
    async with asyncio.timeout(60):
        await asyncio.gather(*writers)
    await asyncio.to_thread(server.start)
    await again(ports, tenant)
    for n in range(20):
        seqs = [found.seq for _, found in await ports.journal.read(tenant, f"x{n}")]
        assert seqs == list(range(1, len(seqs) + 1))
        # At most the one whose outcome is unknown is there beside the acknowledged.
        assert len(seqs) - stored.get(f"x{n}", 0) in (0, 1)


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
    await world.until(lambda: b"after" in hands.data and hands.data.count(b"before") >= 2)
    # By its identity it is the same; not by its count, for a server that is killed may forget a delivery.
    assert len({lease.identity for lease in hands.leases if lease.data == b"before"}) == 1

    async def all_done() -> bool:
        for lease in hands.leases:
            lease.ack()
        return tenant not in await ports.tasks.tenants()

    await world.until(all_done)


async def test_alarms_survive_a_crash_and_ring_once(
    world: NatsWorld, server: NatsServer, tenant: str
) -> None:
    ports = await world.connect(LONG_S)
    bell = await listen(ports, tenant)
    now = ports.clock.now_ms()
    missed_ms, later_ms = now + 1_500, now + 4_000
    await asyncio.gather(
        *(ports.timers.set(tenant, f"missed{n}.wake", missed_ms, b"missed") for n in range(50)),
        *(ports.timers.set(tenant, f"later{n}.wake", later_ms, b"later") for n in range(50)),
    )
    await ports.timers.set(tenant, "replaced.wake", missed_ms, b"early")
    await ports.timers.set(tenant, "replaced.wake", later_ms, b"later")
    await ports.timers.set(tenant, "cleared.wake", missed_ms, b"cleared")
    await ports.timers.clear(tenant, "cleared.wake")
    await asyncio.to_thread(server.kill)
    while ports.clock.now_ms() < missed_ms + 300:
        await asyncio.sleep(0.05)
    assert bell.data == []
    await asyncio.to_thread(server.start)
    back = ports.clock.now_ms()
    await world.until(lambda: bell.data.count(b"missed") >= 50)
    assert max(bell.moments) < back + LATE_MS
    await world.until(lambda: bell.data.count(b"later") >= 51)
    await world.pass_time(0.5)
    assert sorted(bell.data) == [b"later"] * 51 + [b"missed"] * 50
    rang = [moment for data, moment in zip(bell.data, bell.moments, strict=True) if data == b"later"]
    assert later_ms <= min(rang)
    assert max(rang) < max(later_ms, back) + LATE_MS


async def test_what_rang_before_a_crash_is_still_leased(
    world: NatsWorld, server: NatsServer, tenant: str
) -> None:
    ports = await world.connect()
    hands = Hands()
    (await ports.tasks.open(Source(tenant, "due"), hands)).request(10)
    await ports.timers.set(tenant, "x1.wake", 0, b"rang", {"Wpa-Slot": "nap"})
    await world.until(lambda: hands.leases)
    await asyncio.to_thread(server.restart)
    await world.until(lambda: len(hands.leases) >= 2)
    again = hands.leases[-1]
    assert (again.identity, again.data) == (hands.leases[0].identity, b"rang")
    assert again.headers == {"Wpa-Slot": "nap"}
    assert again.delivered >= 2


async def test_an_alarm_that_was_due_while_the_server_was_dead_rings_when_it_is_back(
    world: NatsWorld, server: NatsServer, tenant: str
) -> None:
    ports = await world.connect()
    bell = await listen(ports, tenant)
    await ports.timers.set(tenant, "before.schedule", ports.clock.now_ms(), b"before")
    await world.until(lambda: bell.leases)
    due_ms = ports.clock.now_ms() + 3_000
    await ports.timers.set(tenant, "report.schedule", due_ms, b"tick")
    await asyncio.to_thread(server.kill)
    while ports.clock.now_ms() <= due_ms:
        await asyncio.sleep(0.1)
    await asyncio.to_thread(server.start)
    await world.until(lambda: b"tick" in bell.data)


async def test_a_watch_goes_on_after_a_restart(world: NatsWorld, server: NatsServer, tenant: str) -> None:
    ports = await world.connect()
    heard: list[bytes] = []
    await ports.live.watch(f"data.{tenant}", lambda subject, data, headers: heard.append(data))
    await asyncio.to_thread(server.restart)
    await again(ports, tenant)
    ports.live.publish(f"data.{tenant}", b"news")
    await world.until(lambda: heard == [b"news"])


async def test_who_may_have_missed_a_nudge_is_told_so(
    world: NatsWorld, server: NatsServer, tenant: str
) -> None:
    told: list[tuple[str, str, int, str]] = []

    async def remember(tenant: str, execution: str, epoch: int, reason: str) -> None:
        told.append((tenant, execution, epoch, reason))

    ports = await world.connect()
    await ports.live.on_nudge(f"{tenant}-w1", remember)
    await asyncio.to_thread(server.restart)
    await again(ports, tenant)
    assert told == [("", "", 0, "")]
