from __future__ import annotations

import asyncio

import pytest

from tests.contract.worlds import ACK_WAIT_S, LONG_S, Hands, World
from wpa.errors import PlatformError
from wpa.ports import Ports
from wpa.ports.tasks import Lease, Source

LATE_MS = 10_000
"""A server that is healthy, but on a slow and busy machine, is no later than that; on a quiet one, 250 ms."""


class Bell(Hands):
    """Notes when each lease came, and acks it."""

    def __init__(self, ports: Ports) -> None:
        super().__init__()
        self._ports = ports
        self.moments: list[int] = []

    def __call__(self, lease: Lease) -> None:
        super().__call__(lease)
        self.moments.append(self._ports.clock.now_ms())
        lease.ack()


async def listen(ports: Ports, tenant: str, credit: int = 1_000) -> Bell:
    bell = Bell(ports)
    (await ports.tasks.open(Source(tenant, "due"), bell)).request(credit)
    return bell


class TestAlarms:
    @pytest.fixture
    async def ports(self, world: World) -> Ports:
        """What is heard once is delivered once."""
        return await world.connect(LONG_S)

    async def test_one_rings_once_at_its_moment_never_early(
        self, world: World, ports: Ports, tenant: str
    ) -> None:
        bell = await listen(ports, tenant)
        at_ms = ports.clock.now_ms() + 700
        await ports.timers.set(tenant, "x1.wake", at_ms, b"\x00body\r\n", {"Wpa-Slot": "nap"})
        await world.until(lambda: bell.leases)
        assert at_ms <= bell.moments[0] < at_ms + LATE_MS
        assert bell.data == [b"\x00body\r\n"]
        await world.pass_time(0.5)
        assert len(bell.leases) == 1

    async def test_it_is_delivered_with_its_own_headers_only(
        self, world: World, ports: Ports, tenant: str
    ) -> None:
        bell = await listen(ports, tenant)
        headers = {"Wpa-Slot": "nap\r\nNats-Evil: 1", "Nats-Msg-Id": "forged", "Nats-Rollup": "all"}
        await ports.timers.set(tenant, "x1.wake", 0, b"", headers)
        await world.until(lambda: bell.leases)
        assert bell.leases[0].headers == {"Wpa-Slot": "nap Nats-Evil: 1"}

    async def test_what_rings_is_leased(self, world: World, tenant: str) -> None:
        ports = await world.connect()
        hands = Hands()
        (await ports.tasks.open(Source(tenant, "due"), hands)).request(10)
        await ports.timers.set(tenant, "x1.wake", 0, b"1")
        await world.until(lambda: len(hands.leases) >= 2)
        first, second = hands.leases[:2]
        assert first.source == second.source == Source(tenant, "due")
        assert first.tenant == tenant
        assert (first.delivered, second.delivered) == (1, 2)
        assert first.identity == second.identity
        hands.leases[-1].ack()
        before = len(hands.leases)
        await world.pass_time(ACK_WAIT_S * 1.5)
        assert len(hands.leases) == before

    @pytest.mark.parametrize("ago_ms", [0, 1, 100_000, 10**15])
    async def test_a_past_moment_is_now(self, world: World, ports: Ports, tenant: str, ago_ms: int) -> None:
        bell = await listen(ports, tenant)
        now = ports.clock.now_ms()
        await ports.timers.set(tenant, "x1.wake", now - ago_ms, b"late")
        await world.until(lambda: bell.leases)
        assert bell.moments[0] < now + LATE_MS

    async def test_a_moment_beyond_all_calendars_is_not_now(
        self, world: World, ports: Ports, tenant: str
    ) -> None:
        bell = await listen(ports, tenant)
        for n, at_ms in enumerate((9_300_000_000_000, 253_402_300_799_999, 10**17)):
            await ports.timers.set(tenant, f"x{n}.wake", at_ms, b"far")
        await world.pass_time(0.8)
        assert bell.leases == []

    async def test_a_later_set_replaces_the_earlier(self, world: World, ports: Ports, tenant: str) -> None:
        bell = await listen(ports, tenant)
        now = ports.clock.now_ms()
        await ports.timers.set(tenant, "x1.wake", now + 3_600_000, b"in an hour")
        await ports.timers.set(tenant, "x1.wake", now + 500, b"soon")
        await ports.timers.set(tenant, "x2.wake", now + 1_500, b"too soon")
        await ports.timers.set(tenant, "x2.wake", now + 2_000, b"later")
        await world.until(lambda: len(bell.leases) == 2)
        await world.pass_time(0.3)
        assert bell.data == [b"soon", b"later"]
        assert bell.moments[1] >= now + 2_000

    async def test_one_that_rang_can_be_set_again(self, world: World, ports: Ports, tenant: str) -> None:
        bell = await listen(ports, tenant)
        for n in range(3):
            await ports.timers.set(tenant, "x1.wake", ports.clock.now_ms() + 50, b"%d" % n)
            await world.until(lambda: len(bell.leases) > n)  # noqa: B023  called at once
        assert bell.data == [b"0", b"1", b"2"]
        assert len({lease.identity for lease in bell.leases}) == 3

    async def test_a_cleared_one_does_not_ring(self, world: World, ports: Ports, tenant: str) -> None:
        bell = await listen(ports, tenant)
        now = ports.clock.now_ms()
        await ports.timers.set(tenant, "x1.wake", now + 1_500, b"cleared")
        await ports.timers.set(tenant, "x1.start", now + 1_500, b"kept")
        await ports.timers.clear(tenant, "x1.wake")
        await ports.timers.clear(tenant, "x1.wake")
        await ports.timers.clear(tenant, "never-set.wake")
        await world.until(lambda: bell.leases)
        await world.pass_time(0.4)
        assert bell.data == [b"kept"]

    async def test_clearing_one_that_has_rung_takes_nothing_away(self, world: World, tenant: str) -> None:
        ports = await world.connect()
        await ports.timers.set(tenant, "x1.wake", 0, b"rang")
        hands = Hands()
        (await ports.tasks.open(Source(tenant, "due"), hands)).request(10)
        await world.until(lambda: hands.leases)
        await ports.timers.clear(tenant, "x1.wake")
        before = len(hands.leases)
        await world.until(lambda: len(hands.leases) > before)
        assert set(hands.data) == {b"rang"}

    async def test_many_at_one_moment_all_ring(self, world: World, ports: Ports, tenant: str) -> None:
        bell = await listen(ports, tenant)
        at_ms = ports.clock.now_ms() + 1_000
        sets = [ports.timers.set(tenant, f"x{n}.wake", at_ms, b"%d" % n) for n in range(500)]
        await asyncio.gather(*sets)
        await world.until(lambda: len(bell.leases) >= 500)
        assert sorted(bell.data, key=int) == [b"%d" % n for n in range(500)]
        assert at_ms <= min(bell.moments)
        assert max(bell.moments) < at_ms + LATE_MS

    async def test_what_rings_while_nobody_listens_is_kept(
        self, world: World, ports: Ports, tenant: str
    ) -> None:
        for n in range(3):
            await ports.timers.set(tenant, f"x{n}.wake", 0, b"%d" % n)
        await world.pass_time(0.6)
        bell = await listen(ports, tenant)
        await world.until(lambda: len(bell.leases) == 3)
        assert sorted(bell.data) == [b"0", b"1", b"2"]

    async def test_a_due_one_does_not_wait_behind_those_that_are_not(
        self, world: World, ports: Ports, tenant: str
    ) -> None:
        later = ports.clock.now_ms() + 3_600_000
        await asyncio.gather(*(ports.timers.set(tenant, f"x{n}.wake", later, b"") for n in range(2_000)))
        bell = await listen(ports, tenant)
        await ports.timers.set(tenant, "now.wake", 0, b"now")
        await world.until(lambda: bell.leases)
        assert bell.data == [b"now"]


class TestTenants:
    async def test_each_has_its_own(self, world: World, ports: Ports, tenant: str) -> None:
        one, other = await listen(ports, tenant), await listen(ports, f"{tenant}-b")
        await ports.timers.set(tenant, "x1.wake", 0, b"one")
        await ports.timers.set(f"{tenant}-b", "x1.wake", ports.clock.now_ms() + 300, b"other")
        await ports.timers.clear(tenant, "x1.start")
        await world.until(lambda: one.leases and other.leases)
        assert (one.data, other.data) == ([b"one"], [b"other"])
        assert other.leases[0].tenant == f"{tenant}-b"

    async def test_clearing_one_leaves_the_others(self, world: World, ports: Ports, tenant: str) -> None:
        other = await listen(ports, f"{tenant}-b")
        at_ms = ports.clock.now_ms() + 300
        await ports.timers.set(tenant, "x1.wake", at_ms, b"")
        await ports.timers.set(f"{tenant}-b", "x1.wake", at_ms, b"")
        await ports.timers.clear(tenant, "x1.wake")
        await world.until(lambda: other.leases)


async def test_after_the_end_every_call_says_so(world: World, tenant: str) -> None:
    ports = await world.connect()
    await ports.aclose()
    for call in (
        ports.timers.set(tenant, "x1.wake", 0, b""),
        ports.timers.clear(tenant, "x1.wake"),
    ):
        with pytest.raises(PlatformError):
            await call
