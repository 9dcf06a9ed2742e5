from __future__ import annotations

import asyncio

import pytest

from wpa.adapters.memory import MemoryServer, VirtualClock, open_ports
from wpa.adapters.memory.storage import Stream
from wpa.errors import Unavailable
from wpa.model.subjects import matches
from wpa.ports.tasks import Lease


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.b.c", False),
        ("a.b.c", "a.b", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.*.c", "a.b.c", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        ("*", "a.b", False),
    ],
)
def test_subjects_match_as_on_a_server(pattern: str, subject: str, expected: bool) -> None:
    assert matches(pattern, subject) is expected


class TestVirtualClock:
    async def test_it_stands_still(self) -> None:
        clock = VirtualClock(now_ms=1_000)
        await asyncio.sleep(0.01)
        assert (clock.now_ms(), clock.monotonic_s(), clock.next_in_s) == (1_000, 0.0, None)

    async def test_sleepers_wake_in_order_each_at_its_moment(self) -> None:
        clock = VirtualClock(now_ms=0)
        woken: list[tuple[str, int]] = []

        async def sleeper(name: str, *naps: float) -> None:
            for nap in naps:
                await clock.sleep(nap)
                woken.append((name, clock.now_ms()))

        tasks = [
            asyncio.create_task(sleeper("a", 3)),
            asyncio.create_task(sleeper("b", 1, 1, 1)),
            asyncio.create_task(sleeper("c", 3)),
        ]
        await clock.advance(2.5)
        assert woken == [("b", 1_000), ("b", 2_000)]
        assert clock.next_in_s == pytest.approx(0.5)
        await clock.advance(10)
        assert woken[2:] == [("a", 3_000), ("c", 3_000), ("b", 3_000)]
        assert clock.now_ms() == 12_500
        await asyncio.gather(*tasks)

    async def test_a_cancelled_sleeper_is_forgotten(self) -> None:
        clock = VirtualClock()
        task = asyncio.create_task(clock.sleep(5))
        await clock.settle()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert clock.next_in_s is None
        await clock.advance(10)

    async def test_who_sleeps_until_a_moment_never_wakes_before_it(self) -> None:
        clock = VirtualClock()
        for seconds in (0.1, 1 / 3, 0.7, 1e-9):
            until = clock.monotonic_s() + seconds
            task = asyncio.create_task(clock.sleep(until - clock.monotonic_s()))
            await clock.advance(seconds + 1e-8)
            assert task.done()
            assert clock.monotonic_s() >= until


class TestStream:
    async def test_ids_are_kept_no_longer_than_they_may_be_asked_for(self) -> None:
        clock = VirtualClock()
        stream = Stream(clock)
        for number in range(30):
            assert stream.append("s", b"", {"Nats-Msg-Id": f"m{number}"}).sequence == number + 1
            again = max(0, number - 9)
            assert stream.append("s", b"", {"Nats-Msg-Id": f"m{again}"}).sequence == again + 1
            await clock.advance(0.1)
        assert list(stream._by_id) == [f"m{number}" for number in range(20, 30)]
        assert stream.append("s", b"", {"Nats-Msg-Id": "m1"}).sequence == 31


class TestConnections:
    async def test_a_server_outlives_its_connections(self) -> None:
        server = MemoryServer()
        first = await open_ports(server)
        await first.tasks.publish("acme", b"task", {})
        await first.aclose()
        with pytest.raises(Unavailable):
            await first.tasks.publish("acme", b"task", {})
        second = await open_ports(server)
        assert await second.tasks.tenants() == {"acme"}
        await second.aclose()

    async def test_servers_share_nothing(self) -> None:
        one, other = await open_ports(), await open_ports()
        await one.tasks.publish("acme", b"task", {})
        assert await other.tasks.tenants() == set()

    async def test_nothing_is_delivered_inside_a_call(self) -> None:
        ports = await open_ports()
        leases: list[Lease] = []
        feed = await ports.tasks.open("acme", leases.append)
        await ports.tasks.publish("acme", b"task", {})
        feed.request(1)
        assert leases == []
        await asyncio.sleep(0)
        assert len(leases) == 1
        await ports.aclose()

    async def test_a_handler_that_fails_does_not_stop_the_feed(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        ports = await open_ports(MemoryServer(VirtualClock()))
        seen: list[bytes] = []

        def handle(lease: Lease) -> None:
            seen.append(lease.data)
            if lease.data == b"bad":
                raise ValueError("a handler's own error")

        feed = await ports.tasks.open("acme", handle)
        feed.request(2)
        await ports.tasks.publish("acme", b"bad", {})
        await ports.tasks.publish("acme", b"good", {})
        await asyncio.sleep(0.01)
        assert seen == [b"bad", b"good"]
        assert "a handler's own error" in caplog.text
        await ports.aclose()

    async def test_a_run_repeats_exactly(self) -> None:
        async def run() -> list[tuple[int, str, int, int]]:
            clock = VirtualClock()
            server = MemoryServer(clock)
            log: list[tuple[int, str, int, int]] = []
            for name, wait in (("w1", 1.0), ("w2", 1.0), ("w3", 1.0)):
                ports = await open_ports(server, ack_wait_s=wait)

                def take(lease: Lease, name: str = name) -> None:
                    log.append((clock.now_ms(), name, lease.sequence, lease.delivered))
                    if (lease.sequence + lease.delivered) % 3 == 0:
                        lease.ack()
                    elif lease.sequence % 2:
                        lease.nak(0.3)

                (await ports.tasks.open("acme", take)).request(100)
            for n in range(20):
                await ports.tasks.publish("acme", b"%d" % n, {})
                await clock.advance(0.05)
            await clock.advance(10)
            assert await ports.tasks.tenants() == set()
            return log

        first = await run()
        assert len(first) > 30
        assert await run() == first
