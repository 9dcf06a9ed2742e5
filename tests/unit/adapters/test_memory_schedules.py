from __future__ import annotations

import asyncio

import pytest

from wpa.adapters.memory import MemoryServer, VirtualClock, open_ports
from wpa.adapters.memory.schedules import Schedules
from wpa.model.times import parse_ms, rfc3339
from wpa.ports.tasks import Lease, Source


class Rung:
    """Schedules on a clock of their own, and what rang when."""

    def __init__(self, now: str = "2026-11-20T10:00:00Z") -> None:
        self.clock = VirtualClock(now_ms=parse_ms(now))
        self.heard: list[tuple[str, str, bytes]] = []
        self.schedules = Schedules(self.clock, self._ring)

    def _ring(self, tenant: str, body: bytes, headers: dict[str, str]) -> None:
        self.heard.append((rfc3339(self.clock.now_ms()), tenant, body))

    @property
    def moments(self) -> list[str]:
        return [moment.removesuffix(".000Z") for moment, _, _ in self.heard]


async def test_each_at_its_millisecond_in_the_order_of_their_moments() -> None:
    rung = Rung()
    now = rung.clock.now_ms()
    for n, after in enumerate([5_001, 3, 86_400_000, 3, 250]):
        rung.schedules.set("acme", f"x{n}.wake", now + after, b"%d" % n, {})
    await rung.clock.advance(10)
    assert [(moment, body) for moment, _, body in rung.heard] == [
        ("2026-11-20T10:00:00.003Z", b"1"),
        ("2026-11-20T10:00:00.003Z", b"3"),
        ("2026-11-20T10:00:00.250Z", b"4"),
        ("2026-11-20T10:00:05.001Z", b"0"),
    ]
    await rung.clock.advance(86_400)
    assert rung.heard[-1] == ("2026-11-21T10:00:00.000Z", "acme", b"2")


async def test_a_clock_that_stands_still_has_nothing_left_to_wake_for() -> None:
    rung = Rung()
    rung.schedules.set("acme", "x1.wake", rung.clock.now_ms() + 1_000, b"", {})
    await rung.clock.settle()
    assert rung.clock.next_in_s == pytest.approx(1)
    await rung.clock.advance(1)
    assert rung.clock.next_in_s is None


async def test_alarms_outlive_the_connection_that_set_them() -> None:
    server = MemoryServer(clock := VirtualClock())
    first = await open_ports(server)
    await first.timers.set("acme", "x1.wake", clock.now_ms() + 60_000, b"wake")
    await first.aclose()
    await clock.advance(3_600)
    second = await open_ports(server)
    leases: list[Lease] = []
    (await second.tasks.open(Source("acme", "due"), leases.append)).request(1)
    await clock.settle()
    assert [lease.data for lease in leases] == [b"wake"]
    await second.aclose()


async def test_ten_thousand_at_one_moment() -> None:
    rung = Rung()
    at_ms = rung.clock.now_ms() + 3_600_000
    for n in range(10_000):
        rung.schedules.set("acme", f"x{n}.wake", at_ms, b"%d" % n, {})
    async with asyncio.timeout(5):
        await rung.clock.advance(3_600)
    assert [int(body) for _, _, body in rung.heard] == list(range(10_000))
